//! Clients of a registry: a thread and a connection each, as little work as possible between the socket and the clock.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Where, and as whom.
#[derive(Debug, Clone)]
pub struct Server {
    /// `host:port`
    pub address: String,
    /// An `Authorization` header with its line's end, or nothing.
    pub authorization: String,
}

/// One connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
    server: Server,
    waste: Vec<u8>,
}

impl Connection {
    /// Opens one.
    pub fn open(server: &Server) -> Result<Self> {
        let stream = TcpStream::connect(&server.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(300)))?;
        Ok(Connection {
            stream: BufReader::with_capacity(64 << 10, stream),
            server: server.clone(),
            waste: vec![0; 256 << 10],
        })
    }

    /// Sends a request without waiting for its answer.
    pub fn send(&mut self, method: &str, path: &str, more: &str, body: &[&[u8]]) -> Result<()> {
        let length: usize = body.iter().map(|b| b.len()).sum();
        let length = if method == "GET" {
            String::new()
        } else {
            format!("content-length: {length}\r\n")
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{}{length}{more}\r\n",
            self.server.address, self.server.authorization
        );
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        for part in body {
            stream.write_all(part)?;
        }
        Ok(())
    }

    /// The answer's head: its status must be this one; `Location` and length of the body.
    pub fn head(&mut self, status: &str) -> Result<(String, usize)> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        ensure!(
            line.split(' ').nth(1) == Some(status),
            "the answer is {line:?}, not {status}"
        );
        let (mut location, mut length) = (String::new(), 0);
        loop {
            line.clear();
            ensure!(
                self.stream.read_line(&mut line)? > 0,
                "the head was cut off"
            );
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                return Ok((location, length));
            };
            if name.eq_ignore_ascii_case("location") {
                value.clone_into(&mut location);
            } else if name.eq_ignore_ascii_case("content-length") {
                length = value.parse()?;
            }
        }
    }

    /// A whole exchange; `Location`.
    pub fn exchange(
        &mut self,
        method: &str,
        path: &str,
        more: &str,
        body: &[&[u8]],
        status: &str,
    ) -> Result<String> {
        self.send(method, path, more, body)
            .with_context(|| format!("{method} {path}"))?;
        let (location, mut left) = self
            .head(status)
            .with_context(|| format!("{method} {path}"))?;
        while left > 0 {
            let most = left.min(self.waste.len());
            let n = self.stream.read(&mut self.waste[..most])?;
            if n == 0 {
                bail!("the body was cut off");
            }
            left -= n;
        }
        Ok(location)
    }

    /// Pushes a blob as Docker's clients do, but for the size of its parts: `POST`, then `PUT` with all of it.
    pub fn push(&mut self, name: &str, blob: &Blob<'_>) -> Result<()> {
        let post = format!("/v2/{name}/blobs/uploads/");
        let location = self.exchange("POST", &post, "", &[], "202")?;
        let path = location
            .strip_prefix("http://")
            .and_then(|l| l.find('/').map(|at| &l[at..]))
            .unwrap_or(&location);
        let joint = if path.contains('?') { '&' } else { '?' };
        let put = format!("{path}{joint}digest={}", blob.digest);
        let kind = "content-type: application/octet-stream\r\n";
        self.exchange("PUT", &put, kind, &[&blob.head, blob.tail], "201")?;
        Ok(())
    }
}

/// Bytes that differ from all other blobs' in their first 8.
pub struct Blob<'a> {
    head: [u8; 8],
    tail: &'a [u8],
    /// `sha256:…`
    pub digest: String,
}

impl<'a> Blob<'a> {
    /// Blob number `n`, of these bytes and 8 more.
    pub fn new(n: u64, tail: &'a [u8]) -> Self {
        use sha2::Digest;
        let head = n.to_le_bytes();
        let mut hash = sha2::Sha256::new();
        hash.update(head);
        hash.update(tail);
        Blob {
            head,
            tail,
            digest: format!("sha256:{}", hex::encode(hash.finalize())),
        }
    }
}

/// What many requests took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// Requests a second.
    pub per_second: f64,
    /// Seconds, median.
    pub p50: f64,
    /// Seconds.
    pub p99: f64,
}

/// Runs `count` requests from so many clients at once.
pub fn run(
    server: &Server,
    clients: usize,
    count: usize,
    work: impl Fn(&mut Connection, usize) -> Result<()> + Sync,
) -> Result<Took> {
    let next = AtomicUsize::new(0);
    let opened: Vec<Connection> = (0..clients)
        .map(|_| Connection::open(server))
        .collect::<Result<_>>()?;
    let begin = Instant::now();
    let one = |mut connection: Connection| -> Result<Vec<f64>> {
        let mut times = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return Ok(times);
            }
            let at = Instant::now();
            work(&mut connection, n)?;
            times.push(at.elapsed().as_secs_f64());
        }
    };
    let mut times: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = opened.into_iter().map(|c| scope.spawn(|| one(c))).collect();
        let mut all = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(times) => all.extend::<Vec<f64>>(times?),
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(all)
    })?;
    let whole = begin.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    Ok(Took {
        per_second: times.len() as f64 / whole,
        p50: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
    })
}
