//! Files of containers that do not run, where their disks alone are not enough: their VMs are started for them alone.

use crate::faults::damage;
use crate::files::{ready, refused, text};
use crate::hosts::{BUSYBOX, Hosts, Link, actions_since, alone, equal, holds, load, on, on_both};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;
use tests::admin;
use tests::command::{DEADLINE, eventually, finish};
use tests::docker::Docker;
use tests::vch::{Settings, Vch};

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = on_both(hosts, "maintenance::of_one_that_does_not_run", stopped);
    all.push(on(
        hosts,
        Link::Vsock,
        "maintenance::volumes_in_use_are_not_touched",
        volumes,
    ));
    all.push(alone(
        "maintenance::an_endpoint_that_goes_leaves_none",
        left_behind,
    ));
    all.push(alone(
        "maintenance::a_mark_that_stayed_must_not_end_a_start",
        stale_mark,
    ));
    all.push(alone(
        "maintenance::a_vm_that_does_not_come_up_says_why",
        not_up,
    ));
    all
}

fn stopped(docker: &Docker) -> Result<()> {
    let id = docker.ok(&[
        "create",
        "-v",
        "/vol",
        BUSYBOX,
        "sh",
        "-c",
        "cat /in /vol/v 2>/dev/null; echo ran > /ran; echo w > /vol/w; ip route | grep -c default",
    ])?;
    let _gone = docker.container(&id);
    let at = |path: &str| format!("{id}:{path}");
    let dir = TempDir::new()?;
    let local = |name: &str| dir.path().join(name);
    fs::write(local("in"), "from outside\n")?;
    // Created, never run.
    equal("nothing changed", docker.ok(&["diff", &id])?, String::new())?;
    docker.ok(&["cp", text(&local("in"))?, &at("/in")])?;
    fs::write(local("v"), "in a volume\n")?;
    docker.ok(&["cp", text(&local("v"))?, &at("/vol/v")])?;
    equal(
        "state",
        docker.inspect(&id, "{{.State.Status}} {{.State.Running}}")?,
        "created false".into(),
    )?;
    // A start waits for the VM, and finds what was copied; its network is there.
    let out = docker.ok(&["start", "-a", &id])?;
    equal(
        "the process saw",
        out,
        "from outside\nin a volume\n1".into(),
    )?;
    let before = docker.inspect(&id, "{{json .State}}")?;
    let since = docker.ok(&["info", "--format", "{{.SystemTime}}"])?;
    docker.ok(&["cp", &at("/ran"), text(&local("ran"))?])?;
    equal("ran", fs::read_to_string(local("ran"))?, "ran\n".into())?;
    let status = docker.ok(&[
        "ps",
        "-a",
        "--filter",
        &format!("id={id}"),
        "--format",
        "{{.Status}}",
    ])?;
    holds(&status, "Exited (0)")?;
    docker.ok(&["cp", &at("/vol/w"), text(&local("w"))?])?;
    let diff = docker.ok(&["diff", &id])?;
    for line in ["A /ran", "A /in"] {
        ensure!(diff.lines().any(|l| l == line), "no {line:?} in\n{diff}");
    }
    let tar = docker.run(&["export", &id])?.ok()?.stdout;
    holds(&String::from_utf8_lossy(&tar), "from outside\n")?;
    equal("state", docker.inspect(&id, "{{json .State}}")?, before)?;
    let told = actions_since(docker, &format!("container={id}"), &since)?;
    for action in ["start", "die", "kill", "stop"] {
        ensure!(!told.iter().any(|a| a == action), "{action} in {told:?}");
    }
    let missing = refused(docker, &["cp", &at("/nope"), "-"])?;
    holds(&missing, "Could not find the file /nope")?;
    // In the middle of it, and a start right behind.
    docker.ok(&["start", "-a", &id])?;
    equal("log", docker.ok(&["logs", "--tail", "1", &id])?, "1".into())
}

fn volumes(docker: &Docker) -> Result<()> {
    let (writer, _gone) = ready(
        docker,
        &["--name", "files-writer", "-v", "files-shared:/data"],
        "echo 1 > /data/f",
    )?;
    let other = docker.ok(&["create", "-v", "files-shared:/data", BUSYBOX])?;
    let _other = docker.container(&other);
    let error = refused(docker, &["cp", &format!("{other}:/data/f"), "-"])?;
    holds(
        &error,
        "volume files-shared is in use by container \"/files-writer\"",
    )?;
    docker.ok(&["rm", "-f", &writer])?;
    let out = docker
        .run(&["cp", &format!("{other}:/data/f"), "-"])?
        .ok()?;
    holds(&String::from_utf8_lossy(&out.stdout), "1\n")
}

fn left_behind() -> Result<()> {
    let vch = Vch::start(Settings::link("vsock"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let id = docker.ok(&["create", BUSYBOX, "sh", "-c", "ip route | grep -c default"])?;
    let dir = TempDir::new()?;
    let file = dir.path().join("in");
    fs::write(&file, "in\n")?;
    let into = format!("{id}:/in");
    let copy = docker.spawn(&["cp", text(&file)?, &into])?;
    // Its VM is up, for its files.
    eventually("the VM is on", || Ok(vch.qemu(&id).is_ok()))?;
    vch.kill("endpoint")?;
    let outcome = finish(copy, "docker cp".to_owned(), b"", DEADLINE)?;
    ensure!(outcome.code != 0, "a copy outlived its endpoint");
    vch.up()?;
    equal(
        "state",
        docker.inspect(&id, "{{.State.Status}}")?,
        "created".into(),
    )?;
    eventually("the VM is off", || Ok(vch.qemu(&id).is_err()))?;
    equal("it starts", docker.ok(&["start", "-a", &id])?, "1".into())?;
    docker.ok(&["cp", text(&file)?, &into])?;
    eventually("the VM is off", || Ok(vch.qemu(&id).is_err()))?;
    // Nobody comes back: it ends by itself.
    let copy = docker.spawn(&["cp", text(&file)?, &into])?;
    eventually("the VM is on again", || Ok(vch.qemu(&id).is_ok()))?;
    vch.kill("endpoint")?;
    finish(copy, "docker cp".to_owned(), b"", DEADLINE)?;
    eventually("the VM is off by itself", || Ok(vch.qemu(&id).is_err()))
}

fn stale_mark() -> Result<()> {
    let vch = Vch::start(Settings::link("vsock"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let id = docker.ok(&["create", BUSYBOX, "sleep", "100000"])?;
    // What was told to be copied is there, even if all is cut off at once.
    let dir = TempDir::new()?;
    let file = dir.path().join("kept");
    fs::write(&file, "kept\n")?;
    docker.ok(&["cp", text(&file)?, &format!("{id}:/kept")])?;
    vch.kill("endpoint")?;
    vch.up()?;
    docker.ok(&["start", &id])?;
    equal(
        "the copy",
        docker.ok(&["exec", &id, "cat", "/kept"])?,
        "kept".into(),
    )?;
    // As if the mark of that maintenance could not be taken away.
    admin::set_keys(&vch, &id, |_| {
        Ok(BTreeMap::from([(
            "mooring.maintenance".to_owned(),
            "0123".to_owned(),
        )]))
    })?;
    let qemu = vch.qemu(&id)?;
    vch.kill("endpoint")?;
    vch.up()?;
    equal(
        "after it",
        docker.ok(&["exec", &id, "cat", "/kept"])?,
        "kept".into(),
    )?;
    equal("its VM", vch.qemu(&id)?, qemu)?;
    docker.ok(&["stop", "--time", "1", &id]).map(drop)
}

fn not_up() -> Result<()> {
    let vch = Vch::start(Settings::link("vsock"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let id = docker.ok(&["create", BUSYBOX, "echo", "started"])?;
    let from = format!("{id}:/etc/passwd");
    // The partition for what the container writes.
    let folder = vch.vch_folder()?.join("containers").join(&id);
    let leaf = folder.join("leaf.vmdk");
    let whole = fs::read(&leaf)?;
    damage(&vch, &leaf, 2)?;
    let error = refused(docker, &["cp", &from, "-"])?;
    holds(&error, "could not be brought up: ephemeral: mounting")?;
    equal(
        "state",
        docker.inspect(&id, "{{.State.Status}}{{.State.Error}}")?,
        "created".into(),
    )?;
    eventually("the VM is off", || Ok(vch.qemu(&id).is_err()))?;
    fs::write(&leaf, whole)?;
    docker.ok(&["cp", &from, "-"])?;
    eventually("the endpoint is done with the VM", || {
        let looked = admin::set_keys(&vch, &id, |keys| {
            let mark = keys.get("mooring.maintenance");
            ensure!(mark.is_none_or(String::is_empty), "the mark is there");
            Ok(BTreeMap::new())
        });
        Ok(looked.is_ok())
    })?;
    // Powered on while the endpoint is away, with a request that is too old: it ends at once, and nothing has happened.
    vch.kill("endpoint")?;
    admin::set_guest(&vch, &id, |config| {
        if let Some(maintenance) = &mut config.maintenance {
            maintenance.until = 1;
        }
    })?;
    admin::power_on(&vch, &id)?;
    let console = folder.join("console.log");
    eventually("the tether has refused", || {
        let told = fs::read(&console).unwrap_or_default();
        Ok(String::from_utf8_lossy(&told).contains("files is too old"))
    })?;
    eventually("the VM is off", || Ok(vch.qemu(&id).is_err()))?;
    vch.up()?;
    equal(
        "state",
        docker.inspect(&id, "{{.State.Status}}")?,
        "created".into(),
    )?;
    equal(
        "it starts",
        docker.ok(&["start", "-a", &id])?,
        "started".into(),
    )
}
