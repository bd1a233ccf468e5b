//! A folder of the machine in a container (`vch up --share`), over the container's own disk.

use crate::lab::Lab;
use crate::measure::{Alternate, Row};
use anyhow::{Context, Result, ensure};
use tests::docker::Docker;

/// The container that has the folder.
pub const CONTAINER: &str = "bench-share";
/// Where it has it, and a folder of its own beside.
pub const SHARED: &str = "/shared";
const OWN: &str = "/own";
/// Bytes written and read.
const BYTES: f64 = 64.0 * 1024.0 * 1024.0;

/// What is done there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// 64 MiB of zeros, and fsync(2).
    Write,
    /// The same back.
    Read,
    /// 1,000 small files are made, looked at and read.
    Files,
}

impl What {
    fn script(self) -> &'static str {
        match self {
            What::Write => "dd if=/dev/zero of=f bs=1M count=64 conv=fsync 2>/dev/null",
            What::Read => "dd if=f of=/dev/null bs=1M 2>/dev/null",
            What::Files => {
                "for n in $all; do echo $n > s/$n; done; for n in $all; do [ -s s/$n ] || exit 1; done; \
                 for n in $all; do read x < s/$n; done"
            }
        }
    }
}

/// Measures one of them in the folder and on the container's own disk, in one VM.
///
/// # Errors
/// What could not be measured.
pub fn share(lab: &mut Lab, what: What, order: &Alternate) -> Result<Row> {
    let docker = lab.shared()?;
    order.run(|| once(&docker, what, SHARED), || once(&docker, what, OWN))
}

/// Seconds, or bytes a second, by the guest's own clock (hundredths).
fn once(docker: &Docker, what: What, folder: &str) -> Result<f64> {
    let script = format!(
        "mkdir -p {folder} && cd {folder} && rm -rf s && mkdir s && all=$(seq 1000) || exit 1
         [ -e f ] || dd if=/dev/zero of=f bs=1M count=64 2>/dev/null; sync
         read begin x < /proc/uptime; {}; read end x < /proc/uptime; echo $begin $end",
        what.script()
    );
    let told = docker.ok(&["exec", CONTAINER, "sh", "-c", &script])?;
    let (begin, end) = told.split_once(' ').context("two times")?;
    let took = end.parse::<f64>()? - begin.parse::<f64>()?;
    ensure!(took > 0.0, "too quick for the guest's clock");
    Ok(match what {
        What::Files => took,
        What::Write | What::Read => BYTES / took,
    })
}
