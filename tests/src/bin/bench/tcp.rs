//! `tcp-…`: TCP to a published port and between two containers, over bare VMs on taps of one bridge.

use crate::floors::{Floors, Killed, QEMU};
use crate::lab::{Lab, Setup};
use crate::measure::{Alternate, Row};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command, Stdio};
use tests::command::{self, DEADLINE};
use tests::docker::Docker;
use tests::namespace::Namespace;

/// Where the servers listen.
const PORT: u16 = 9000;
/// Bytes of one copy.
const BYTES: u64 = 64 << 20;
/// Bytes that go to and fro, one by one.
const PINGS: u32 = 1000;
/// The image with the program of the floors in it.
const IMAGE: &str = "mooring-bench/tcp";
/// Addresses of the floors: the namespace's, the server's, the client's.
const FLOOR: [&str; 3] = ["10.99.0.1", "10.99.0.2", "10.99.0.3"];

/// Who talks to a container, or to the floor's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A program on the machine, through a published port.
    Outside,
    /// Another container on the same network.
    Container,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Bytes a second to the server.
    Rate,
    /// Seconds of one byte to and fro.
    Latency,
}

impl What {
    /// The floors' program's task at this address.
    fn task(self, address: &str, port: u16) -> String {
        match self {
            What::Rate => format!("fill:{address}:{port}:{BYTES}"),
            What::Latency => format!("ping:{address}:{port}:{PINGS}"),
        }
    }

    /// The figure in what the program printed.
    fn figure(self, output: &str) -> Result<f64> {
        let seconds: f64 = output
            .split("floor: seconds ")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("no figure came, but: {output}"))?
            .parse()?;
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        Ok(match self {
            What::Rate => BYTES as f64 / seconds,
            What::Latency => seconds,
        })
    }
}

/// Measures it.
///
/// # Errors
/// What could not be measured.
pub fn tcp(lab: &mut Lab, from: From, what: What, order: &Alternate) -> Result<Row> {
    let docker = lab.host(Setup::link("vsock"))?.docker.clone();
    let floors = lab.floors()?;
    let ours = Ours::start(&docker, floors)?;
    let bare = Bare::start(floors)?;
    order.run(
        || ours.once(floors, from, what),
        || bare.once(floors, from, what),
    )
}

/// A container that serves.
struct Ours<'a>(&'a Docker);

impl<'a> Ours<'a> {
    const NAME: &'static str = "bench-tcp";

    fn start(docker: &'a Docker, floors: &Floors) -> Result<Self> {
        if docker.run(&["image", "inspect", IMAGE])?.code != 0 {
            let mut tar = Command::new("tar");
            let program = floors.program()?;
            tar.arg("-C").arg(program.parent().context("its folder")?);
            tar.args(["-c", "floor"]);
            let tar = command::run(tar, b"", DEADLINE)?.ok()?.stdout;
            docker.run_with_input(&["import", "-", IMAGE], &tar)?.ok()?;
        }
        docker.ok(&["network", "create", Self::NAME])?;
        let ours = Ours(docker);
        let task = format!("floor=serve:{PORT}");
        let publish = format!("127.0.0.1::{PORT}");
        docker.ok(&[
            "run",
            "-d",
            "--name",
            Self::NAME,
            "--network",
            Self::NAME,
            "-p",
            &publish,
            "-e",
            &task,
            IMAGE,
            "/floor",
        ])?;
        Ok(ours)
    }

    fn once(&self, floors: &Floors, from: From, what: What) -> Result<f64> {
        let output = match from {
            From::Outside => {
                let published = self.0.ok(&["port", Self::NAME, &PORT.to_string()])?;
                let port = published.rsplit(':').next().unwrap_or_default().parse()?;
                let mut client = Command::new(floors.program()?);
                client.env("floor", what.task("127.0.0.1", port));
                command::run(client, b"", DEADLINE)?.ok()?.text()
            }
            From::Container => {
                let format = format!(
                    "{{{{(index .NetworkSettings.Networks {:?}).IPAddress}}}}",
                    Self::NAME
                );
                let address = self.0.inspect(Self::NAME, &format)?;
                let task = format!("floor={}", what.task(&address, PORT));
                self.0.ok(&[
                    "run",
                    "--rm",
                    "--network",
                    Self::NAME,
                    "-e",
                    &task,
                    IMAGE,
                    "/floor",
                ])?
            }
        };
        what.figure(&output)
    }
}

impl Drop for Ours<'_> {
    fn drop(&mut self) {
        for args in [["rm", "-f", Self::NAME], ["network", "rm", Self::NAME]] {
            if let Err(e) = self.0.run(&args) {
                eprintln!("bench: {e:#}");
            }
        }
    }
}

/// A VM that serves, on a tap of a bridge in a namespace of its own.
struct Bare {
    // Dropped in this order.
    _server: Vm,
    namespace: Namespace,
}

impl Bare {
    fn start(floors: &mut Floors) -> Result<Self> {
        let namespace = Namespace::new("tcp")?;
        for line in [
            "link add br0 type bridge",
            &format!("addr add {}/24 dev br0", FLOOR[0]),
            "link set br0 up",
        ] {
            namespace.ip(&line.split(' ').collect::<Vec<_>>())?;
        }
        for tap in ["tap1", "tap2"] {
            namespace.ip(&["tuntap", "add", "dev", tap, "mode", "tap"])?;
            namespace.ip(&["link", "set", tap, "master", "br0", "up"])?;
        }
        floors.copy_guest()?;
        let task = format!("net:{}:serve:{PORT}", FLOOR[1]);
        let mut server = Vm::start(floors, &namespace, 1, &task)?;
        server.until("floor: ready")?;
        Ok(Bare {
            _server: server,
            namespace,
        })
    }

    fn once(&self, floors: &Floors, from: From, what: What) -> Result<f64> {
        let task = what.task(FLOOR[1], PORT);
        let output = match from {
            From::Outside => {
                let program = floors.program()?;
                let mut client = self.namespace.command(program.to_str().context("a path")?);
                client.env("floor", task);
                command::run(client, b"", DEADLINE)?.ok()?.text()
            }
            From::Container => {
                let task = format!("net:{}:{task}", FLOOR[2]);
                Vm::start(floors, &self.namespace, 2, &task)?.until("floor: seconds")?
            }
        };
        what.figure(&output)
    }
}

/// A VM of the floor on one of the taps.
struct Vm {
    _qemu: Killed,
    console: BufReader<ChildStdout>,
}

impl Vm {
    fn start(floors: &Floors, namespace: &Namespace, tap: u8, task: &str) -> Result<Self> {
        let guest = floors.copied()?;
        let mut qemu = floors.qemu(namespace.command(QEMU), guest, task);
        qemu.args(["-serial", "stdio", "-netdev"]);
        qemu.arg(format!(
            "tap,id=net0,ifname=tap{tap},script=no,downscript=no,vhost=off"
        ));
        qemu.arg("-device").arg(format!(
            "vmxnet3,netdev=net0,romfile=,mac=00:50:56:00:00:0{tap}"
        ));
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut qemu = Killed(qemu.spawn().context("start qemu-system-x86_64")?);
        let console = BufReader::new(qemu.0.stdout.take().context("QEMU's output")?);
        Ok(Vm {
            _qemu: qemu,
            console,
        })
    }

    /// The console's text up to the line with these words.
    fn until(&mut self, words: &str) -> Result<String> {
        let mut text = String::new();
        while !text.contains(words) || !text.ends_with('\n') {
            let mut line = Vec::new();
            if self.console.read_until(b'\n', &mut line)? == 0 {
                bail!("the floor's VM ended without \"{words}\"; console:\n{text}");
            }
            text.push_str(&String::from_utf8_lossy(&line));
        }
        Ok(text)
    }
}
