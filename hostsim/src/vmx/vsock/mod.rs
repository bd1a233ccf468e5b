//! The shim's own vsock device, for hosts whose kernel has none: a vhost-user backend.
//!
//! A guest's connect to CID 2 port P becomes a connection to the unix socket `<folder>/port-P`.
//! Where nobody listens, the guest is told so at once. The host never connects to the guest.

mod backend;
mod packet;
mod sockets;
mod state;

#[cfg(any(test, fuzzing))]
pub(crate) use state::hostile_guest;

use backend::Backend;
use sockets::Sockets;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vhost::vhost_user::Listener;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

/// A device whose socket is there for QEMU to connect to.
#[derive(Debug)]
pub(super) struct Device {
    backend: Arc<Mutex<Backend>>,
    ended: std::sync::mpsc::Receiver<String>,
}

impl Device {
    /// Listen for QEMU at `socket`, and serve its guest from threads of its own.
    pub(super) fn start(socket: &str, guest_cid: u32, folder: PathBuf) -> io::Result<Device> {
        let sockets = Sockets::new(folder)?;
        let poll = sockets.poll_fd();
        let backend = Arc::new(Mutex::new(Backend::new(guest_cid, sockets)?));
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::<()>::new());
        let mut daemon = VhostUserDaemon::new("vsock".to_owned(), backend.clone(), memory)
            .map_err(|e| io::Error::other(e.to_string()))?;
        for handler in daemon.get_epoll_handlers() {
            handler.register_listener(poll, EventSet::IN, u64::from(backend::SOCKETS_EVENT))?;
        }
        let mut listener =
            Listener::new(socket, true).map_err(|e| io::Error::other(e.to_string()))?;
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("vsock-accept".to_owned())
            .spawn(move || {
                let accepted = daemon.start(&mut listener);
                // It removes the socket's file when it goes: now, not that of the next QEMU after a reset.
                drop(listener);
                let result = accepted.and_then(|()| daemon.wait());
                for handler in daemon.get_epoll_handlers() {
                    handler.send_exit_event();
                }
                // QEMU's end is this connection's end, in whatever words.
                let words = result.map_or_else(|e| e.to_string(), |()| "disconnected".to_owned());
                let _ = sender.send(words);
            })?;
        Ok(Device { backend, ended })
    }

    /// QEMU has ended: pass on what the guest sent, for at most `deadline`.
    pub(super) fn finish(self, deadline: Duration) -> io::Result<()> {
        // Nobody connected: then there is nothing to wait for.
        let connected = self
            .backend
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .connected();
        if connected && self.ended.recv_timeout(deadline).is_err() {
            return Err(io::Error::other("QEMU ended, but its connection did not"));
        }
        self.backend
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .flush(deadline)
    }
}
