//! A TCP relay on loopback in front of a server, which can cut connections off or hold them up.

use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

#[derive(Debug, Default)]
struct Plan {
    /// Counts the calls that bytes are counted from.
    epoch: u64,
    /// Connections that are cut once so many bytes went this way, one after the other.
    cuts: Vec<(Way, u64)>,
    /// What comes down is held after so many bytes of a connection, where its last request holds this text.
    hold: Option<(u64, String)>,
    /// Connections that are held now.
    held: usize,
    /// Lines of requests, and headers with ranges, as they went up.
    lines: Vec<String>,
    /// Bytes that went down.
    down: u64,
}

#[derive(Debug, Default)]
struct Shared {
    plan: Mutex<Plan>,
    changed: Condvar,
}

/// A running relay; it ends with the test's process.
#[derive(Debug)]
pub struct Relay {
    /// `127.0.0.1:PORT`.
    pub address: String,
    shared: Arc<Shared>,
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    /// Starts one in front of a server (`host:port`).
    ///
    /// # Errors
    /// Where it cannot listen.
    pub fn start(server: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared::default());
        let (all, server) = (shared.clone(), server.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (shared, server) = (all.clone(), server.clone());
                std::thread::spawn(move || relay(&client, &server, &shared));
            }
        });
        Ok(Relay { address, shared })
    }

    /// Cuts the next connection over which so many bytes go this way from now on; after that the one after it, for each
    /// call.
    pub fn cut(&self, way: Way, bytes: u64) {
        let mut plan = self.shared.plan();
        plan.epoch += 1;
        plan.cuts.push((way, bytes));
    }

    /// How many cuts are still to come.
    pub fn cuts_left(&self) -> usize {
        self.shared.plan().cuts.len()
    }

    /// Holds what comes down over each connection whose request's line holds `part`, after so many bytes from now on.
    pub fn hold(&self, bytes: u64, part: &str) {
        let mut plan = self.shared.plan();
        plan.epoch += 1;
        plan.hold = Some((bytes, part.to_owned()));
    }

    /// Waits until so many connections are held.
    pub fn wait_held(&self, count: usize) {
        let mut plan = self.shared.plan();
        while plan.held < count {
            plan = self
                .shared
                .changed
                .wait(plan)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets all go on.
    pub fn release(&self) {
        self.shared.plan().hold = None;
        self.shared.changed.notify_all();
    }

    /// Lines of requests that went up, and headers with ranges, since the last call.
    pub fn lines(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.plan().lines)
    }

    /// Bytes that went down since the last call.
    pub fn came_down(&self) -> u64 {
        std::mem::take(&mut self.shared.plan().down)
    }
}

fn relay(client: &TcpStream, server: &str, shared: &Arc<Shared>) {
    let Ok(server) = TcpStream::connect(server) else {
        return;
    };
    let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let up = shared.clone();
    let asked = Arc::new(Mutex::new(String::new()));
    let asks = asked.clone();
    let upward = std::thread::spawn(move || pass(from, to, Way::Up, &up, &asks));
    let (Ok(from), Ok(to)) = (server.try_clone(), client.try_clone()) else {
        return;
    };
    pass(from, to, Way::Down, shared, &asked);
    let _ = upward.join();
}

fn pass(mut from: TcpStream, mut to: TcpStream, way: Way, shared: &Shared, asked: &Mutex<String>) {
    let (mut bytes, mut epoch) = (0, 0);
    let mut buffer = vec![0; 64 << 10];
    let mut line = Vec::new();
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let piece = &buffer[..count];
        if way == Way::Up {
            note(piece, &mut line, shared, asked);
        }
        {
            let mut plan = shared.plan();
            if epoch != plan.epoch {
                (epoch, bytes) = (plan.epoch, 0);
            }
            bytes += count as u64;
            let cut = plan
                .cuts
                .first()
                .is_some_and(|(w, most)| *w == way && bytes > *most);
            if cut {
                plan.cuts.remove(0);
                break;
            }
            let last = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let holds = |plan: &Plan| {
                way == Way::Down
                    && plan
                        .hold
                        .as_ref()
                        .is_some_and(|(most, part)| bytes > *most && last.contains(part))
            };
            if holds(&plan) {
                plan.held += 1;
                shared.changed.notify_all();
                while holds(&plan) {
                    plan = shared
                        .changed
                        .wait(plan)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                plan.held -= 1;
            }
        }
        if to.write_all(piece).is_err() {
            break;
        }
        if way == Way::Down {
            shared.plan().down += count as u64;
        }
    }
    // Both ends learn of it; they may have gone before.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn is_range(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.starts_with("range:") || line.starts_with("content-range:")
}

/// Picks lines of requests and `Range` out of what goes up.
fn note(piece: &[u8], line: &mut Vec<u8>, shared: &Shared, asked: &Mutex<String>) {
    for byte in piece {
        if *byte != b'\n' {
            if line.len() < 1000 {
                line.push(*byte);
            }
            continue;
        }
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        line.clear();
        if text.ends_with(" HTTP/1.1") {
            asked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone_from(&text);
        }
        if text.ends_with(" HTTP/1.1") || is_range(&text) {
            shared.plan().lines.push(text);
        }
    }
}
