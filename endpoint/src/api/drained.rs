//! Sockets that tell when their peer has read what was written.

use std::io;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A socket whose peer can be waited for.
pub trait Drained {
    /// Ready once what was written comes to the peer in another read than what is written next.
    ///
    /// # Errors
    /// Where the socket is broken.
    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Drained for UnixStream {
    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            // A unix socket becomes writable anew with each read of its peer, however much room it had.
            let read = self.try_io(Interest::WRITABLE, || match crate::sys::unread(self)? {
                0 => Ok(()),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

/// TLS gives its reader one record at a time, and each write that is flushed is one.
impl Drained for TlsStream<TcpStream> {
    fn poll_drained(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
impl Drained for tokio::io::DuplexStream {
    fn poll_drained(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
