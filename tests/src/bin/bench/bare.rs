//! The bare boot: a kernel with an init that prints a line, and nothing else. The distribution's packaged one is the floor.

use crate::floors::{Floors, Killed, QEMU, cmdline};
use crate::lab::Lab;
use crate::measure::{Alternate, Row};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
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
    /// From an ISO on hostsim's processor: a container's boot from the ISO, less the container.
    TunedIso,
}

/// A kernel, as it is given to QEMU in each of these ways.
#[derive(Debug)]
pub struct Bare {
    tuned: Guest,
    vmlinuz: PathBuf,
    iso: PathBuf,
}

impl Bare {
    /// The packaged kernel; its ISO tells it no more than what the floor's init does.
    ///
    /// # Errors
    /// Those of bootimage.
    pub fn packaged(floors: &Floors) -> Result<Bare> {
        Bare::build(
            floors,
            &places::kernel_package()?,
            "bare",
            &cmdline("print"),
        )
    }

    /// The trimmed kernel; its ISO tells it what a container's does.
    ///
    /// # Errors
    /// Those of bootimage.
    pub fn trimmed(floors: &Floors) -> Result<Bare> {
        let cmdline = format!("{} floor=print", wire::config::KERNEL_CMDLINE);
        Bare::build(floors, &places::kernel_fast(), "bare-fast", &cmdline)
    }

    fn build(floors: &Floors, kernel: &Path, name: &str, iso: &str) -> Result<Bare> {
        let (tuned, folder) = floors.build(kernel, name, "", Some(iso))?;
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
            Way::Iso | Way::TunedIso => {
                let mut qemu = floors.untuned();
                if way == Way::TunedIso {
                    qemu.args(["-cpu", floors.processor()]);
                }
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

/// The trimmed kernel with nothing but that init, over the packaged one: how much of the bar of
/// `boot-to-first-byte-fast` is spent before there is anything of Mooring.
///
/// # Errors
/// What could not be measured.
pub fn trimmed(lab: &mut Lab, way: Way, order: &Alternate) -> Result<Row> {
    let floors = lab.floors()?;
    let trimmed = Bare::trimmed(floors)?;
    let packaged = floors.bare()?;
    let floors = &*floors;
    order.run(
        || trimmed.boot(floors, way),
        || packaged.boot(floors, Way::Packaged),
    )
}
