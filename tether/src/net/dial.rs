//! Dialling the endpoint: over vsock, or over a serial port.

use crate::io::fd::AsyncFile;
use link::serial::{Pipe, Side, reliable};
use link::{GuestLink, LinkError, Options};
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, VsockAddr, connect, getsockopt, socket, sockopt,
};
use nix::sys::stat::Mode;
use nix::sys::termios::{ControlFlags, SetArg, cfmakeraw, tcgetattr, tcsetattr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use wire::config::Transport;
use wire::handshake::Credentials;

/// CID of the host (vsock(7)).
const HOST: u32 = 2;

/// The way to the endpoint.
#[derive(Debug)]
pub struct Dialer {
    transport: Transport,
    credentials: Credentials,
    /// The serial port, once opened.
    pipe: Option<Pipe>,
}

impl Dialer {
    /// A dialer with the credentials of this boot.
    #[must_use]
    pub fn new(transport: Transport, credentials: Credentials) -> Dialer {
        Dialer {
            transport,
            credentials,
            pipe: None,
        }
    }

    /// Dials once: connection and handshake.
    ///
    /// # Errors
    /// Why there is no link; the next try may succeed.
    pub async fn dial(&mut self) -> Result<GuestLink, LinkError> {
        let failed = |what: String| move |e: io::Error| LinkError::Io(format!("{what}: {e}"));
        match &self.transport {
            Transport::Vsock { port } => {
                let stream = vsock(*port).await.map_err(failed(format!(
                    "connecting to vsock port {port} of the host"
                )))?;
                link::dial(stream, &mut self.credentials, Options::default()).await
            }
            Transport::Serial { device } => {
                let stream = match &mut self.pipe {
                    Some(pipe) => pipe
                        .next()
                        .await
                        .map_err(failed(format!("dialling again over {device}")))?,
                    None => {
                        let tty =
                            serial(device).map_err(failed(format!("opening /dev/{device}")))?;
                        let (stream, pipe) = reliable(tty, Side::Dialer)
                            .map_err(failed(format!("starting the link over {device}")))?;
                        self.pipe = Some(pipe);
                        stream
                    }
                };
                link::dial(stream, &mut self.credentials, Options::default()).await
            }
        }
    }
}

async fn vsock(port: u32) -> io::Result<AsyncFile> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    let pending = match connect(fd.as_raw_fd(), &VsockAddr::new(HOST, port)) {
        Ok(()) => false,
        Err(nix::Error::EINPROGRESS) => true,
        Err(e) => return Err(e.into()),
    };
    let stream = AsyncFile::new(fd)?;
    if pending {
        stream.writable().await?;
        let error = getsockopt(&stream, sockopt::SocketError)?;
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
    }
    Ok(stream)
}

/// Opens a serial port raw: 115,200 baud, 8N1, RTS/CTS where the driver takes it, no modem control.
fn serial(device: &str) -> io::Result<AsyncFile> {
    if device.contains('/') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a device name without slashes is expected, like ttyS1",
        ));
    }
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let fd = open(format!("/dev/{device}").as_str(), flags, Mode::empty())?;
    let mut settings = tcgetattr(&fd)?;
    cfmakeraw(&mut settings);
    // By hand: libc's cfsetspeed names a symbol version that a static glibc does not have.
    settings
        .control_flags
        .remove(ControlFlags::from_bits_retain(libc::CBAUD));
    settings.control_flags |= ControlFlags::from_bits_retain(libc::B115200);
    settings.control_flags |= ControlFlags::CLOCAL | ControlFlags::CREAD | ControlFlags::CRTSCTS;
    tcsetattr(&fd, SetArg::TCSANOW, &settings)?;
    AsyncFile::new(fd)
}
