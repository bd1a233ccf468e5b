//! Network namespaces of the tests' own, so that peers touch nothing of the machine's network.

use crate::command::{self, DEADLINE};
use anyhow::Result;
use std::process::Command;

/// A network namespace with a loopback interface; gone when this goes out of scope.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    /// A new one, `mooring-<what>-<pid>`.
    ///
    /// # Errors
    /// Where it cannot be made: that takes root.
    pub fn new(what: &str) -> Result<Self> {
        let name = format!("mooring-{what}-{}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Namespace(name);
        ip(&["-n", &namespace.0, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// A cable to the machine, which goes with the namespace; the address of the end in here.
    ///
    /// # Errors
    /// Those of `ip`.
    pub fn cable(&self) -> Result<String> {
        // Of the range for tests between networks (RFC 2544), a net of four for each process.
        let pid = std::process::id();
        let net = format!("198.18.{}", pid / 64 % 256);
        let first = pid % 64 * 4;
        let (outside, inside) = (
            format!("{net}.{}", first + 1),
            format!("{net}.{}", first + 2),
        );
        let end = format!("veth{pid}");
        let name = self.0.as_str();
        ip(&[
            "link", "add", &end, "type", "veth", "peer", "name", "eth0", "netns", name,
        ])?;
        ip(&["addr", "add", &format!("{outside}/30"), "dev", &end])?;
        ip(&["link", "set", &end, "up"])?;
        let address = format!("{inside}/30");
        ip(&["-n", name, "addr", "add", &address, "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        Ok(inside)
    }

    /// A command in it. nsenter and not `ip netns exec`: that mounts a /sys of its own, without control groups.
    pub fn command(&self, program: &str) -> Command {
        let mut c = Command::new("nsenter");
        c.arg(format!("--net=/var/run/netns/{}", self.0))
            .arg(program);
        c
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(e) = ip(&["netns", "del", &self.0]) {
            eprintln!("{e:#}");
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let mut c = Command::new("ip");
    c.args(args);
    command::run(c, b"", DEADLINE)?.ok().map(drop)
}
