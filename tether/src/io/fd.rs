//! A descriptor (pipe, PTY, serial port, socket) as tokio's AsyncRead and AsyncWrite.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A non-blocking descriptor on the tether's event loop.
#[derive(Debug)]
pub struct AsyncFile {
    fd: AsyncFd<OwnedFd>,
}

impl AsyncFile {
    /// Takes a descriptor, makes it non-blocking and registers it.
    ///
    /// # Errors
    /// Those of fcntl(2) and epoll_ctl(2).
    pub fn new(fd: OwnedFd) -> io::Result<AsyncFile> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(AsyncFile {
            fd: crate::sys::fs::register(fd)?,
        })
    }

    /// Reads what is there, waiting until something is. 0 at the end. A PTY whose other side is
    /// closed is at its end. Cancel-safe.
    ///
    /// # Errors
    /// Those of read(2).
    pub async fn read_chunk(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.when_readable(|fd| read(fd, buf)).await
    }

    /// Tries something that reads, when there is something to read, until it would not block. Cancel-safe.
    ///
    /// # Errors
    /// Those of what is tried.
    pub async fn when_readable<T>(
        &self,
        mut attempt: impl FnMut(&OwnedFd) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let mut guard = self.fd.readable().await?;
            if let Ok(result) = guard.try_io(|fd| attempt(fd.get_ref())) {
                return result;
            }
        }
    }

    /// The descriptor.
    #[must_use]
    pub fn get(&self) -> &OwnedFd {
        self.fd.get_ref()
    }

    /// Reads what is there without waiting; `None` if nothing is.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn read_now(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match read(self.fd.get_ref(), buf) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other.map(Some),
        }
    }

    /// Writes all, waiting for room.
    ///
    /// # Errors
    /// Those of write(2).
    pub async fn write_whole(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut guard = self.fd.writable().await?;
            if let Ok(result) =
                guard.try_io(|fd| nix::unistd::write(fd.get_ref(), bytes).map_err(io::Error::from))
            {
                bytes = &bytes[result?..];
            }
        }
        Ok(())
    }

    /// Waits until the descriptor is writable (a socket: until its connect is over).
    ///
    /// # Errors
    /// Those of the event loop.
    pub async fn writable(&self) -> io::Result<()> {
        let mut guard = self.fd.writable().await?;
        guard.retain_ready();
        Ok(())
    }
}

impl AsFd for AsyncFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

fn read(fd: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        return match nix::unistd::read(fd, buf) {
            Err(nix::Error::EINTR) => continue,
            // A PTY's master once no slave is open.
            Err(nix::Error::EIO) => Ok(0),
            other => other.map_err(io::Error::from),
        };
    }
}

impl AsyncRead for AsyncFile {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match guard.try_io(|fd| read(fd.get_ref(), buf.initialize_unfilled())) {
                Ok(result) => {
                    buf.advance(result?);
                    return Poll::Ready(Ok(()));
                }
                Err(_) => continue,
            }
        }
    }
}

impl AsyncWrite for AsyncFile {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            match guard
                .try_io(|fd| nix::unistd::write(fd.get_ref(), bytes).map_err(io::Error::from))
            {
                Ok(result) => return Poll::Ready(result),
                Err(_) => continue,
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
