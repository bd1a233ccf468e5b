//! `kill -9` of the endpoint, of hostsim and of a VM in the middle of output.

use crate::hosts::{BUSYBOX, Hosts, actions_since, alone, equal, holds, load};
use crate::output::same;
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::admin;
use tests::command::{eventually, finish};
use tests::random::{Random, times};
use tests::vch::{Frozen, Settings, Vch, kill_process};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = Vec::new();
    for part in ["endpoint", "hostsim"] {
        for link in ["vsock", "serial"] {
            all.push(alone(
                &format!("{link}::crash::kill_9_of_{part}_in_the_middle_of_output"),
                move || Random::seeded(3, |random| part_killed(part, link, random)),
            ));
        }
    }
    all.push(alone(
        "crash::a_killed_vm_s_log_is_an_exact_prefix",
        vm_killed,
    ));
    all.push(alone(
        "crash::a_vm_destroyed_by_hand_leaves_the_others_whole",
        destroyed_by_hand,
    ));
    all.push(alone(
        "crash::files_that_an_administrator_takes_away_take_no_others_along",
        files_by_hand,
    ));
    all.push(alone(
        "crash::a_vm_powered_on_by_hand_runs_its_container",
        powered_on_by_hand,
    ));
    all.push(alone(
        "crash::a_vm_reset_by_hand_ends_its_container",
        reset_by_hand,
    ));
    all.push(alone(
        "crash::a_boot_that_was_cut_short_is_a_start_that_failed",
        boot_cut_short,
    ));
    all.push(alone(
        "crash::a_removal_that_was_cut_short_is_finished",
        removal_cut_short,
    ));
    all
}

/// Lines with a number each, as fast as a shell loop makes them, until there are `n`.
fn counter(n: u64) -> String {
    format!("i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo line $i; done; exit 11")
}

fn should(n: u64) -> Vec<u8> {
    (1..=n)
        .flat_map(|i| format!("line {i}\n").into_bytes())
        .collect()
}

fn part_killed(part: &str, link: &'static str, mut random: Random) -> Result<()> {
    let vch = Vch::start(Settings::link(link))?;
    load(&vch.docker, "busybox")?;
    // Both links together make the 20 times of the whole count.
    for round in 0..times(2, 10) {
        let n = 60_000;
        let ids = (0..4)
            .map(|_| {
                vch.docker
                    .ok(&["run", "-d", "-m", "96m", BUSYBOX, "sh", "-c", &counter(n)])
            })
            .collect::<Result<Vec<_>>>()?;
        // At a random moment of the output.
        let at = format!("line {}", 1 + random.below(n / 2));
        let follower = vch.docker.spawn(&["logs", "-f", &ids[0]])?;
        wait_for_line(follower, &at)?;
        vch.kill(part)?;
        vch.up()?;
        for id in &ids {
            let code = vch
                .docker
                .run_within(&["wait", id], Duration::from_secs(600))?
                .ok()?
                .text();
            equal(&format!("round {round}: exit code"), code, "11".into())?;
            let log = vch
                .docker
                .run_within(&["logs", id], Duration::from_secs(300))?
                .ok()?;
            same(&format!("round {round}: log"), &log.stdout, &should(n))?;
            equal(
                "state",
                vch.docker
                    .inspect(id, "{{.State.Status}} {{.State.ExitCode}}")?,
                "exited 11".into(),
            )?;
        }
        vch.docker.ok(&[
            &["rm"],
            ids.iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .as_slice(),
        ]
        .concat())?;
    }
    Ok(())
}

fn wait_for_line(mut follower: std::process::Child, line: &str) -> Result<()> {
    use std::io::{BufRead, BufReader};
    let out = BufReader::new(follower.stdout.take().expect("stdout was made a pipe"));
    let found = out.lines().map_while(Result::ok).any(|l| l == line);
    let _ = follower.kill();
    let _ = follower.wait();
    ensure!(found, "the log ended before {line:?}");
    Ok(())
}

fn vm_killed() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    for _ in 0..times(1, 5) {
        let n = 10_000_000;
        let id = vch
            .docker
            .ok(&["run", "-d", BUSYBOX, "sh", "-c", &counter(n)])?;
        let mut follower = vch.docker.spawn(&["logs", "-ft", &id])?;
        let mut output = BufReader::new(follower.stdout.take().context("its output")?);
        let mut seen = String::new();
        while !seen.ends_with(" line 20000\n") {
            ensure!(
                output.read_line(&mut seen)? > 0,
                "it ended after {} bytes",
                seen.len()
            );
        }
        kill_process(vch.qemu(&id)?)?;
        output.read_to_string(&mut seen)?;
        follower.wait()?;
        equal("exit code", vch.docker.ok(&["wait", &id])?, "137".into())?;
        let state = vch.docker.inspect(
            &id,
            "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}",
        )?;
        holds(&state, "exited 137 ")?;
        ensure!(state.len() > "exited 137 ".len() + 5, "no reason: {state}");
        let log = vch.docker.run(&["logs", "-t", &id])?.ok()?.stdout;
        missing_is_young(&seen, &String::from_utf8(log)?)?;
        let log = vch.docker.ok(&["logs", &id])? + "\n";
        // An exact prefix.
        let lines = log.lines().count() as u64;
        let whole = should(lines + 1);
        ensure!(
            whole.starts_with(log.trim_end().as_bytes()),
            "the log is no prefix of what was written"
        );
        ensure!(lines > 10_000, "only {lines} lines");
        // It can be started again.
        vch.docker.ok(&["start", &id])?;
        equal(
            "running",
            vch.docker.inspect(&id, "{{.State.Running}}")?,
            "true".into(),
        )?;
        vch.docker.ok(&["rm", "-f", &id])?;
    }
    Ok(())
}

/// What a client saw of a log (with times) and the disk has not, was written within 100 ms; the rest of the bound is for
/// a machine that lets the VM wait between asking for room and writing.
fn missing_is_young(seen: &str, log: &str) -> Result<()> {
    // Either may end within a line.
    let whole = |text: &str| text.rfind('\n').map_or(0, |end| end + 1);
    let seen: Vec<_> = seen[..whole(seen)].lines().collect();
    let log: Vec<_> = log[..whole(log)].lines().collect();
    let both = seen.len().min(log.len());
    ensure!(seen[..both] == log[..both], "another log than before");
    let time = |line: &str| -> Result<OffsetDateTime> {
        let (time, _) = line.split_once(' ').context("no time")?;
        Ok(OffsetDateTime::parse(time, &Rfc3339)?)
    };
    let (Some(first), Some(last)) = (seen.get(log.len()), seen.last()) else {
        return Ok(());
    };
    let missing = time(last)? - time(first)?;
    eprintln!("{} lines of {missing} are missing", seen.len() - log.len());
    ensure!(
        missing < time::Duration::milliseconds(400),
        "{missing} are missing"
    );
    Ok(())
}

fn destroyed_by_hand() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let one = vch.docker.ok(&["create", BUSYBOX, "true"])?;
    let two = vch.docker.ok(&["create", BUSYBOX, "echo", "whole"])?;
    admin::destroy(&vch, &one)?;
    eventually("the container is gone", || {
        Ok(vch.docker.run(&["inspect", &one])?.code != 0)
    })?;
    equal(
        "the other",
        vch.docker.ok(&["start", "-a", &two])?,
        "whole".into(),
    )?;
    equal(
        "a new one",
        vch.docker.ok(&["run", "--rm", BUSYBOX, "echo", "new"])?,
        "new".into(),
    )
}

/// What an administrator takes out of the inventory is not an endpoint's to delete, and what he deletes of one container
/// takes nothing of others along.
fn files_by_hand() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let gone = |id: &str| {
        eventually("the container is gone", || {
            Ok(docker.run(&["inspect", id])?.code != 0)
        })
    };
    let kept = docker.ok(&["create", BUSYBOX, "true"])?;
    let folders = vch.vch_folder()?.join("containers");
    admin::unregister(&vch, &kept)?;
    gone(&kept)?;
    // What a create or rm has left is looked for once, at the start: this is what it takes away.
    let left = folders.join("f".repeat(64));
    std::fs::create_dir(&left)?;
    vch.kill("endpoint")?;
    vch.up()?;
    eventually("what was left is gone", || Ok(!left.exists()))?;
    for file in ["container.vmx", "leaf.vmdk"] {
        ensure!(folders.join(&kept).join(file).exists(), "{file} is deleted");
    }
    // Its folder alone: the disk of a volume is elsewhere, and was attached.
    let mount = ["-v", "kept-by-hand:/data", BUSYBOX, "sh", "-c"];
    let write = [&["run", "--rm"][..], &mount, &["echo whole > /data/file"]].concat();
    docker.ok(&write)?;
    let bare = docker.ok(&[&["create"][..], &mount, &["true"]].concat())?;
    std::fs::remove_dir_all(folders.join(&bare))?;
    docker.ok(&["rm", &bare])?;
    let read = [&["run", "--rm"][..], &mount, &["cat /data/file"]].concat();
    equal("the volume", docker.ok(&read)?, "whole".into())
}

/// An administrator's reset, of which vSphere shows no change of power, is an end; and a policy starts it again.
fn reset_by_hand() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let runs = |id: &str, times: usize| {
        eventually("it runs", || {
            let logs = docker.run(&["logs", id])?.text();
            let running = docker.inspect(id, "{{.State.Running}}")? == "true";
            Ok(running && logs == vec!["begun"; times].join("\n"))
        })
    };
    let script = ["sh", "-c", "echo begun; exec sleep 100000"];
    let plain = docker.ok(&[&["run", "-d", BUSYBOX][..], &script].concat())?;
    let again =
        docker.ok(&[&["run", "-d", "--restart", "always", BUSYBOX][..], &script].concat())?;
    for id in [&plain, &again] {
        runs(id, 1)?;
        // Until what was recorded is on the disk.
        docker.ok(&["exec", id, "sleep", "1"])?;
        admin::reset(&vch, id)?;
    }
    equal("exit code", docker.ok(&["wait", &plain])?, "137".into())?;
    equal(
        "state",
        docker.inspect(&plain, "{{.State.Status}} {{.State.Error}}")?,
        "exited the VM was reset while it ran".into(),
    )?;
    docker.ok(&["start", &plain])?;
    runs(&plain, 2)?;
    runs(&again, 2)?;
    equal(
        "restarts",
        docker.inspect(&again, "{{.RestartCount}}")?,
        "1".into(),
    )
}

/// An administrator's power-on is a start.
fn powered_on_by_hand() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let begun = "echo begun; exec sleep 100000";
    let runs = |id: &str, times: usize| {
        eventually("it runs anew", || {
            // They may be cut off with the VM that they are read from.
            let logs = docker.run(&["logs", id])?.text();
            let running = docker.inspect(id, "{{.State.Running}}")? == "true";
            Ok(running && logs == vec!["begun"; times].join("\n"))
        })
    };
    let created = docker.ok(&["create", BUSYBOX, "sh", "-c", begun])?;
    admin::power_on(&vch, &created)?;
    runs(&created, 1)?;
    let power_on = || {
        eventually("it can be powered on", || {
            Ok(admin::power_on(&vch, &created).is_ok())
        })
    };
    // Behind an end that nobody asked for.
    let since = docker.ok(&["info", "--format", "{{.SystemTime}}"])?;
    kill_process(vch.qemu(&created)?)?;
    eventually("its end is seen", || {
        Ok(docker.inspect(&created, "{{.State.Running}}")? == "false")
    })?;
    power_on()?;
    runs(&created, 2)?;
    let told = actions_since(docker, &format!("container={created}"), &since)?;
    equal("events", told, ["die", "start"].map(str::to_owned).to_vec())?;
    docker.ok(&["stop", "--time", "1", &created])?;
    // Behind this its end is written down.
    docker.ok(&["update", "--restart", "no", &created])?;
    vch.kill("endpoint")?;
    power_on()?;
    vch.up()?;
    runs(&created, 3)
}

/// The second boot: the endpoint and the VM are killed before its tether is there, so nobody was told how it went.
fn boot_cut_short() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let id = vch.docker.ok(&["create", BUSYBOX, "true"])?;
    vch.docker.ok(&["start", "-a", &id])?;
    eventually("its first VM is off", || Ok(vch.qemu(&id).is_err()))?;
    let start = vch.docker.spawn(&["start", &id])?;
    let begun = Instant::now();
    // Without a pause: its kernel does not take long.
    let qemu = loop {
        match vch.qemu(&id) {
            Err(error) if begun.elapsed() > Duration::from_secs(60) => return Err(error),
            Err(_) => {}
            Ok(qemu) => break qemu,
        }
    };
    let _frozen = Frozen::new(qemu)?;
    vch.kill("endpoint")?;
    kill_process(qemu)?;
    finish(start, "docker start".into(), &[], Duration::from_secs(60))?.exits(1)?;
    vch.up()?;
    eventually("its end is known", || {
        Ok(vch.docker.inspect(&id, "{{.State.Running}}")? == "false")
    })?;
    let state = vch
        .docker
        .inspect(&id, "{{.State.ExitCode}} {{.State.Error}}")?;
    holds(&state, "128 ")?;
    holds(&state, "went off before its tether reported")?;
    vch.docker.ok(&["start", "-a", &id]).map(drop)
}

/// What the first request of a removal does, and no more: an endpoint that was killed behind it, or a host that was.
fn removal_cut_short() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    for endpoint_is_away in [true, false] {
        let id = vch.docker.ok(&["create", BUSYBOX, "true"])?;
        if endpoint_is_away {
            vch.kill("endpoint")?;
        }
        admin::mark_removed(&vch, &id)?;
        vch.up()?;
        eventually("the container is gone", || {
            Ok(vch.docker.run(&["inspect", &id])?.code != 0)
        })?;
        let status = vch.status()?;
        let id_of_vch = status["vch"].as_str().context("the ID of the VCH")?;
        let folder = vch
            .datastore()
            .join("mooring")
            .join(id_of_vch)
            .join("containers")
            .join(&id);
        eventually("its folder is gone", || Ok(!folder.exists()))?;
    }
    equal(
        "a new one",
        vch.docker.ok(&["run", "--rm", BUSYBOX, "echo", "new"])?,
        "new".into(),
    )
}
