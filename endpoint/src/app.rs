//! What all parts of a running endpoint share.

use crate::{cli::Serve, containers::Containers, events::Events, images::Images, vsphere::Vsphere};
use std::sync::Arc;

/// The endpoint of one virtual container host.
#[derive(Debug)]
pub struct App {
    /// How it was called.
    pub settings: Serve,
    /// The hypervisor.
    pub vsphere: Arc<Vsphere>,
    /// What happened.
    pub events: Events,
    /// The images.
    pub images: Arc<Images>,
    /// The containers, their links and execs.
    pub containers: Arc<Containers>,
    /// When the endpoint was started, in ns since 1970.
    pub started: u64,
}

impl App {
    /// The name of the virtual container host.
    pub fn name(&self) -> &str {
        self.settings
            .name
            .as_deref()
            .unwrap_or(&self.settings.vch_id)
    }
}
