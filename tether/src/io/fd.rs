//! A descriptor (pipe, PTY, serial port, socket) as tokio's AsyncRead and AsyncWrite.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a terminal that no process has open is left alone, at first and at most. It is looked
/// at by time, since there is no event: the kernel tells nothing when one opens it, and the event
/// loop takes a hang-up for the end.
const HUNG_UP: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];

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

    /// Reads what a process wrote, as [`AsyncFile::read_chunk`] does; but a terminal that no process
    /// has open is not at its end: one may open it again. It is waited for, without end. Cancel-safe.
    ///
    /// # Errors
    /// Those of read(2).
    pub async fn read_output(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut pause = HUNG_UP[0];
        loop {
            let mut guard = self.fd.readable().await?;
            let closed = guard.ready().is_read_closed();
            match guard.try_io(|fd| read_raw(fd.get_ref(), buf)) {
                Ok(Err(e)) if is_hung_up(&e) && self.is_terminal() => {}
                Ok(result) => return result,
                // Opened again before this was read: the event loop would not wait any more.
                Err(_) if closed => {}
                Err(_) => continue,
            }
            tokio::time::sleep(pause).await;
            pause = HUNG_UP[1].min(2 * pause);
            // Readiness begins anew with a new registration. Where none is to be had, this one does, by time.
            let _ = self.register_again();
        }
    }

    fn register_again(&mut self) -> io::Result<()> {
        self.fd = crate::sys::fs::register(self.fd.get_ref().try_clone()?)?;
        Ok(())
    }

    /// Whether it is a PTY's master.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        crate::sys::tty::pty_number(self.as_fd()).is_ok()
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

    /// Writes all, waiting for room. A terminal that no process has open takes some; the rest waits for whoever opens it.
    ///
    /// # Errors
    /// Those of write(2).
    pub async fn write_whole(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut guard = self.fd.writable().await?;
            // As in `read_output`: the event loop would not wait any more. But this one is shared, and stays as it is.
            let closed = guard.ready().is_write_closed();
            match guard
                .try_io(|fd| nix::unistd::write(fd.get_ref(), bytes).map_err(io::Error::from))
            {
                Ok(result) => bytes = &bytes[result?..],
                Err(_) if closed => tokio::time::sleep(HUNG_UP[0]).await,
                Err(_) => {}
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
    match read_raw(fd, buf) {
        Err(e) if is_hung_up(&e) => Ok(0),
        other => other,
    }
}

fn read_raw(fd: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        return match nix::unistd::read(fd, buf) {
            Err(nix::Error::EINTR) => continue,
            other => other.map_err(io::Error::from),
        };
    }
}

/// What a PTY's master says while no slave is open.
fn is_hung_up(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::tty::pty_peer;
    use nix::sys::termios;
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::sync::mpsc;
    use std::thread;

    /// Runs an event loop beside, so that one that is stuck fails the test.
    pub(in crate::io) fn beside<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
        let (tell, told) = mpsc::channel();
        let run = thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, test());
            tell.send(()).unwrap();
        });
        if told.recv_timeout(Duration::from_secs(180)) == Err(mpsc::RecvTimeoutError::Timeout) {
            panic!("the event loop is stuck");
        }
        run.join().unwrap();
    }

    /// The master of a new terminal.
    pub(in crate::io) fn terminal() -> OwnedFd {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open("/dev/ptmx")
            .unwrap()
            .into()
    }

    /// A terminal that passes bytes on as they are, and that no process has open.
    fn closed_terminal() -> OwnedFd {
        let master = terminal();
        let slave = pty_peer(master.as_fd()).unwrap();
        let mut settings = termios::tcgetattr(&slave).unwrap();
        termios::cfmakeraw(&mut settings);
        termios::tcsetattr(&slave, termios::SetArg::TCSANOW, &settings).unwrap();
        master
    }

    #[test]
    fn what_is_typed_into_a_closed_terminal_waits_for_whoever_opens_it() {
        beside(async || {
            let master = closed_terminal();
            let file = AsyncFile::new(master.try_clone().unwrap()).unwrap();
            file.writable().await.unwrap();
            let mut typing = std::pin::pin!(file.write_whole(&[b'k'; 100_000]));
            let once = tokio::time::timeout(Duration::ZERO, &mut typing);
            assert!(once.await.is_err());
            let slave = pty_peer(master.as_fd()).unwrap();
            let reader = thread::spawn(move || {
                let mut read = vec![0; 100_000];
                std::fs::File::from(slave).read_exact(&mut read).unwrap();
                assert!(read.iter().all(|byte| *byte == b'k'));
            });
            typing.await.unwrap();
            reader.join().unwrap();
        });
    }

    #[test]
    fn a_terminal_that_was_opened_again_is_waited_for_by_its_events() {
        beside(async || {
            let master = closed_terminal();
            let mut file = AsyncFile::new(master.try_clone().unwrap()).unwrap();
            // The event loop has learnt of the hang-up; then it is open, before anything was read.
            file.writable().await.unwrap();
            let slave = pty_peer(master.as_fd()).unwrap();
            let mut buf = [0; 64];
            let nothing = tokio::time::timeout(10 * HUNG_UP[0], file.read_output(&mut buf));
            assert!(nothing.await.is_err());
            let guard = tokio::time::timeout(Duration::ZERO, file.fd.readable()).await;
            assert!(guard.is_err(), "it is taken for closed");
            std::fs::File::from(slave).write_all(b"again").unwrap();
            let got = file.read_output(&mut buf).await.unwrap();
            assert_eq!(&buf[..got], b"again");
        });
    }
}
