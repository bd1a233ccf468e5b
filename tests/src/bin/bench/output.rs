//! `stdout-vsock`, `stdout-serial`: a busy container's output over a raw copy through the same device.

use crate::floors::drain;
use crate::http::Client;
use crate::lab::{BUSYBOX, Lab, Setup};
use crate::measure::{Alternate, Row};
use anyhow::{Context, Result, ensure};
use std::io::Read;

/// Bytes of one copy over vsock.
const VSOCK_BYTES: u64 = 64 << 20;
/// Bytes of one copy over the serial port.
const SERIAL_BYTES: u64 = 1 << 20;

/// How a client gets the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// `logs -f`.
    Logs,
    /// `attach`.
    Attach,
}

/// Measures over a link. Over vsock a second row holds the same figures against a copy of what another process writes
/// to a pipe, as a container does.
///
/// # Errors
/// What could not be measured.
pub fn stdout(
    lab: &mut Lab,
    link: &'static str,
    through: Through,
    order: &Alternate,
) -> Result<Vec<Row>> {
    let client = lab.client(Setup::link(link))?;
    let floors = lab.floors()?;
    if link == "serial" {
        let row = order.run(
            || once(&client, through, SERIAL_BYTES),
            || floors.raw_uart(SERIAL_BYTES),
        )?;
        return Ok(vec![row]);
    }
    let mut piped = Vec::new();
    let row = order.run(
        || once(&client, through, VSOCK_BYTES),
        || {
            piped.push(floors.raw_vsock(VSOCK_BYTES, true)?);
            floors.raw_vsock(VSOCK_BYTES, false)
        },
    )?;
    let second = row.over("pipe", piped);
    Ok(vec![row, second])
}

/// Bytes a second from a container that writes when it is told to, so that all of it passes while it is measured.
fn once(client: &Client, through: Through, bytes: u64) -> Result<f64> {
    const CHUNK: u64 = 65536;
    let script = format!(
        "trap 'dd if=/dev/zero bs={CHUNK} count={} 2>/dev/null; exit 0' USR1; echo go; while :; do sleep 3600 & wait $!; done",
        bytes / CHUNK
    );
    let id = client.create(BUSYBOX, &["sh", "-c", &script])?;
    let measured = (|| {
        let mut output: Box<dyn Read> = match through {
            Through::Attach => {
                let output = client.attach(&id)?;
                client.start(&id)?.check()?;
                Box::new(output)
            }
            Through::Logs => {
                client.start(&id)?.check()?;
                Box::new(client.logs(&id)?)
            }
        };
        let mut ready = [0; 3];
        output.read_exact(&mut ready).context("the first line")?;
        ensure!(&ready == b"go\n", "the container's output is not its own");
        client.signal(&id, "USR1")?;
        let rate = drain(&mut output, bytes)?;
        ensure!(output.read(&mut ready)? == 0, "more than was written came");
        ensure!(client.wait(&id)? == 0, "the writer failed");
        Ok(rate)
    })();
    client.remove(&id)?;
    measured
}
