//! What bounds a container's processes, and its file systems in memory.

use serde::{Deserialize, Serialize};

/// Bounds and kernel settings, the same for the container's process and its execs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Resource limits, over Docker's defaults.
    pub ulimits: Vec<Ulimit>,
    /// Kernel settings: name with dots, value. Set once a boot.
    pub sysctls: Vec<(String, String)>,
    /// No process gains a privilege by what it executes.
    pub no_new_privileges: bool,
    /// How likely the OOM killer takes it, from -1000 to 1000.
    pub oom_score_adj: i32,
    /// Processes and threads at once; 0: without limit.
    pub pids: u64,
    /// Time of the CPUs that all its processes have together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuTime>,
}

/// Time of CPUs: so much in each period, as cgroups have it (`cpu.max`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuTime {
    /// Of all CPUs together, in µs.
    pub quota: u32,
    /// In µs.
    pub period: u32,
}

/// A resource limit of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    /// Linux's number of the resource.
    pub resource: u32,
    /// The limit; `u64::MAX`: none.
    pub soft: u64,
    /// What the limit may be raised to.
    pub hard: u64,
}

/// A tmpfs in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// Absolute path in the container; made where it does not exist.
    pub path: String,
    /// Flags of mount(2), Linux's numbers. `MS_NODEV` is always set.
    pub flags: u64,
    /// Options of tmpfs: `size=…,mode=…`.
    pub data: String,
}
