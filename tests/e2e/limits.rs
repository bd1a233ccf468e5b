//! What bounds a container's processes: ulimits, sysctls, privileges, processes; and file systems in memory.

use crate::hosts::{BUSYBOX, Hosts, Link, equal, holds, on};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::docker::Docker;

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    vec![
        on(
            hosts,
            Link::Vsock,
            "limits::reach_the_process_and_its_execs",
            limits,
        ),
        on(
            hosts,
            Link::Vsock,
            "limits::what_is_not_the_container_s_own_is_refused",
            refused,
        ),
        on(
            hosts,
            Link::Vsock,
            "limits::update_applies_what_can_change",
            update,
        ),
        on(hosts, Link::Vsock, "limits::tmpfs_by_both_options", tmpfs),
        on(
            hosts,
            Link::Vsock,
            "limits::seccomp_profiles_and_logs_are_as_asked_for",
            profiles_and_logs,
        ),
    ]
}

fn limits(docker: &Docker) -> Result<()> {
    let options = [
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "core=0",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "--sysctl",
        "kernel.shmmax=12345",
        "--security-opt",
        "no-new-privileges",
        "--oom-score-adj",
        "321",
        "--pids-limit",
        "30",
    ];
    let show = "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax; grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj; cat /sys/fs/cgroup/pids.max";
    let is = "100\n200\n0\n1\n12345\nNoNewPrivs:\t1\n321\n30";
    let script = format!("{show}; exec sleep 3600");
    let id = docker.ok(&[
        &["run", "-d"],
        &options[..],
        &[BUSYBOX, "sh", "-c", &script],
    ]
    .concat())?;
    let _gone = docker.container(&id);
    crate::hosts::logs_come_to_hold(docker, &id, is)?;
    equal(
        "of an exec",
        docker.ok(&["exec", &id, "sh", "-c", show])?,
        is.into(),
    )?;
    // Docker's defaults.
    let plain = "ulimit -Sn; ulimit -Hn; ulimit -u; ulimit -c; grep NoNewPrivs /proc/self/status; cat /proc/self/oom_score_adj /sys/fs/cgroup/pids.max";
    equal(
        "defaults",
        docker.ok(&["run", "--rm", BUSYBOX, "sh", "-c", plain])?,
        "1048576\n1048576\nunlimited\nunlimited\nNoNewPrivs:\t0\n0\nmax".into(),
    )?;
    // More processes than there may be.
    let out = docker.run(&[
        "run",
        "--rm",
        "--pids-limit",
        "5",
        BUSYBOX,
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8; do sleep 60 & done",
    ])?;
    holds(&out.errors(), "can't fork")
}

fn refused(docker: &Docker) -> Result<()> {
    for (options, code, words) in [
        (
            &["--sysctl", "kernel.core_pattern=x"][..],
            125,
            "sysctl 'kernel.core_pattern=x' is not allowed",
        ),
        (
            &["--log-opt", "what=1"],
            125,
            "unknown log opt 'what' for json-file log driver",
        ),
        (
            &["--security-opt", "what=ever"],
            125,
            "invalid --security-opt",
        ),
        (
            &["--sysctl", "net.nothing=1"],
            127,
            "write sysctl key net.nothing: open /proc/sys/net/nothing: no such file or directory",
        ),
        (
            &["--ulimit", "nofile=2000000"],
            125,
            "error setting rlimit type 7: operation not permitted",
        ),
        (&["--tmpfs", "/x:what"], 125, "nvalid tmpfs option"),
        (&["--tmpfs", "/x:dev"], 125, "is not supported"),
        (&["--tmpfs", "/proc/x"], 125, "inside /proc"),
        (
            &["--mount", "type=bind,source=/etc,target=/x"],
            125,
            "is not supported",
        ),
    ] {
        let out = docker
            .run(&[&["run", "--rm"], options, &[BUSYBOX, "true"]].concat())?
            .exits(code)?;
        holds(&out.errors(), words)?;
    }
    Ok(())
}

fn tmpfs(docker: &Docker) -> Result<()> {
    let options = [
        "--read-only",
        "--tmpfs",
        "/a",
        "--tmpfs",
        "/b/c:size=64k,mode=0750,uid=5,gid=6,exec",
        "--mount",
        "type=tmpfs,destination=/d,tmpfs-size=1m,tmpfs-mode=0700",
    ];
    let script = "exec 2>&1; grep ' /[abd]' /proc/mounts; stat -c '%a %u %g' /a /b/c /d; cp /bin/busybox /a/true && /a/true; echo $?; head -c 100000 /dev/zero > /b/c/x; stat -c %s /b/c/x; exec sleep 3600";
    let id = docker.ok(&[&["run", "-d"], &options[..], &[BUSYBOX, "sh", "-c", script]].concat())?;
    let _gone = docker.container(&id);
    crate::hosts::logs_come_to_hold(docker, &id, "\n65536")?;
    let log = docker.run(&["logs", &id])?.ok()?;
    let mounts = log.text();
    for (path, holds, lacks) in [
        ("/a", "nodev,noexec", "size"),
        ("/b/c", "size=64k,mode=750,uid=5,gid=6", "noexec"),
        ("/d", "size=1024k,mode=700", "\0"),
    ] {
        let line = mounts
            .lines()
            .find(|l| l.starts_with(&format!("tmpfs {path} ")))
            .unwrap_or_default();
        ensure!(
            line.contains(holds) && line.contains("nodev") && !line.contains(lacks),
            "{path}: {mounts}"
        );
    }
    ensure!(
        mounts.contains("1777 0 0\n750 5 6\n700 0 0\nsh: /a/true: Permission denied\n126"),
        "{mounts}"
    );
    equal(
        "Mounts",
        docker.inspect(
            &id,
            "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}{{end}}",
        )?,
        "tmpfs /d true".into(),
    )
}

fn update(docker: &Docker) -> Result<()> {
    let id = docker.ok(&["run", "-d", "-m", "96m", BUSYBOX, "sleep", "3600"])?;
    let _gone = docker.container(&id);
    docker.ok(&["update", "--pids-limit", "17", &id])?;
    let pids = || docker.ok(&["exec", &id, "cat", "/sys/fs/cgroup/pids.max"]);
    equal("at once", pids()?, "17".into())?;
    for option in ["--memory=128m", "--cpus=2", "--cpus=0.5"] {
        let out = docker.run(&["update", option, &id])?.exits(1)?;
        holds(
            &out.errors(),
            "cannot change while it is on: stop the container first",
        )?;
    }
    let out = docker
        .run(&["update", "--cpu-shares", "5", &id])?
        .exits(1)?;
    holds(&out.errors(), "--cpu-shares is not supported")?;
    // The one it has is no change.
    docker.ok(&["update", "--memory", "96m", &id])?;
    docker.ok(&["stop", "-t", "0", &id])?;
    docker.ok(&["update", "--memory", "192m", "--cpus", "1.5", &id])?;
    docker.ok(&["start", &id])?;
    equal("at the next start", pids()?, "17".into())?;
    equal(
        "CPUs",
        docker.ok(&["exec", &id, "sh", "-c", "nproc; cat /sys/fs/cgroup/cpu.max"])?,
        "2\n150000 100000".into(),
    )?;
    let total = docker.ok(&["exec", &id, "grep", "MemTotal", "/proc/meminfo"])?;
    let kib: Option<u32> = total.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    ensure!(
        kib.is_some_and(|kib| kib > 140_000 && kib < 192 * 1024),
        "{total}"
    );
    equal(
        "inspect",
        docker.inspect(
            &id,
            "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}",
        )?,
        format!("{} 1500000000 17", 192 << 20),
    )
}

/// `seccomp=unconfined` and `--log-driver none`; a profile of one's own and a small log.
fn profiles_and_logs(docker: &Docker) -> Result<()> {
    let script = "unshare -U true && echo free; ls /.dockerenv";
    let options = [
        "--security-opt",
        "seccomp=unconfined",
        "--log-driver",
        "none",
    ];
    let args = [
        &["run", "--name", "open"],
        &options[..],
        &[BUSYBOX, "sh", "-c", script],
    ];
    let gone = docker.container("open");
    equal(
        "output",
        docker.ok(&args.concat())?,
        "free\n/.dockerenv".into(),
    )?;
    let out = docker.run(&["logs", "open"])?.exits(1)?;
    holds(
        &out.errors(),
        "configured logging driver does not support reading",
    )?;
    // What Docker makes is no change by the container.
    equal("diff", docker.ok(&["diff", "open"])?, String::new())?;
    drop(gone);

    let folder = tempfile::tempdir()?;
    let profile = folder.path().join("profile.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    std::fs::write(&profile, text)?;
    let given = format!("seccomp={}", profile.display());
    // Six megabytes, no line of which is another's.
    let script = "echo first; mkdir /x 2>&1; seq 900000";
    let options = ["--security-opt", &given, "--log-opt", "max-size=1m"];
    let args = [
        &["run", "--name", "small"],
        &options[..],
        &[BUSYBOX, "sh", "-c", script],
    ];
    let gone = docker.container("small");
    let all = docker.ok(&args.concat())?;
    holds(&all, "can't create directory '/x': No space left on device")?;
    holds(&all, "first")?;
    let kept = docker.ok(&["logs", "small"])?;
    ensure!(
        kept.len() < 5 << 20 && kept.len() > 4 << 20 && all.ends_with(&kept),
        "{} of {} bytes are in the log",
        kept.len(),
        all.len()
    );
    equal(
        "options",
        docker.inspect("small", "{{json .HostConfig.LogConfig}}")?,
        r#"{"Type":"json-file","Config":{"max-size":"1m"}}"#.into(),
    )?;
    drop(gone);

    // Each start takes a piece of the journal of its own; a small log outlives several nevertheless.
    let _gone = docker.container("starts");
    let args = ["run", "--name", "starts", "--log-opt", "max-size=1m"];
    docker.ok(&[&args[..], &[BUSYBOX, "echo", "once"]].concat())?;
    for _ in 0..5 {
        docker.ok(&["start", "-a", "starts"])?;
    }
    equal(
        "log of six starts",
        docker.ok(&["logs", "starts"])?,
        ["once"; 6].join("\n"),
    )
}
