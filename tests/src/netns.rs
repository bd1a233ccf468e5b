//! A station of its own on a port group of a host: a network namespace, with an interface on the group's bridge.

use crate::command::{self, DEADLINE, Outcome};
use crate::vch::Vch;
use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The namespace; gone with what runs in it when this goes out of scope.
#[derive(Debug)]
pub struct Station {
    name: String,
    children: Vec<Child>,
}

impl Station {
    /// A station on the bridge of a VLAN of a host's switch, with addresses (`10.0.0.1/24`), the first one its own.
    ///
    /// # Errors
    /// Those of `ip`.
    pub fn new(vch: &Vch, vlan: u16, addresses: &[&str]) -> Result<Station> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let switch = vch.switch()?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mooring-test-{}-{number}", std::process::id());
        ip(&["netns", "add", &name])?;
        let station = Station {
            name,
            children: Vec::new(),
        };
        let port = format!("st{vlan}-{number}");
        let name = station.name.as_str();
        ip(&[
            "link", "add", "wire", "netns", name, "type", "veth", "peer", "name", &port, "netns",
            &switch,
        ])?;
        let bridge = format!("vlan{vlan}");
        ip(&["-n", &switch, "link", "set", &port, "master", &bridge, "up"])?;
        for link in ["lo", "wire"] {
            ip(&["-n", name, "link", "set", link, "up"])?;
        }
        for address in addresses {
            let mut args = vec!["-n", name, "address", "add", address, "dev", "wire"];
            if address.contains(':') {
                // Or it could not be used for a second.
                args.push("nodad");
            }
            ip(&args)?;
        }
        Ok(station)
    }

    /// Runs a program in it.
    ///
    /// # Errors
    /// Where it cannot be run, or does not end.
    pub fn run(&self, args: &[&str]) -> Result<Outcome> {
        command::run(self.command(args), b"", DEADLINE)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(args);
        command
    }

    /// Starts a program in it, which ends with the station.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn spawn(&mut self, args: &[&str]) -> Result<()> {
        let mut command = self.command(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.children.push(command.spawn().context(args.join(" "))?);
        Ok(())
    }

    /// Ends what it has started.
    pub fn stop(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Answers every request for a page at an address in it with a word, as long as the test program runs.
    ///
    /// # Errors
    /// Those of bind(2).
    pub fn serve(&self, address: SocketAddr, word: &'static str) -> Result<()> {
        let netns = File::open(format!("/run/netns/{}", self.name))?;
        // A thread that is thrown away: the socket stays where it was made.
        let listener = std::thread::spawn(move || -> Result<TcpListener> {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            Ok(TcpListener::bind(address)?)
        });
        let listener = listener
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{word}");
            }
        });
        Ok(())
    }

    /// Whether a page comes from a URL when it is asked for from one of the station's addresses.
    ///
    /// # Errors
    /// Where curl cannot be run.
    pub fn gets(&self, from: &str, url: &str) -> Result<bool> {
        let args = [
            "curl",
            "-gsf",
            "-m",
            "2",
            "--interface",
            from,
            "-o",
            "/dev/null",
            url,
        ];
        Ok(self.run(&args)?.code == 0)
    }

    /// Whether a ping from one of the station's addresses is answered.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn pings(&self, from: &str, to: &str) -> Result<bool> {
        let program = if to.contains(':') { "ping6" } else { "ping" };
        let args = ["busybox", program, "-c", "1", "-W", "2", "-I", from, to];
        Ok(self.run(&args)?.code == 0)
    }
}

impl Station {
    /// Whether anybody says that an IPv4 address is his (ARP), which no packet filter of his keeps from him.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub fn finds(&self, address: &str) -> Result<bool> {
        let args = ["busybox", "arping", "-f", "-w", "5", "-I", "wire", address];
        Ok(self.run(&args)?.code == 0)
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.stop();
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(args).output()?;
    ensure!(
        output.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
