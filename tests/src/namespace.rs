//! Network namespaces of a test's or benchmark's own, so that peers touch nothing of the machine's network.

use crate::command::{self, DEADLINE};
use anyhow::Result;
use std::process::Command;

/// A network namespace with a loopback interface; gone when this goes out of scope.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    /// Makes one, named after what it is for and this process.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(what: &str) -> Result<Self> {
        let namespace = Namespace(format!("mooring-{what}-{}", std::process::id()));
        ip(&["netns", "add", namespace.name()])?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
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
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut c = Command::new("nsenter");
        c.arg(format!("--net=/var/run/netns/{}", self.0))
            .arg(program);
        c
    }

    /// `ip` in it.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        ip(&[&["-n", self.name()], args].concat())
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
