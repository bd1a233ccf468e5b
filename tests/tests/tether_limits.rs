//! What a tether VM gives each run of its container, and what it keeps for itself.

use anyhow::Result;
use tests::guest::build::Guest;
use tests::guest::disk::{Disk, busybox};
use tests::guest::peer::{Keys, Output, Peer};
use tests::guest::vm::{Vm, config, process};
use wire::config::{GuestConfig, Process, Restart};
use wire::limits::Tmpfs;
use wire::message::{Reply, SessionId, ToHost};
use wire::restart::RestartPolicy;

fn sh(script: &str) -> Process {
    process(&["sh", "-c", script])
}

/// A VM on the trimmed kernel, whose container waits to be started.
async fn up(
    folder: &tempfile::TempDir,
    first: Process,
    change: impl FnOnce(&mut GuestConfig),
) -> Result<Option<(Vm, Peer)>> {
    let Some(guest) = Guest::fast()? else {
        return Ok(None);
    };
    let layers = [busybox(&folder.path().join("layer"))?];
    let disk = Disk::make(&folder.path().join("disk"), &layers, 64, 16)?;
    let mut config = config(&disk, first);
    change(&mut config);
    let mut vm = Vm::boot(folder.path(), &guest, &disk, &config, &[])?;
    let peer = Peer::accept(vm.connection().await?, &Keys::fresh()?).await?;
    Ok(Some((vm, peer)))
}

fn started(reply: &Reply) {
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
}

/// A run that its policy starts again finds no IPC object of the last one, and its files as they were made.
#[tokio::test]
async fn a_next_run_has_ipc_and_files_of_its_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = "[ -e /ran ] && exec sleep 1000; touch /ran /dev/mqueue/q; [ -e /dev/mqueue/q ] || exit 4; \
        echo changed > /etc/hosts; echo changed > /etc/hostname; echo changed > /etc/resolv.conf; exit 3";
    let again = |config: &mut GuestConfig| {
        config.restart = Restart {
            policy: RestartPolicy::Always,
            count: 0,
        };
        config.dns = vec!["10.9.9.9".into()];
        let set = [("kernel.shmmni", "77"), ("fs.mqueue.msg_max", "21")];
        config.limits.sysctls = set.map(|(k, v)| (k.into(), v.into())).into();
    };
    let Some((mut vm, mut peer)) = up(&folder, sh(script), again).await? else {
        return Ok(());
    };
    started(&peer.start().await?);
    assert_eq!(peer.restarting().await?.code, 3);
    while !matches!(peer.event().await?, ToHost::Restarted { .. }) {}
    let look = "ls /dev/mqueue; cat /etc/hostname /etc/resolv.conf; grep -c localhost /etc/hosts; \
        cat /proc/sys/kernel/shmmni /proc/sys/fs/mqueue/msg_max; \
        [ $(readlink /proc/self/ns/ipc) = $(readlink /proc/1/ns/ipc) ] && echo together";
    let (out, _) = peer.run(sh(look)).await?;
    assert_eq!(
        out.text(),
        "box\nnameserver 10.9.9.9\n2\n77\n21\ntogether\n",
        "{}",
        vm.console()
    );
    vm.kill();
    Ok(())
}

#[tokio::test]
async fn a_tmpfs_must_not_hide_what_is_mounted_in_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let over = |config: &mut GuestConfig| {
        let one = |path: &str| Tmpfs {
            path: path.into(),
            flags: 0,
            data: "size=64k".into(),
        };
        config.tmpfs = ["/a/b", "/etc", "/a"].map(one).into();
    };
    let script = "ls /etc; cat /etc/hostname; ls /a; exit 5";
    let Some((_vm, mut peer)) = up(&folder, sh(script), over).await? else {
        return Ok(());
    };
    let main = peer.attach(SessionId::CONTAINER, false).await?;
    started(&peer.start().await?);
    let out = main.collect().await?;
    assert_eq!(out.text(), "hostname\nhosts\nresolv.conf\nbox\nb\n");
    Ok(())
}

/// Four descriptors each: more than the 1,024 that the first process of a VM begins with.
#[tokio::test]
async fn more_execs_at_once_than_a_thousand_descriptors() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some((mut vm, mut peer)) = up(&folder, sh("exec sleep 1000"), |_| {}).await? else {
        return Ok(());
    };
    started(&peer.start().await?);
    let mut all = Vec::new();
    for number in 0..270 {
        let cat = Process {
            stdin: true,
            ..process(&["cat"])
        };
        let (reply, _, attached) = peer.exec(cat).await?;
        let fine = matches!(reply, Reply::Started { .. });
        assert!(fine, "{number}: {reply:?} {}", vm.console());
        all.push(attached);
    }
    let (out, _) = peer.run(sh("ulimit -n; ulimit -Hn")).await?;
    assert_eq!(out.text(), "1048576\n1048576\n");
    let mut last = all.pop().expect("there are some");
    last.write(b"still\n").await?;
    last.wait_for(&mut Output::default(), "still\n").await?;
    vm.kill();
    Ok(())
}

#[tokio::test]
async fn a_container_with_all_its_processes_must_not_keep_an_exec_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let few = |config: &mut GuestConfig| config.limits.pids = 5;
    let script =
        "(while :; do sleep 1000 & done) 2>/dev/null; sleep 1000 & echo full; exec sleep 1000";
    let Some((mut vm, mut peer)) = up(&folder, sh(script), few).await? else {
        return Ok(());
    };
    let mut main = peer.attach(SessionId::CONTAINER, false).await?;
    started(&peer.start().await?);
    main.wait_for(&mut Output::default(), "full\n").await?;
    // What is let in has no more than the others.
    let (out, _) = peer.run(sh("exec 2>&1; sleep 1000 &")).await?;
    assert!(out.text().contains("can't fork"), "{:?}", out.text());
    let look = "read now < /sys/fs/cgroup/pids.current; read most < /sys/fs/cgroup/pids.max; echo $most; [ $now -gt 5 ] && echo over";
    let (out, _) = peer.run(sh(look)).await?;
    assert_eq!(out.text(), "5\nover\n", "{}", vm.console());
    vm.kill();
    Ok(())
}

/// As profiles are that name what they allow: what runc needs, and the program. With no_new_privs, the program alone.
#[tokio::test]
async fn a_profile_that_allows_what_runc_needs_starts_a_program() -> Result<()> {
    const PROGRAM: &str = "read write open close stat fstat lstat lseek mmap mprotect munmap brk rt_sigaction \
        rt_sigprocmask rt_sigreturn ioctl access getpid getppid execve exit exit_group wait4 fcntl getcwd getuid getgid \
        geteuid getegid arch_prctl newfstatat openat set_tid_address set_robust_list prlimit64 getrandom readlink uname \
        rseq futex poll dup2";
    const RUNC: &str = " prctl capset setgroups setgid setuid chdir";
    for (no_new_privileges, names) in [(false, format!("{PROGRAM}{RUNC}")), (true, PROGRAM.into())]
    {
        let folder = tempfile::tempdir()?;
        let names: Vec<&str> = names.split_whitespace().collect();
        let names = format!("{names:?}");
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],
                "syscalls":[{{"names":{names},"action":"SCMP_ACT_ALLOW"}}]}}"#
        );
        let program = seccomp::custom(&json, &seccomp::held(&[], &[]))?;
        let confined = |config: &mut GuestConfig| {
            config.seccomp = seccomp::to_text(&program);
            config.limits.no_new_privileges = no_new_privileges;
            config.process.user = "app:audio".into();
            config.process.cwd = "/tmp".into();
        };
        let look = "while read key real effective saved fs; do case $key in Uid:|Gid:) \
            echo $key $real $effective $saved $fs;; esac; done < /proc/self/status";
        let Some((vm, mut peer)) = up(&folder, sh(look), confined).await? else {
            return Ok(());
        };
        let main = peer.attach(SessionId::CONTAINER, false).await?;
        let reply = peer.start().await?;
        let out = main.collect().await?;
        assert_eq!(
            out.text(),
            "Uid: 1000 1000 1000 1000\nGid: 29 29 29 29\n",
            "{no_new_privileges} {reply:?} {}",
            vm.console()
        );
    }
    Ok(())
}
