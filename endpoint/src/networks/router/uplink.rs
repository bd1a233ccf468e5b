//! Ports of the world outside, where that is not an interface of ours but a program that stands for it: slirp4netns
//! beside hostsim. Its socket takes one JSON request a connection (slirp4netns(1), "API SOCKET").

use super::Protocol;
use serde_json::{Value, json};
use std::{
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// The longest answer that is read, in bytes: a list of ports.
const ANSWER_MAX: u64 = 4 << 20;
/// It answers at once, or hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A port of the host that leads to one of the endpoint's public address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// Of what.
    pub protocol: Protocol,
    /// Address of the host that it listens at.
    pub host: Ipv4Addr,
    /// Port there.
    pub host_port: u16,
    /// Port of the endpoint's public address.
    pub public_port: u16,
}

/// The program's socket.
#[derive(Debug, Clone)]
pub struct Uplink {
    socket: PathBuf,
}

impl Uplink {
    /// Of a socket; nothing is asked yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    async fn ask(&self, request: Value) -> io::Result<Value> {
        let exchange = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(request.to_string().as_bytes()).await?;
            stream.shutdown().await?;
            let mut answer = Vec::new();
            stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let answer = tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            .map_err(|e| {
                io::Error::new(
                    e.kind(),
                    format!(
                        "the uplink at {} does not answer: {e}; `vch up` starts it again",
                        self.socket.display()
                    ),
                )
            })?;
        let answer: Value = serde_json::from_slice(&answer)
            .map_err(|e| io::Error::other(format!("the uplink's answer is no JSON: {e}")))?;
        match answer.pointer("/error/desc").and_then(Value::as_str) {
            Some(error) => Err(io::Error::new(io::ErrorKind::AddrInUse, error.to_owned())),
            // Some answers are wrapped, a list is not.
            None => Ok(answer.get("return").unwrap_or(&answer).clone()),
        }
    }

    /// Opens a port.
    ///
    /// # Errors
    /// `AddrInUse` where the host has something there.
    pub async fn add(&self, forward: Forward) -> io::Result<()> {
        self.ask(json!({ "execute": "add_hostfwd", "arguments": {
            "proto": forward.protocol.word(),
            "host_addr": forward.host.to_string(),
            "host_port": forward.host_port,
            "guest_port": forward.public_port,
        }}))
        .await
        .map(drop)
    }

    /// The ports that are open, with the number that [`Uplink::remove`] wants.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn list(&self) -> io::Result<Vec<(u64, Forward)>> {
        let answer = self.ask(json!({ "execute": "list_hostfwd" })).await?;
        let entries = answer["entries"].as_array().cloned().unwrap_or_default();
        Ok(entries
            .iter()
            .filter_map(|entry| {
                let port = |name: &str| u16::try_from(entry[name].as_u64()?).ok();
                Some((
                    entry["id"].as_u64()?,
                    Forward {
                        protocol: match entry["proto"].as_str()? {
                            "tcp" => Protocol::Tcp,
                            "udp" => Protocol::Udp,
                            _ => return None,
                        },
                        host: entry["host_addr"].as_str()?.parse().ok()?,
                        host_port: port("host_port")?,
                        public_port: port("guest_port")?,
                    },
                ))
            })
            .collect())
    }

    /// Closes a port.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn remove(&self, id: u64) -> io::Result<()> {
        self.ask(json!({ "execute": "remove_hostfwd", "arguments": { "id": id } }))
            .await
            .map(drop)
    }
}
