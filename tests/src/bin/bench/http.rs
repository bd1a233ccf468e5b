//! A Docker client of no start-up time: HTTP/1.1 by hand over the unix socket, so that a figure holds what the host
//! does and nothing of the command line client.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a read waits before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(180);
/// A response's head is at most this long.
const HEAD_MAX: u64 = 64 << 10;

/// A client of one Docker host.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// A response whose head has been read.
#[derive(Debug)]
struct Response {
    status: u16,
    chunked: bool,
    length: Option<u64>,
    rest: BufReader<UnixStream>,
}

impl Client {
    /// A client of the Docker host behind this socket.
    pub fn new(socket: &Path) -> Self {
        Client {
            socket: socket.to_owned(),
        }
    }

    /// Makes a container; gives its ID.
    ///
    /// # Errors
    /// The host's words.
    pub fn create(&self, image: &str, command: &[&str]) -> Result<String> {
        let body = json!({ "Image": image, "Cmd": command });
        let answer = self.call("POST", "/containers/create", Some(&body))?;
        let answer: Value = serde_json::from_slice(&answer)?;
        Ok(answer["Id"].as_str().context("Id of the container")?.into())
    }

    /// Opens the container's attach stream (stdout and stderr).
    ///
    /// # Errors
    /// The host's words.
    pub fn attach(&self, id: &str) -> Result<Frames<BufReader<UnixStream>>> {
        let path = format!("/containers/{id}/attach?stream=1&stdout=1&stderr=1");
        let mut request = self.send("POST", &path, None, true)?;
        let response = read_head(&mut request)?.with(request);
        ensure!(
            response.status == 101,
            "attach answered {} and not 101",
            response.status
        );
        Ok(Frames::new(response.rest))
    }

    /// Follows the container's log (stdout and stderr) from its start.
    ///
    /// # Errors
    /// The host's words.
    pub fn logs(&self, id: &str) -> Result<Frames<Box<dyn Read>>> {
        let path = format!("/containers/{id}/logs?follow=1&stdout=1&stderr=1");
        let mut stream = self.send("GET", &path, None, false)?;
        let response = read_head(&mut stream)?.with(stream);
        ensure!(response.status == 200, "{path}: {}", response.failure());
        Ok(Frames::new(response.body()))
    }

    /// Sends the order to start, and does not wait for its answer: [`Answer::check`] does.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn start(&self, id: &str) -> Result<Answer> {
        let path = format!("/containers/{id}/start");
        Ok(Answer(self.send("POST", &path, None, false)?, path))
    }

    /// Sends a signal to the container's process.
    ///
    /// # Errors
    /// The host's words.
    pub fn signal(&self, id: &str, signal: &str) -> Result<()> {
        let path = format!("/containers/{id}/kill?signal={signal}");
        self.call("POST", &path, None).map(drop)
    }

    /// Waits for the container's end, and gives its exit code.
    ///
    /// # Errors
    /// The host's words.
    pub fn wait(&self, id: &str) -> Result<i64> {
        let answer = self.call("POST", &format!("/containers/{id}/wait"), None)?;
        let answer: Value = serde_json::from_slice(&answer)?;
        answer["StatusCode"].as_i64().context("StatusCode")
    }

    /// Removes the container, running or not.
    ///
    /// # Errors
    /// The host's words.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.call("DELETE", &format!("/containers/{id}?force=1"), None)
            .map(drop)
    }

    /// A call to its end, which must be a success.
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Vec<u8>> {
        Answer(
            self.send(method, path, body, false)?,
            format!("{method} {path}"),
        )
        .check()
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        upgrade: bool,
    ) -> Result<BufReader<UnixStream>> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("connect to {}", self.socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let connection = if upgrade {
            "Connection: Upgrade\r\nUpgrade: tcp"
        } else {
            "Connection: close"
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/json\r\n"
        };
        // One write, one packet: the clock starts with it.
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: docker\r\n{connection}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        Ok(BufReader::new(stream))
    }
}

/// An answer that has not been read yet.
#[derive(Debug)]
pub struct Answer(BufReader<UnixStream>, String);

impl Answer {
    /// Reads it: it must be a success.
    ///
    /// # Errors
    /// The host's words.
    pub fn check(mut self) -> Result<Vec<u8>> {
        let response = read_head(&mut self.0)?.with(self.0);
        if !(200..300).contains(&response.status) {
            bail!("{}: {}", self.1, response.failure());
        }
        let mut bytes = Vec::new();
        response.body().read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The first lines of a response.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    chunked: bool,
    length: Option<u64>,
}

impl Head {
    fn with(self, rest: BufReader<UnixStream>) -> Response {
        Response {
            status: self.status,
            chunked: self.chunked,
            length: self.length,
            rest,
        }
    }
}

fn read_head(stream: &mut impl BufRead) -> Result<Head> {
    let mut stream = stream.take(HEAD_MAX);
    let mut next = || -> Result<String> {
        let mut line = String::new();
        stream.read_line(&mut line).context("read the answer")?;
        ensure!(line.ends_with('\n'), "the answer ends inside its head");
        Ok(line.trim_end().to_owned())
    };
    let first = next()?;
    let status = first.split(' ').nth(1).and_then(|s| s.parse().ok());
    let mut head = Head {
        status: status.with_context(|| format!("no HTTP status in {first:?}"))?,
        chunked: false,
        length: None,
    };
    loop {
        let line = next()?.to_ascii_lowercase();
        if line.is_empty() {
            return Ok(head);
        }
        match line.split_once(':').map(|(k, v)| (k, v.trim())) {
            Some(("transfer-encoding", "chunked")) => head.chunked = true,
            Some(("content-length", n)) => head.length = n.parse().ok(),
            _ => {}
        }
    }
}

impl Response {
    fn body(self) -> Box<dyn Read> {
        match (self.chunked, self.length, self.status) {
            (true, ..) => Box::new(Chunked::new(self.rest)),
            (_, Some(n), _) => Box::new(self.rest.take(n)),
            (_, None, 204) => Box::new(std::io::empty()),
            _ => Box::new(self.rest),
        }
    }

    fn failure(self) -> String {
        let status = self.status;
        let mut text = String::new();
        // What came of it will do.
        let _ = self.body().take(HEAD_MAX).read_to_string(&mut text);
        format!("{status} {}", text.trim())
    }
}

/// A body in chunks (RFC 9112 section 7.1).
#[derive(Debug)]
struct Chunked<R> {
    inner: R,
    left: u64,
    begun: bool,
    ended: bool,
}

impl<R: BufRead> Chunked<R> {
    fn new(inner: R) -> Self {
        Chunked {
            inner,
            left: 0,
            begun: false,
            ended: false,
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.inner.by_ref().take(4096).read_line(&mut line)?;
        if line.ends_with('\n') {
            Ok(line.trim_end().to_owned())
        } else {
            Err(std::io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl<R: BufRead> Read for Chunked<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 && !self.ended {
            if self.begun {
                // The line's end after the data of the last chunk.
                self.line()?;
            }
            self.begun = true;
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default();
            self.left = u64::from_str_radix(digits, 16).map_err(|_| {
                std::io::Error::other(format!("{line:?} is not the size of a chunk"))
            })?;
            self.ended = self.left == 0;
        }
        if self.ended || out.is_empty() {
            return Ok(0);
        }
        let n = (&mut self.inner).take(self.left).read(out)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        // A read gives no more than there is room for, which is a usize.
        self.left -= n as u64;
        Ok(n)
    }
}

/// The payload of Docker's multiplexed stream: frames with a head of 8 bytes, its last four the payload's length.
#[derive(Debug)]
pub struct Frames<R> {
    inner: R,
    left: u32,
}

impl<R: Read> Frames<R> {
    fn new(inner: R) -> Self {
        Frames { inner, left: 0 }
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.left == 0 {
            let mut head = [0; 8];
            // An end between two frames is the stream's end.
            if self.inner.read(&mut head[..1])? == 0 {
                return Ok(0);
            }
            self.inner.read_exact(&mut head[1..])?;
            let [kind, _, _, _, a, b, c, d] = head;
            if kind > 2 {
                return Err(std::io::Error::other(format!(
                    "a frame of stream {kind}, which does not exist"
                )));
            }
            self.left = u32::from_be_bytes([a, b, c, d]);
        }
        let n = (&mut self.inner).take(self.left.into()).read(out)?;
        if n == 0 && !out.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        // No more than `left` was read.
        self.left -= u32::try_from(n).unwrap_or(self.left);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_and_frames_leave_only_the_payload() {
        let frames = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x02de";
        let mut body = format!("{:x}\r\n", 10).into_bytes();
        body.extend(&frames[..10]);
        body.extend(b"\r\n");
        body.extend(format!("{:x};x=y\r\n", frames.len() - 10).bytes());
        body.extend(&frames[10..]);
        body.extend(b"\r\n0\r\n\r\n");
        let mut text = String::new();
        Frames::new(Chunked::new(&body[..]))
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "abcde");
    }

    #[test]
    fn a_stream_that_breaks_off_is_no_end() {
        let mut out = Vec::new();
        assert!(Chunked::new(&b"5\r\nab"[..]).read_to_end(&mut out).is_err());
        assert!(
            Frames::new(&b"\x01\0\0\0\0\0\0\x03ab"[..])
                .read_to_end(&mut out)
                .is_err()
        );
        assert!(read_head(&mut &b"HTTP/1.1 200 OK\r\n"[..]).is_err());
    }

    #[test]
    fn a_head_says_how_the_body_comes() {
        let mut text = &b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\nrest"[..];
        let head = read_head(&mut text).unwrap();
        assert_eq!((head.status, head.chunked), (204, true));
        assert_eq!(text, b"rest");
    }
}
