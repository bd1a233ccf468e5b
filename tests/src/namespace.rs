//! A network namespace of a test's or benchmark's own, so that nothing of it touches the machine's network.

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
