//! The serial link on bad lines, and as ESXi has it.

use crate::hosts::{BUSYBOX, Hosts, alone, equal, holds, load};
use crate::output::{same, seq};
use anyhow::Result;
use libtest_mimic::Trial;
use std::sync::Arc;
use std::time::Duration;
use tests::random::{Random, times};
use tests::vch::{Settings, Vch};

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![
        alone(
            "serial::one_byte_in_1000_corrupted_and_one_dropped_both_ways",
            || Random::seeded(7, bad_line),
        ),
        alone(
            "serial::strict_boots_from_the_iso_on_the_packaged_kernel",
            strict,
        ),
        alone("serial::strict_takes_no_image_and_says_why", whole),
    ]
}

fn bad_line(mut random: Random) -> Result<()> {
    let mut settings = Settings::link("serial");
    for arg in [
        "--vm-key=hostsim.serial.corrupt=1000".to_owned(),
        "--vm-key=hostsim.serial.drop=1000".to_owned(),
        format!("--vm-key=hostsim.serial.seed={}", 1 + random.below(1 << 32)),
    ] {
        settings.more.push(format!("--endpoint-arg={arg}"));
    }
    let vch = Vch::start(settings)?;
    load(&vch.docker, "busybox")?;
    let lines = times(60_000, 400_000) as u64;
    let long = Duration::from_secs(1200);
    // Back through cat: the same bytes go both ways.
    let input = seq(lines);
    let mut c = vch.docker.command(&["run", "--rm", "-i", BUSYBOX, "cat"]);
    c.env("DOCKER_CLI_HINTS", "false");
    let out = tests::command::run(c, &input, long)?.ok()?;
    same("what came back", &out.stdout, &input)
}

fn strict() -> Result<()> {
    let mut settings = Settings::link("auto");
    settings.strict = Some("link");
    settings.boot = tests::places::boot_packaged();
    let vch = Vch::start(settings)?;
    load(&vch.docker, "busybox")?;
    let out = vch
        .docker
        .run(&[
            "run",
            "--rm",
            BUSYBOX,
            "sh",
            "-c",
            "echo strict; uname -r; exit 6",
        ])?
        .exits(6)?;
    equal("first line", out.text().lines().next(), Some("strict"))?;
    // The kernel's SCTP, a module of its own, is there for those who serve it.
    let sctp = ["grep", "-c", "^SCTP", "/proc/net/protocols"];
    let serves = [&["run", "--rm", "--expose", "9/sctp", BUSYBOX], &sctp[..]].concat();
    equal("its sockets", vch.docker.ok(&serves)?, "2".to_owned())?;
    let lines = 20_000;
    let out = vch
        .docker
        .run(&["run", "--rm", BUSYBOX, "seq", "1", &lines.to_string()])?
        .ok()?;
    same("stdout", &out.stdout, &seq(lines))
}

/// With nothing announced at all: no image can be placed, which is said before anything is fetched; the rest works.
fn whole() -> Result<()> {
    let mut settings = Settings::link("auto");
    settings.strict = Some("all");
    let vch = Vch::start(settings)?;
    let docker = &vch.docker;
    let archive = tests::places::archive("busybox");
    let archive = archive.to_string_lossy();
    // Nothing listens at the registry's place: it must not even be asked.
    for args in [
        &["load", "-i", &*archive][..],
        &["pull", "127.0.0.1:1/no/such"],
    ] {
        let out = docker.run(args)?.exits(1)?;
        holds(&out.errors(), "does not announce mooring.disk.upload")?;
    }
    let out = docker.run(&["run", "127.0.0.1:1/no/such"])?.exits(125)?;
    holds(&out.errors(), "does not announce mooring.disk.upload")?;
    equal("images", docker.ok(&["images", "-aq"])?, String::new())?;
    equal("containers", docker.ok(&["ps", "-aq"])?, String::new())?;
    let link = docker.ok(&["info", "--format", "{{.DriverStatus}}"])?;
    holds(&link, "telnets://")
}
