//! The endpoint's side of the links to the containers' VMs.

pub mod certificate;
pub mod concentrator;
pub mod session;
pub mod vsock;

pub use session::Session;

use wire::config::Transport;

/// Which link new boots use, and where their tethers dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkSetup {
    /// vsock, to this port of the host.
    Vsock {
        /// The port.
        port: u32,
    },
    /// The serial port, through the concentrator at this proxy URI.
    Serial {
        /// `telnets://host:port#thumbprint=…`.
        proxy: String,
    },
}

impl LinkSetup {
    /// What the guest is told.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Vsock { port } => Transport::Vsock { port: *port },
            Self::Serial { .. } => Transport::Serial {
                device: "ttyS1".to_owned(),
            },
        }
    }

    /// The same in one word, to see whether a prepared boot still fits.
    pub fn place(&self) -> String {
        match self {
            Self::Vsock { port } => format!("vsock:{port}"),
            Self::Serial { proxy } => proxy.clone(),
        }
    }
}

/// The service URI of a container's serial port.
pub fn service_uri(vch: &str, id: &str) -> String {
    format!("mooring:{vch}:{id}")
}
