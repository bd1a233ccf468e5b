//! `docker run`: what a person sees first.

use crate::hosts::{BUSYBOX, Hosts, Link, equal, holds, on, on_both};
use anyhow::Result;
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::docker::Docker;

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = Vec::new();
    all.extend(on_both(hosts, "run::says_hello", says_hello));
    all.extend(on_both(
        hosts,
        "run::exit_code_is_the_process_s",
        exit_codes,
    ));
    all.extend(on_both(
        hosts,
        "run::stdin_reaches_the_process_and_its_end_too",
        stdin,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "run::a_missing_executable_is_127_with_docker_s_message",
        missing_executable,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "run::what_cannot_be_executed_is_126",
        not_executable,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "run::environment_folder_user_and_host_name",
        surroundings,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "run::stdout_and_stderr_are_apart",
        streams_apart,
    ));
    all.push(on(hosts, Link::Vsock, "run::a_tty_is_a_tty", tty));
    all.push(on(hosts, Link::Vsock, "run::rm_leaves_nothing", rm));
    all.push(on(
        hosts,
        Link::Vsock,
        "run::orphans_are_reaped_with_init",
        init,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "run::memory_and_cpus_are_the_vm_s",
        resources,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "run::ten_starts_at_once_all_run",
        ten_at_once,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "run::address_route_and_name_server",
        network,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "run::network_none_has_only_loopback",
        network_none,
    ));
    all
}

fn says_hello(docker: &Docker) -> Result<()> {
    let out = docker
        .run(&["run", "--rm", BUSYBOX, "echo", "hello"])?
        .ok()?;
    equal(
        "stdout",
        String::from_utf8_lossy(&out.stdout).into_owned(),
        "hello\n".into(),
    )?;
    equal("stderr", out.errors(), String::new())
}

fn exit_codes(docker: &Docker) -> Result<()> {
    docker
        .run(&["run", "--rm", BUSYBOX, "sh", "-c", "exit 42"])?
        .exits(42)?;
    docker
        .run(&[
            "run",
            "--rm",
            BUSYBOX,
            "sh",
            "-c",
            "sh -c 'kill -TERM $$'; exit $?",
        ])?
        .exits(143)?;
    Ok(())
}

fn stdin(docker: &Docker) -> Result<()> {
    let input: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    let out = docker
        .run_with_input(
            &[
                "run",
                "--rm",
                "-i",
                BUSYBOX,
                "sh",
                "-c",
                "cat; echo end >&2",
            ],
            &input,
        )?
        .ok()?;
    anyhow::ensure!(
        out.stdout == input,
        "{} of {} bytes came back, or others",
        out.stdout.len(),
        input.len()
    );
    equal("stderr", out.errors(), "end".into())
}

fn missing_executable(docker: &Docker) -> Result<()> {
    let out = docker
        .run(&["run", "--rm", BUSYBOX, "no-such-program"])?
        .exits(127)?;
    holds(
        &out.errors(),
        r#"exec: "no-such-program": executable file not found in $PATH"#,
    )
}

fn not_executable(docker: &Docker) -> Result<()> {
    let out = docker
        .run(&["run", "--rm", BUSYBOX, "/etc/passwd"])?
        .exits(126)?;
    holds(&out.errors(), "permission denied")?;
    docker.run(&["run", "--rm", BUSYBOX, "/etc"])?.exits(126)?;
    Ok(())
}

fn surroundings(docker: &Docker) -> Result<()> {
    let show = "echo $GREETING; pwd; id -u; id -g; id -G; hostname; echo $HOME; cat /etc/hostname; grep -c box1 /etc/hosts";
    let out = docker.ok(&[
        "run",
        "--rm",
        "-e",
        "GREETING=hello there",
        "-w",
        "/made/for/it",
        "-u",
        "app:staff",
        "--hostname",
        "box1",
        BUSYBOX,
        "sh",
        "-c",
        show,
    ])?;
    equal(
        "what the process sees",
        out.lines().collect::<Vec<_>>(),
        vec![
            "hello there",
            "/made/for/it",
            "1000",
            "50",
            "50",
            "box1",
            "/home",
            "box1",
            "1",
        ],
    )
}

fn streams_apart(docker: &Docker) -> Result<()> {
    let out = docker
        .run(&[
            "run",
            "--rm",
            BUSYBOX,
            "sh",
            "-c",
            "echo out; echo err >&2; echo out2; echo err2 >&2",
        ])?
        .ok()?;
    equal("stdout", out.text(), "out\nout2".into())?;
    equal("stderr", out.errors(), "err\nerr2".into())
}

fn tty(docker: &Docker) -> Result<()> {
    // Without a terminal of its own the client refuses -it, so start detached with a TTY and read the log.
    let name = "e2e-tty";
    let _gone = docker.container(name);
    docker.ok(&[
        "run",
        "-d",
        "-t",
        "--name",
        name,
        BUSYBOX,
        "sh",
        "-c",
        "tty; test -t 0 && test -t 1 && test -t 2 && echo all; echo err >&2",
    ])?;
    equal("exit code", docker.ok(&["wait", name])?, "0".into())?;
    let log = docker.run(&["logs", name])?.ok()?;
    equal(
        "lines",
        String::from_utf8_lossy(&log.stdout).into_owned(),
        "/dev/pts/0\r\nall\r\nerr\r\n".into(),
    )
}

fn rm(docker: &Docker) -> Result<()> {
    docker.ok(&["run", "--rm", "--name", "e2e-rm", BUSYBOX, "true"])?;
    tests::command::eventually("the container is removed", || {
        Ok(docker
            .ok(&["ps", "-aq", "--filter", "name=^e2e-rm$"])?
            .is_empty())
    })
}

fn init(docker: &Docker) -> Result<()> {
    // A shell that were process 1 itself would reap them, too.
    let script = "[ $$ != 1 ] && echo behind an init; sh -c 'sh -c \"sleep 0.2 & exit 0\"; exit 0'; sleep 1; ps -o stat,comm | grep -c Z";
    let out = docker.run(&["run", "--rm", "--init", BUSYBOX, "sh", "-c", script])?;
    equal("init and zombies", out.text(), "behind an init\n0".into())
}

fn resources(docker: &Docker) -> Result<()> {
    let out = docker.ok(&[
        "run",
        "--rm",
        "-m",
        "512m",
        "--cpus",
        "2",
        BUSYBOX,
        "sh",
        "-c",
        "nproc; awk '/MemTotal/ {print ($2 > 400000 && $2 < 530000)}' /proc/meminfo",
    ])?;
    equal("processors and memory", out, "2\n1".into())
}

fn ten_at_once(docker: &Docker) -> Result<()> {
    let mut children = Vec::new();
    for i in 0..10 {
        let word = format!("number-{i}");
        let child = docker.spawn(&["run", "--rm", "-m", "96m", BUSYBOX, "echo", &word])?;
        children.push((word, child));
    }
    for (word, child) in children {
        let out = tests::command::finish(
            child,
            format!("docker run … echo {word}"),
            b"",
            2 * tests::command::DEADLINE,
        )?
        .ok()?;
        equal("stdout", out.text(), word)?;
    }
    Ok(())
}

fn network(docker: &Docker) -> Result<()> {
    let name = "e2e-net";
    let _gone = docker.container(name);
    docker.ok(&["run", "-d", "--name", name, BUSYBOX, "sleep", "600"])?;
    let address = docker.inspect(name, "{{.NetworkSettings.IPAddress}}")?;
    anyhow::ensure!(
        address.starts_with("172.17."),
        "address {address:?} is not of the default network"
    );
    let shown = docker.ok(&[
        "exec",
        name,
        "sh",
        "-c",
        "ip -4 addr show eth0; ip route; cat /etc/resolv.conf",
    ])?;
    holds(&shown, &format!("{address}/16"))?;
    holds(&shown, "default via 172.17.0.1")?;
    holds(&shown, "nameserver ")?;
    // A network without IPv6 has none between its members either, not even by link-local addresses.
    let six = ["exec", name, "ip", "-6", "addr", "show", "eth0"];
    equal("IPv6 addresses", docker.ok(&six)?, String::new())?;
    // The gateway answers at least ARP: the neighbour entry becomes reachable.
    docker.ok(&["exec", name, "ping", "-c", "1", "-W", "30", "172.17.0.1"])?;
    Ok(())
}

fn network_none(docker: &Docker) -> Result<()> {
    let out = docker.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        BUSYBOX,
        "sh",
        "-c",
        "ls /sys/class/net; ip -4 addr show lo",
    ])?;
    equal("interfaces", out.lines().next().unwrap_or_default(), "lo")?;
    holds(&out, "127.0.0.1/8")
}
