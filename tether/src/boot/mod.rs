//! From the kernel's hand-over to a container that waits for its start: each step in a module of
//! its own, each fault named after its step.

pub mod clock;
pub mod config;
pub mod disk;
pub mod files;
pub mod modules;
pub mod root;
pub mod system;
pub mod volumes;

/// A step of the boot failed. Becomes the error of `docker start`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{step}: {message}")]
pub struct Fault {
    /// The step, as `BootFault` names it.
    pub step: &'static str,
    /// What failed, on what, why.
    pub message: String,
}

impl Fault {
    /// A closure that makes faults of a step, for `map_err`.
    pub fn at<E: std::fmt::Display>(
        step: &'static str,
        what: impl std::fmt::Display,
    ) -> impl FnOnce(E) -> Fault {
        move |e| Fault {
            step,
            message: format!("{what}: {e}"),
        }
    }
}
