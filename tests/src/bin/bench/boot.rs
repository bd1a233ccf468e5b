//! `boot-to-first-byte`: from the order to start to the container's first byte at the client.

use crate::bare::Way;
use crate::http::Client;
use crate::lab::{BUSYBOX, Kernel, Lab, Setup};
use crate::measure::{Alternate, Row};
use anyhow::{Result, ensure};
use std::io::Read;
use std::time::Instant;

/// Measures with this setup, over the bare boot of the packaged kernel as it is packaged. Two rows more hold the same
/// figures against the same kernel with hostsim's tuning and, where ours boots from its ISO, from an ISO.
///
/// # Errors
/// What could not be measured.
pub fn first_byte(lab: &mut Lab, setup: Setup, order: &Alternate) -> Result<Vec<Row>> {
    let client = lab.client(setup)?;
    let floors = lab.floors()?;
    let mut others: Vec<_> = [("tuned", Way::Tuned), ("iso", Way::Iso)]
        .into_iter()
        .filter(|(_, way)| setup.iso || *way != Way::Iso)
        .map(|(name, way)| (name, way, Vec::new()))
        .collect();
    let row = order.run(
        || once(&client),
        || {
            for (_, way, figures) in &mut others {
                figures.push(floors.bare_boot(*way)?);
            }
            floors.bare_boot(Way::Packaged)
        },
    )?;
    let mut rows = vec![row.clone()];
    rows.extend(
        others
            .into_iter()
            .map(|(name, _, figures)| row.over(name, figures)),
    );
    Ok(rows)
}

/// All setups with a kernel, with the last part of their names.
pub fn setups(kernel: Kernel) -> impl Iterator<Item = (String, Setup)> {
    [("direct", false), ("iso", true)]
        .into_iter()
        .flat_map(|boot| ["vsock", "serial"].map(|link| (boot, link)))
        .map(move |((boot, iso), link)| {
            let setup = Setup { link, kernel, iso };
            (format!("{boot}-{link}"), setup)
        })
}

/// Seconds from sending `POST /containers/…/start` to the first byte of the program's output on an attach stream that
/// was opened before. This holds PowerOn and what the endpoint does before it asks for that.
fn once(client: &Client) -> Result<f64> {
    let id = client.create(BUSYBOX, &["echo", "x"])?;
    let measured = (|| {
        let mut output = client.attach(&id)?;
        let begin = Instant::now();
        let answer = client.start(&id)?;
        let mut byte = [0];
        let n = output.read(&mut byte);
        let took = begin.elapsed();
        // Why it did not start matters more than that nothing came.
        answer.check()?;
        ensure!(
            n? == 1 && &byte == b"x",
            "the container's output is not its own"
        );
        ensure!(client.wait(&id)? == 0, "echo failed");
        Ok(took.as_secs_f64())
    })();
    client.remove(&id)?;
    measured
}
