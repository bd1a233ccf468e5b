//! The kernel's device events: how the tether waits for disks and vNICs without polling.

use super::netlink;
use crate::io::fd::AsyncFile;
use nix::sys::socket::SockProtocol;
use std::io;
use std::time::Duration;

/// How long a device may take to appear before the boot is given up.
const DEADLINE: Duration = Duration::from_secs(30);

/// Device events since it was opened.
#[derive(Debug)]
pub struct Uevents(AsyncFile);

impl Uevents {
    /// Listens to the kernel (NETLINK_KOBJECT_UEVENT, group 1).
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open() -> io::Result<Uevents> {
        Ok(Uevents(AsyncFile::new(netlink::open(
            SockProtocol::NetlinkKObjectUEvent,
            1,
            true,
        )?)?))
    }

    /// Tries `look` now and after each event until it finds something.
    ///
    /// # Errors
    /// Those of `look`; `TimedOut` after 30 s.
    pub async fn wait_for<T>(
        &mut self,
        mut look: impl FnMut() -> io::Result<Option<T>>,
    ) -> io::Result<T> {
        let search = async {
            let mut buf = [0u8; 4096];
            loop {
                if let Some(found) = look()? {
                    return Ok(found);
                }
                // ENOBUFS: events were lost, which is one more reason to look again.
                match self.0.read_chunk(&mut buf).await {
                    Ok(_) => {}
                    Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
                    Err(e) => return Err(e),
                }
                // One look for all that has come by now.
                while let Ok(Some(_)) = self.0.read_now(&mut buf) {}
            }
        };
        match tokio::time::timeout(DEADLINE, search).await {
            Ok(found) => found,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it did not appear within 30 s",
            )),
        }
    }
}
