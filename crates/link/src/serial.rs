//! A reliable stream over a serial pipe that loses, corrupts and interrupts.

use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A reliable, ordered byte stream over a lossy pipe, to be given to `dial` or `accept`.
/// It ends (reads give end of file, writes an error) when the peer started a new one, when the
/// peer closed it, or when its [`Pipe`] and no pipe is left.
#[derive(Debug)]
pub struct SerialStream {
    _p: (),
}

/// The place of the pipe under a [`SerialStream`].
#[derive(Debug)]
pub struct Pipe {
    _p: (),
}

/// Which side of the serial port this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The tether: opens each connection.
    Dialer,
    /// The endpoint: answers.
    Listener,
}

/// Makes a reliable stream over `io` (a tty, or the payload of a vSPC connection). Spawns a task
/// that lives as long as the stream.
///
/// A listener's stream is one connection of the peer: it is usable from the peer's opening on
/// (reads wait until then). When the peer opens another one (the tether was restarted, or gave the
/// session up), this stream ends, and [`Pipe::next`] gives the next.
pub fn reliable<T>(io: T, side: Side) -> (SerialStream, Pipe)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let _ = (io, side);
    unimplemented!()
}

impl Pipe {
    /// Puts another pipe under the stream (the serial port's proxy connection came back). The
    /// session goes on behind the last acknowledged frame.
    pub fn replace<T>(&self, io: T)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let _ = io;
        unimplemented!()
    }

    /// Waits until the present pipe is gone (end of file or error). Cancel-safe.
    pub async fn lost(&self) {
        unimplemented!()
    }

    /// The next connection over the same pipe. Dialer: opens one, at once. Listener: waits until
    /// the peer opens one. The former stream ends. Cancel-safe.
    pub async fn next(&mut self) -> std::io::Result<SerialStream> {
        unimplemented!()
    }
}

impl AsyncRead for SerialStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        unimplemented!()
    }
}

impl AsyncWrite for SerialStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        unimplemented!()
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        unimplemented!()
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        unimplemented!()
    }
}
