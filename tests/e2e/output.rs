//! Output written and the end at once after it: every byte, exactly once, whoever reads.

use crate::hosts::{BUSYBOX, Hosts, Link, equal, on};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tests::docker::Docker;
use tests::random::times;

const LONG: Duration = Duration::from_secs(900);

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = Vec::new();
    for link in Link::BOTH {
        // 300 KB is 53,000 lines.
        all.push(on(
            hosts,
            link,
            "output::attached_300_kb_on_both_streams",
            |d| attached(d, 53_000),
        ));
        all.push(on(
            hosts,
            link,
            "output::detached_300_kb_on_both_streams",
            |d| detached(d, 53_000),
        ));
        all.push(on(
            hosts,
            link,
            "output::a_paused_reader_gets_all",
            move |d| paused(d, more_than_fits(link)),
        ));
        all.push(on(hosts, link, "output::attached_large", move |d| {
            attached(d, large(link) / 2)
        }));
        all.push(on(hosts, link, "output::detached_large", move |d| {
            detached(d, large(link) / 2)
        }));
    }
    all.push(on(
        hosts,
        Link::Vsock,
        "output::a_grandchild_that_keeps_stdout_does_not_delay_run",
        grandchild,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "output::the_first_byte_is_not_lost",
        first_byte,
    ));
    all
}

/// Lines of an output that no buffer between a process and a client takes whole: 4 MB; whole: as [`large`].
fn more_than_fits(link: Link) -> u64 {
    let whole = match link {
        Link::Vsock => 12_500_000,
        Link::Serial => 1_450_000,
    };
    times(600_000, whole) as u64
}

/// Lines of the large outputs, on both streams together; whole: 100 MB over vsock, 10 MB over serial. Asked for in the
/// test, which then tells it.
fn large(link: Link) -> u64 {
    let lines = match link {
        Link::Vsock => times(2_500_000, 12_500_000),
        Link::Serial => times(300_000, 1_450_000),
    };
    lines as u64
}

/// What `seq 1 n` writes.
pub fn seq(n: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(n as usize * 8);
    for i in 1..=n {
        out.extend_from_slice(i.to_string().as_bytes());
        out.push(b'\n');
    }
    out
}

/// Fails with where two outputs part, not with megabytes.
pub fn same(what: &str, is: &[u8], should: &[u8]) -> Result<()> {
    if is == should {
        return Ok(());
    }
    let at = is
        .iter()
        .zip(should)
        .position(|(a, b)| a != b)
        .unwrap_or(is.len().min(should.len()));
    let near = |b: &[u8]| {
        String::from_utf8_lossy(&b[at.saturating_sub(20)..(at + 20).min(b.len())]).into_owned()
    };
    ensure!(
        false,
        "{what}: {} bytes instead of {}, first difference at byte {at}: {:?} instead of {:?}",
        is.len(),
        should.len(),
        near(is),
        near(should)
    );
    Ok(())
}

fn both_streams(lines: u64) -> String {
    format!("seq 1 {lines} & seq 1 {lines} >&2; wait")
}

fn attached(docker: &Docker, lines: u64) -> Result<()> {
    let out = docker
        .run_within(
            &["run", "--rm", BUSYBOX, "sh", "-c", &both_streams(lines)],
            LONG,
        )?
        .ok()?;
    same("stdout", &out.stdout, &seq(lines))?;
    same("stderr", &out.stderr, &seq(lines))
}

fn detached(docker: &Docker, lines: u64) -> Result<()> {
    let id = docker.ok(&["run", "-d", BUSYBOX, "sh", "-c", &both_streams(lines)])?;
    let _gone = docker.container(&id);
    equal(
        "exit code",
        docker.run_within(&["wait", &id], LONG)?.ok()?.text(),
        "0".into(),
    )?;
    let log = docker.run_within(&["logs", &id], LONG)?.ok()?;
    same("stdout", &log.stdout, &seq(lines))?;
    same("stderr", &log.stderr, &seq(lines))
}

/// A client that does not read for a while holds the writer back; nothing is lost.
fn paused(docker: &Docker, lines: u64) -> Result<()> {
    let name = format!("e2e-paused-{}", std::process::id());
    let _gone = docker.container(&name);
    let script = format!("seq 1 {lines}; : > /done; echo done >&2; sleep 3600");
    let mut child = docker.spawn(&["run", "--name", &name, BUSYBOX, "sh", "-c", &script])?;
    let mut out = child.stdout.take().expect("stdout was made a pipe");
    let mut first = [0u8; 1];
    out.read_exact(&mut first)?;
    std::thread::sleep(Duration::from_secs(3)); // the pause is what is tested
    let done = || docker.run(&["exec", &name, "test", "-e", "/done"]);
    done()?.exits(1)?;
    let should = seq(lines);
    let mut rest = vec![0; should.len() - 1];
    out.read_exact(&mut rest)?;
    tests::command::eventually("the writer goes on", || Ok(done()?.code == 0))?;
    docker.ok(&["kill", &name])?;
    out.read_to_end(&mut rest)?;
    let end = tests::command::finish(child, "docker run … seq".into(), b"", LONG)?.exits(137)?;
    equal("stderr", end.errors(), "done".into())?;
    same("stdout", &[&first[..], &rest].concat(), &should)
}

fn grandchild(docker: &Docker) -> Result<()> {
    // Were it waited for, this would take an hour and run into the deadline.
    let out = docker
        .run(&["run", "--rm", BUSYBOX, "sh", "-c", "sleep 3600 & echo done"])?
        .ok()?;
    equal("stdout", out.text(), "done".into())
}

fn first_byte(docker: &Docker) -> Result<()> {
    for i in 0..times(5, 50) {
        let word = hex::encode(Sha256::digest(i.to_string().as_bytes()));
        equal(
            "stdout",
            docker.ok(&["run", "--rm", BUSYBOX, "echo", &word])?,
            word,
        )?;
    }
    Ok(())
}
