//! A file of more than 4 GiB, all of it data: into an image, into a VM, and out again.

use crate::hosts::{Hosts, alone, equal};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use sha2::{Digest, Sha256};
use std::io::{BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tests::command;
use tests::docker::Docker;
use tests::vch::{Settings, Vch};

/// In a soak, or where it is asked for by name: it takes minutes, and 10 GB of disk.
pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    let asked = std::env::args().any(|a| a.contains("4_gib"));
    if !asked && std::env::var_os("MOORING_SOAK").is_none() {
        return Vec::new();
    }
    vec![alone("images::a_file_of_more_than_4_gib", large)]
}

/// How long a client may take to move all of it.
const LONG: Duration = Duration::from_secs(900);
/// Each chunk begins with its number; the rest differs from one to the next, too.
const CHUNK: usize = 1 << 20;
const CHUNKS: u64 = (4 << 10) + 5;
/// No multiple of a block.
const REST: usize = 123;
const SIZE: u64 = CHUNKS * CHUNK as u64 + REST as u64;
/// Bytes of a chunk's number.
const NUMBER: usize = 16;

/// The file's chunks; the last one is short.
fn chunks() -> impl Iterator<Item = Vec<u8>> {
    let noise: Vec<u8> = (0..CHUNK as u64 / 8)
        .flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n >> 3).to_le_bytes())
        .collect();
    (0..=CHUNKS).map(move |n| {
        let mut chunk = noise.clone();
        chunk.rotate_left((n * 4099 % CHUNK as u64) as usize);
        chunk[..NUMBER].copy_from_slice(format!("{n:016}").as_bytes());
        chunk.truncate(if n == CHUNKS { REST } else { CHUNK });
        chunk
    })
}

/// The header of /large (POSIX.1-2017, pax, "ustar Interchange Format").
fn header() -> [u8; 512] {
    let mut header = [0; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "large");
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{SIZE:011o}\0"));
    put(136, "14700000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn large() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    let docker = &vch.docker;
    import(docker)?;
    let name = "e2e-large";
    let _gone = docker.container(name);
    docker.ok(&["create", "--name", name, "large", "sh", "-c", SCRIPT])?;
    let out = docker
        .run_within(&["start", "-a", name], LONG)?
        .ok()?
        .text();
    equal("what the kernel reads", out, expected())?;
    copied_out(docker, name)?;
    saved(docker)
}

/// Of a busybox image and the file, in one layer, without a compression.
fn import(docker: &Docker) -> Result<()> {
    let mut layer = Command::new("tar");
    layer.arg("-xOf").arg(tests::places::archive("busybox"));
    layer.args(["--wildcards", "*.tar"]);
    let mut base = command::run(layer, b"", command::DEADLINE)?.ok()?.stdout;
    while base.ends_with(&[0; 512]) {
        base.truncate(base.len() - 512);
    }
    let mut client = docker.spawn(&["import", "-", "large"])?;
    let mut input = client.stdin.take().context("its input")?;
    input.write_all(&base)?;
    input.write_all(&header())?;
    for chunk in chunks() {
        input.write_all(&chunk)?;
    }
    let padding = SIZE.next_multiple_of(512) - SIZE;
    input.write_all(&vec![0; usize::try_from(padding)? + 1024])?;
    drop(input);
    command::finish(client, "docker import".into(), b"", LONG)?.ok()?;
    Ok(())
}

/// The size, all chunks' numbers, and all of some: the first, those around 4 GiB, the last two.
const SCRIPT: &str = "stat -c %s /large
i=0; while [ $i -le 4101 ]; do dd if=/large bs=16 count=1 skip=$((i*65536)) 2>/dev/null; i=$((i+1)); done | sha256sum
for i in 0 2047 4095 4096 4100 4101; do dd if=/large bs=1M count=1 skip=$i 2>/dev/null | sha256sum; done";

/// What it prints.
fn expected() -> String {
    let line = |digest: Sha256| format!("{}  -", hex::encode(digest.finalize()));
    let mut numbers = Sha256::new();
    let mut lines = Vec::new();
    for (n, chunk) in chunks().enumerate() {
        numbers.update(&chunk[..NUMBER]);
        if [0, 2047, 4095, 4096, 4100, 4101].contains(&n) {
            lines.push(line(Sha256::new_with_prefix(&chunk)));
        }
    }
    lines.insert(0, line(numbers));
    lines.insert(0, SIZE.to_string());
    lines.join("\n")
}

/// All of it, byte for byte, from the disk.
fn copied_out(docker: &Docker, name: &str) -> Result<()> {
    let mut client = docker.spawn(&["cp", &format!("{name}:/large"), "-"])?;
    let mut output = BufReader::with_capacity(CHUNK, client.stdout.take().context("its output")?);
    let mut header = [0; 512];
    output.read_exact(&mut header)?;
    // An extended header may stand before the file's own.
    while header[156] == b'x' {
        let size = std::str::from_utf8(&header[124..135])?;
        let size = u64::from_str_radix(size, 8)?.next_multiple_of(512);
        std::io::copy(&mut output.by_ref().take(size), &mut std::io::sink())?;
        output.read_exact(&mut header)?;
    }
    equal(
        "the size",
        String::from_utf8_lossy(&header[124..135]).into_owned(),
        format!("{SIZE:011o}"),
    )?;
    let mut read = vec![0; CHUNK];
    for (n, chunk) in chunks().enumerate() {
        output.read_exact(&mut read[..chunk.len()])?;
        ensure!(read[..chunk.len()] == chunk, "chunk {n} of what was copied");
    }
    std::io::copy(&mut output, &mut std::io::sink())?;
    command::finish(client, "docker cp".into(), b"", LONG)?.ok()?;
    Ok(())
}

/// The layer that comes out again has the digest that it had.
fn saved(docker: &Docker) -> Result<()> {
    let layer = docker.inspect("large", "{{index .RootFS.Layers 0}}")?;
    let digest = layer.strip_prefix("sha256:").context("a digest")?;
    let mut client = docker.spawn(&["save", "large"])?;
    let mut tar = Command::new("tar");
    tar.args(["-xOf", "-", &format!("blobs/sha256/{digest}")]);
    tar.stdin(client.stdout.take().context("its output")?);
    let mut tar = tar.stdout(Stdio::piped()).spawn().context("tar")?;
    let mut hash = Sha256::new();
    let mut output = tar.stdout.take().context("its output")?;
    let mut read = vec![0; CHUNK];
    loop {
        match output.read(&mut read)? {
            0 => break,
            n => hash.update(&read[..n]),
        }
    }
    ensure!(tar.wait()?.success(), "tar found no layer {digest}");
    command::finish(client, "docker save".into(), b"", LONG)?.ok()?;
    equal(
        "the layer's digest",
        hex::encode(hash.finalize()),
        digest.into(),
    )
}
