//! The bare boot: the distribution's packaged kernel with an init that prints a line, and nothing else.

use crate::floors::{Floors, Killed, QEMU, cmdline};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;
use tests::guest::build::Guest;
use tests::places;

/// What the floor's init prints.
const FIRST_LINE: &str = "floor: first line";

/// How it is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As it is packaged: vmlinuz, given to QEMU, whose firmware and processor are its own.
    Packaged,
    /// The same from an ISO, by isolinux.
    Iso,
    /// With all that bootimage and hostsim do to a VM to be quick: vmlinux entered by PVH, qboot, hostsim's processor and
    /// its options for a kernel under emulation.
    Tuned,
}

/// The guest of all of them.
#[derive(Debug)]
pub struct Bare {
    tuned: Guest,
    vmlinuz: PathBuf,
    iso: PathBuf,
}

impl Bare {
    /// Has it built.
    ///
    /// # Errors
    /// Those of bootimage.
    pub fn build(floors: &Floors) -> Result<Bare> {
        let (tuned, folder) =
            floors.build(&places::kernel_package()?, "bare", "", Some("print"))?;
        Ok(Bare {
            tuned,
            vmlinuz: folder.join("vmlinuz"),
            iso: folder.join("boot.iso"),
        })
    }

    /// Seconds from QEMU's exec to init's line.
    ///
    /// # Errors
    /// When it does not boot.
    pub fn boot(&self, floors: &Floors, way: Way) -> Result<f64> {
        let mut qemu = match way {
            Way::Tuned => floors.qemu(Command::new(QEMU), &self.tuned, "print"),
            Way::Packaged => {
                let mut qemu = floors.untuned();
                qemu.arg("-kernel").arg(&self.vmlinuz);
                qemu.arg("-initrd").arg(&self.tuned.initramfs);
                qemu.arg("-append").arg(cmdline("print"));
                qemu
            }
            Way::Iso => {
                let mut qemu = floors.untuned();
                qemu.arg("-cdrom").arg(&self.iso);
                qemu
            }
        };
        qemu.args(["-serial", "stdio"]);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        let begin = Instant::now();
        let mut child = Killed(qemu.spawn().context("start qemu-system-x86_64")?);
        let mut console = BufReader::new(child.0.stdout.take().context("QEMU's output")?);
        let mut text = String::new();
        loop {
            let mut line = Vec::new();
            if console.read_until(b'\n', &mut line)? == 0 {
                bail!("the bare boot ended without its line; console:\n{text}");
            }
            let took = begin.elapsed();
            let line = String::from_utf8_lossy(&line);
            if line.contains(FIRST_LINE) {
                return Ok(took.as_secs_f64());
            }
            text.push_str(&line);
        }
    }
}
