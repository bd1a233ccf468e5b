//! The vsock listener, as the host announces it: a unix socket for each port, or AF_VSOCK.

use crate::containers::{Containers, running::Links};
use std::{io, os::unix::fs::FileTypeExt, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixListener, UnixStream},
};

/// Why there is no vsock listener.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The host announces something that is not known.
    #[error(
        "the host announces mooring.link.vsock = {0:?}, which this endpoint does not know; use --link serial"
    )]
    Unknown(String),
    /// The socket could not be made.
    #[error("cannot listen for the VMs' links at {place}: {source}")]
    Bind {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
}

/// The port of a VCH: above the privileged ones, from its ID, so that it stays the same and
/// several VCHs on one host do not meet.
pub fn port_of(vch: &str) -> u32 {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(vch.as_bytes());
    let low = u32::from_le_bytes([hash[0], hash[1], hash[2], 0]);
    0x0100_0000 | low
}

/// The listener.
#[derive(Debug)]
pub enum Listener {
    /// The unix socket of the port.
    Unix(UnixListener),
    /// The kernel's.
    Kernel(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>),
}

impl Listener {
    /// Listens where the host's announcement says.
    ///
    /// # Errors
    /// Where it says nothing known, or the place is taken.
    pub async fn bind(announced: &str, port: u32) -> Result<Self, VsockError> {
        if let Some(folder) = announced.strip_prefix("uds:") {
            // The host may not have had a reason to make it yet.
            let _bind_says_why = std::fs::create_dir_all(folder);
            let path = PathBuf::from(folder).join(format!("port-{port}"));
            let place = path.display().to_string();
            let failed = |source| VsockError::Bind {
                place: place.clone(),
                source,
            };
            if std::fs::symlink_metadata(&path).is_ok_and(|m| m.file_type().is_socket()) {
                if UnixStream::connect(&path).await.is_ok() {
                    return Err(failed(io::ErrorKind::AddrInUse.into()));
                }
                std::fs::remove_file(&path).map_err(failed)?;
            }
            return UnixListener::bind(&path).map(Self::Unix).map_err(failed);
        }
        if announced == "kernel" {
            return kernel(port)
                .map(Self::Kernel)
                .map_err(|source| VsockError::Bind {
                    place: format!("vsock port {port}"),
                    source,
                });
        }
        Err(VsockError::Unknown(announced.to_owned()))
    }

    /// Accepts links for ever.
    pub async fn serve(self, containers: Arc<Containers>) {
        loop {
            let accepted = match &self {
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(accept(stream, containers.clone(), None));
                }),
                Self::Kernel(listener) => accept_kernel(listener).await.map(|stream| {
                    tokio::spawn(accept(stream, containers.clone(), None));
                }),
            };
            if let Err(error) = accepted {
                // Out of descriptors: they come back when connections end.
                tracing::warn!(%error, "cannot accept a link");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The handshake over a connected stream, then the session.
pub(super) async fn accept<T>(stream: T, containers: Arc<Containers>, wanted: Option<[u8; 32]>)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let keys = Links(containers.clone());
    match link::accept(stream, &keys, wanted, link::Options::default()).await {
        Ok((identity, link)) => containers.serve_link(identity, link).await,
        Err(error) => tracing::info!(%error, "a link was refused"),
    }
}

fn kernel(port: u32) -> io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, VsockAddr};
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    let address = VsockAddr::new(libc::VMADDR_CID_ANY, port);
    socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address)?;
    socket::listen(&socket, Backlog::new(128)?)?;
    crate::sys::watch(socket)
}

/// A connected AF_VSOCK socket is a stream socket like any other: tokio's unix stream reads and
/// writes it, since it only uses the descriptor.
async fn accept_kernel(
    listener: &tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
) -> io::Result<UnixStream> {
    use nix::sys::socket::{SockFlag, accept4};
    use std::os::fd::AsRawFd;
    loop {
        let mut ready = listener.readable().await?;
        let accepted = ready.try_io(|fd| {
            accept4(
                fd.as_raw_fd(),
                SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            )
            .map_err(io::Error::from)
        });
        if let Ok(result) = accepted {
            return crate::sys::adopt(result?);
        }
    }
}
