//! A tether VM, driven as the endpoint drives it.

use anyhow::Result;
use tests::guest::build::Guest;
use tests::guest::disk::{Disk, Layer, busybox, ext4};
use tests::guest::peer::{Attached, Keys, Output, Peer};
use tests::guest::vm::{Vm, config, process};
use wire::config::{GuestConfig, Process, Restart};
use wire::limits::Tmpfs;
use wire::message::{Reply, SessionId, ToGuest, ToHost};
use wire::restart::RestartPolicy;

/// A disk with the busybox layer and what boots it.
struct Bench {
    folder: tempfile::TempDir,
    guest: Guest,
    disk: Disk,
}

/// The trimmed kernel, where it is there.
fn bench() -> Result<Option<Bench>> {
    Guest::fast()?.map(Bench::new).transpose()
}

/// Both kernels, as far as they are there.
fn on_each_kernel() -> Result<Vec<Bench>> {
    let each = Guest::each()?.into_iter();
    each.map(|(_, guest)| Bench::new(guest)).collect()
}

impl Bench {
    fn new(guest: Guest) -> Result<Bench> {
        let folder = tempfile::tempdir()?;
        let layer = busybox(&folder.path().join("layer"))?;
        let disk = Disk::make(&folder.path().join("disk"), &[layer], 64, 32)?;
        Ok(Bench {
            folder,
            guest,
            disk,
        })
    }

    async fn boot(&self, config: &GuestConfig, keys: &Keys) -> Result<(Vm, Peer)> {
        let mut vm = Vm::boot(self.folder.path(), &self.guest, &self.disk, config, &[])?;
        let peer = Peer::accept(vm.connection().await?, keys).await?;
        Ok((vm, peer))
    }
}

fn sh(script: &str) -> Process {
    process(&["sh", "-c", script])
}

fn started(reply: &Reply) {
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
}

#[tokio::test]
async fn output_exit_code_and_power_off() -> Result<()> {
    for bench in on_each_kernel()? {
        let config = config(&bench.disk, sh("echo hello; echo error >&2; exit 7"));
        let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
        let attached = peer.attach(SessionId::CONTAINER, false).await?;
        let reply = peer.start().await?;
        assert!(matches!(reply, Reply::Started { pid: 1, .. }), "{reply:?}");
        let output = attached.collect().await?;
        assert_eq!(
            (
                output.text().as_str(),
                output.stderr.as_slice(),
                output.left
            ),
            ("hello\n", &b"error\n"[..], 0)
        );
        assert_eq!(peer.exit(SessionId::CONTAINER).await?.code, 7);
        peer.goodbye().await?;
        vm.off().await?;
    }
    Ok(())
}

/// Everything that can be asked of a container that runs, in one boot.
#[tokio::test]
async fn execs_beside_a_container_that_runs() -> Result<()> {
    for bench in on_each_kernel()? {
        let script = "trap 'echo got-usr1' USR1; trap 'echo got-rt' 40; trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 1 & wait $!; done";
        let mut config = config(&bench.disk, sh(script));
        config.hosts = vec![("10.1.2.3".into(), vec!["db".into()])];
        config.dns = vec!["10.9.9.9".into()];
        config.process.cwd = "/made/for/it".into();
        let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
        let mut main = peer.attach(SessionId::CONTAINER, false).await?;
        let mut seen = Output::default();
        started(&peer.start().await?);
        main.wait_for(&mut seen, "up\n").await?;

        let text = |out: &Output| out.text().trim().to_owned();
        // Users, groups, HOME, working directory.
        let who = Process {
            user: "app".into(),
            cwd: "/tmp".into(),
            ..sh("id; echo $HOME; pwd; umask; ulimit -n; cat /proc/self/oom_score_adj")
        };
        let (out, code) = peer.run(who).await?;
        assert_eq!(
            text(&out),
            "uid=1000(app) gid=1001(app) groups=29(audio),1001(app)\n/home/app\n/tmp\n0022\n1048576\n0"
        );
        assert_eq!(code, 0);
        let numbers = Process {
            user: "4242:77".into(),
            groups: vec!["audio".into()],
            ..sh("id; readlink /proc/1/cwd || echo denied")
        };
        assert_eq!(
            text(&peer.run(numbers).await?.0),
            "uid=4242 gid=77 groups=29(audio),77\ndenied"
        );
        assert_eq!(
            text(&peer.run(sh("readlink /proc/1/cwd")).await?.0),
            "/made/for/it"
        );
        // Exit codes.
        assert_eq!(peer.run(sh("exit 42")).await?.1, 42);
        assert_eq!(peer.run(sh("kill -9 $$")).await?.1, 137);
        // What cannot be started.
        for (args, code, message) in [
            (
                vec!["nope"],
                127,
                "exec: \"nope\": executable file not found in $PATH",
            ),
            (
                vec!["/no/pe"],
                127,
                "exec: \"/no/pe\": stat /no/pe: no such file or directory",
            ),
            (
                vec!["/etc/plain"],
                126,
                "exec: \"/etc/plain\": permission denied",
            ),
            (vec!["/etc"], 126, "exec: \"/etc\": is a directory"),
        ] {
            let (reply, _, attached) = peer.exec(process(&args)).await?;
            assert_eq!(
                reply,
                Reply::StartFailed {
                    code,
                    message: message.into()
                }
            );
            assert_eq!(attached.collect().await?, Output::default());
        }
        let (reply, ..) = peer
            .exec(Process {
                user: "ghost".into(),
                ..sh("true")
            })
            .await?;
        assert_eq!(
            reply,
            Reply::StartFailed {
                code: 125,
                message: "unable to find user ghost: no matching entries in passwd file".into()
            }
        );
        // stdin and its end.
        let (reply, session, mut cat) = peer
            .exec(Process {
                stdin: true,
                ..sh("cat; echo end")
            })
            .await?;
        started(&reply);
        cat.write(b"one\n").await?;
        let mut out = Output::default();
        cat.wait_for(&mut out, "one\n").await?;
        cat.stdin.end(wire::message::Channel::Stdin, 0)?;
        cat.wait_for(&mut out, "end\n").await?;
        assert_eq!(peer.exit(session).await?.code, 0);
        // A terminal, its size, its change, Ctrl-C.
        let shell = Process {
            tty: true,
            stdin: true,
            size: Some((33, 101)),
            ..sh(
                "stty size; tty; echo $TERM; trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 1 & wait $!; done",
            )
        };
        let (reply, session, mut tty) = peer.exec(shell).await?;
        started(&reply);
        let mut out = Output::default();
        tty.wait_for(&mut out, "ready\r\n").await?;
        assert!(
            out.text().starts_with("33 101\r\n/dev/pts/0\r\nxterm\r\n"),
            "{:?}",
            out.text()
        );
        let resized = peer
            .request(|request| ToGuest::Resize {
                request,
                session,
                rows: 40,
                cols: 90,
            })
            .await?;
        assert_eq!(resized, Reply::Done);
        tty.wait_for(&mut out, "40 90\r\n").await?;
        assert_eq!(peer.exit(session).await?.code, 5);
        let (_, session, mut tty) = peer
            .exec(Process {
                tty: true,
                stdin: true,
                ..sh("echo go; sleep 1000")
            })
            .await?;
        let mut out = Output::default();
        tty.wait_for(&mut out, "go").await?;
        tty.write(&[3]).await?;
        assert_eq!(peer.exit(session).await?.code, 130);
        // A grandchild that keeps stdout open delays neither exit nor end.
        let (out, code) = peer.run(sh("sleep 1000 & echo quick")).await?;
        assert_eq!((text(&out).as_str(), code), ("quick", 0));
        // Files.
        let (out, _) = peer.run(sh("hostname; cat /etc/hostname; grep db /etc/hosts; cat /etc/resolv.conf; df -P /dev/shm | tail -1 | awk '{print $2}'")).await?;
        assert_eq!(
            text(&out),
            "box\nbox\n10.1.2.3\tdb\nnameserver 10.9.9.9\n65536"
        );
        // A burst, every byte once, from each channel.
        let (reply, session, burst) = peer.exec(sh("seq 1 40000; seq 1 20000 >&2")).await?;
        started(&reply);
        let lines = |n: u32| {
            (1..=n)
                .map(|i| format!("{i}\n"))
                .collect::<String>()
                .into_bytes()
        };
        // The reader is paused until the process has ended, where it can; then it takes all.
        let out = burst.collect().await?;
        assert!(
            out.stdout == lines(40_000) && out.stderr == lines(20_000) && out.left == 0,
            "{} {}",
            out.stdout.len(),
            out.stderr.len()
        );
        assert_eq!(peer.exit(session).await?.code, 0);
        // Processes.
        match peer
            .request(|request| ToGuest::Processes { request })
            .await?
        {
            Reply::Processes(rows) => {
                let first = rows.iter().find(|r| r.pid == 1).expect("pid 1 is listed");
                assert!(
                    first.user == "root"
                        && first.ppid == 0
                        && first.command.starts_with("sh -c trap"),
                    "{first:?}"
                );
                assert!(rows.iter().any(|r| r.command == "sleep 1000"), "{rows:?}");
            }
            other => panic!("{other:?}"),
        }
        // Signals by number, real-time ones too.
        for (signal, word) in [(10, "got-usr1"), (40, "got-rt")] {
            let reply = peer
                .request(|request| ToGuest::Signal {
                    request,
                    session: SessionId::CONTAINER,
                    signal,
                })
                .await?;
            assert_eq!(reply, Reply::Done);
            main.wait_for(&mut seen, word).await?;
        }
        // The power button asks, the process ends with its own words, the journal has them.
        vm.press_power_button().await?;
        let mut rest = Attached::collect(main).await?;
        rest.stdout.splice(0..0, seen.stdout);
        assert!(rest.text().ends_with("bye\n"), "{:?}", rest.text());
        assert_eq!(peer.exit(SessionId::CONTAINER).await?.code, 3);
        peer.goodbye().await?;
        vm.off().await?;
    }
    Ok(())
}

/// A lost endpoint loses nothing; the next session finds the container and its logs.
#[tokio::test]
async fn a_lost_link_is_dialled_again_and_nothing_is_lost() -> Result<()> {
    let Some(bench) = bench()? else { return Ok(()) };
    let mut config = config(
        &bench.disk,
        sh(
            "echo first; read line; echo $line; seq 1 30000; exec 2>&1; echo last >&2; read more; echo $more; exit 9",
        ),
    );
    config.process.stdin = true;
    config.init = true;
    let keys = Keys::fresh()?;
    let (mut vm, mut peer) = bench.boot(&config, &keys).await?;
    let mut attached = peer.attach(SessionId::CONTAINER, true).await?;
    started(&peer.start().await?);
    let mut seen = Output::default();
    attached.wait_for(&mut seen, "first\n").await?;
    attached.write(b"go\n").await?;
    // In the middle of the burst.
    attached.wait_for(&mut seen, "go\n").await?;
    peer.hang_up();
    drop(attached);

    let mut peer = Peer::accept(vm.connection().await?, &keys).await?;
    assert_eq!((peer.container.pid, peer.container.exit), (1, None));
    started(&peer.start().await?);
    let mut attached = peer.attach(SessionId::CONTAINER, true).await?;
    attached.write(b"end\n").await?;
    // Followed to the exit.
    let logs = peer.logs(None, true).await?;
    let expected = format!(
        "first\ngo\n{}last\nend\n",
        (1..=30_000).map(|i| format!("{i}\n")).collect::<String>()
    );
    assert!(
        logs.text() == expected,
        "{} of {} bytes",
        logs.stdout.len(),
        expected.len()
    );
    assert_eq!(peer.exit(SessionId::CONTAINER).await?.code, 9);
    peer.goodbye().await?;
    vm.off().await?;
    // The journal on the disk ends with the exit record.
    let mut reader = journal::Reader::open(bench.disk.journal()?)?;
    assert_eq!(reader.exit()?.map(|e| e.code), Some(9));
    Ok(())
}

/// A container that ends once with 3, is started again, and then stays. It takes its time to be prepared: what comes
/// between two runs comes while the next one is on its way.
fn restless(disk: &Disk, boot: u64) -> GuestConfig {
    let script = format!("[ -e /ran-{boot} ] && exec sleep 1000; touch /ran-{boot}; exit 3");
    let mut config = config(disk, sh(&script));
    config.boot = boot;
    config.restart = Restart {
        policy: RestartPolicy::Always,
        count: 0,
    };
    let one = |n: u32| Tmpfs {
        path: format!("/t/{n}"),
        flags: 0,
        data: "size=4k".into(),
    };
    config.tmpfs = (0..1000).map(one).collect();
    config
}

/// Told to stay down while its next run is prepared, the container's last end is its end.
#[tokio::test]
async fn a_container_that_is_to_stay_down_must_not_run_again() -> Result<()> {
    let Some(bench) = bench()? else { return Ok(()) };
    type Ask = fn(u32) -> ToGuest;
    let asks: [Ask; 2] = [
        |request| ToGuest::KeepDown { request },
        |request| ToGuest::Shutdown { request },
    ];
    for (boot, ask) in (1..).zip(asks) {
        let config = restless(&bench.disk, boot);
        let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
        started(&peer.start().await?);
        let last = peer.restarting().await?;
        assert_eq!(last.code, 3);
        // Its next first process is there: it is being prepared.
        loop {
            let reply = peer.request(|request| ToGuest::Table { request }).await?;
            match reply {
                Reply::Table(rows) if rows.is_empty() => {}
                Reply::Table(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(peer.request(ask).await?, Reply::Done);
        let told = peer.told();
        if told.iter().any(|m| matches!(m, ToHost::Restarted { .. })) {
            eprintln!("skipped: its next run had begun before it was told");
            vm.kill();
            continue;
        }
        // No signal was sent, and none is needed.
        let end = told.iter().find_map(|m| match m {
            ToHost::Exit { status, .. } => Some(*status),
            _ => None,
        });
        let end = match end {
            Some(end) => end,
            None => peer.exit(SessionId::CONTAINER).await?,
        };
        assert_eq!(end, last);
        if !told.contains(&ToHost::Goodbye) {
            peer.goodbye().await?;
        }
        vm.off().await?;
        let exit = journal::Reader::open(bench.disk.journal()?)?.exit()?;
        assert_eq!(exit.map(|exit| exit.code), Some(3));
    }
    Ok(())
}

/// A link that comes between two runs is told of the last one, which has not ended for good, and then of the next.
#[tokio::test]
async fn a_link_that_comes_between_two_runs_is_told_of_the_last_one() -> Result<()> {
    let Some(bench) = bench()? else { return Ok(()) };
    let keys = Keys::fresh()?;
    let (mut vm, mut peer) = bench.boot(&restless(&bench.disk, 1), &keys).await?;
    let Reply::Started { at, .. } = peer.start().await? else {
        panic!("it is not started");
    };
    let last = peer.restarting().await?;
    peer.hang_up();

    let mut peer = Peer::accept(vm.connection().await?, &keys).await?;
    let (mut started_at, exit) = (peer.container.started, peer.container.exit);
    assert_eq!(exit, None);
    let ToHost::Life(life) = peer.event().await? else {
        panic!("no account");
    };
    // Where the link took longer than the pause and what follows, it finds the next run.
    if started_at == at {
        assert_eq!((life.waiting, life.restarts), (Some(last), 1));
        let told = peer.event().await?;
        let ToHost::Restarted { at, .. } = told else {
            panic!("{told:?}");
        };
        started_at = at;
    }
    assert!(started_at > at, "{started_at} {at}");
    let Reply::Started { at, .. } = peer.start().await? else {
        panic!("it does not run");
    };
    assert_eq!(at, started_at);
    let reply = peer
        .request(|request| ToGuest::Shutdown { request })
        .await?;
    assert_eq!(reply, Reply::Done);
    assert_eq!(peer.exit(SessionId::CONTAINER).await?.code, 137);
    peer.goodbye().await?;
    vm.off().await
}

/// A start that is repeated before the first one is answered is told of the same process.
#[tokio::test]
async fn two_starts_at_once_are_answered_alike() -> Result<()> {
    let Some(bench) = bench()? else { return Ok(()) };
    let config = config(&bench.disk, sh("exec sleep 1000"));
    let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
    let first = peer.ask(|request| ToGuest::Start { request }).await?;
    let second = peer.ask(|request| ToGuest::Start { request }).await?;
    let (first, second) = (first.await?, second.await?);
    started(&first);
    assert_eq!(first, second);
    vm.kill();
    Ok(())
}

/// More processes than an answer holds: as many are listed as fit into one.
#[tokio::test]
async fn a_list_of_processes_that_is_too_long_is_cut() -> Result<()> {
    let Some(bench) = bench()? else { return Ok(()) };
    // Each is there, with its arguments, once it has spoken.
    let script = "long=$(head -c 4000 /dev/zero | tr '\\0' x); n=0; while [ $n -lt 150 ]; do sh -c 'echo up; kill -STOP $$' $long & n=$((n+1)); done; wait";
    let config = config(&bench.disk, sh(script));
    let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
    let mut main = peer.attach(SessionId::CONTAINER, false).await?;
    started(&peer.start().await?);
    let mut seen = Output::default();
    main.wait_for(&mut seen, &"up\n".repeat(150)).await?;
    let reply = peer
        .request(|request| ToGuest::Processes { request })
        .await?;
    let Reply::Processes(rows) = reply else {
        panic!("{reply:?}");
    };
    assert!((50..150).contains(&rows.len()), "{}", rows.len());
    assert!(rows.iter().any(|row| row.command.len() > 4000), "{rows:?}");
    vm.kill();
    Ok(())
}

/// The container's `/` looks as the topmost layer says, and keeps what the container makes of it.
#[tokio::test]
async fn the_root_folder_looks_as_in_the_topmost_layer() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let Some(guest) = Guest::fast()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let lower = busybox(&folder.path().join("lower"))?;
    let top = folder.path().join("top");
    // What the tether would make in the root, so that it has nothing to do there.
    for name in ["dev", "proc", "sys", "etc"] {
        std::fs::create_dir_all(top.join(name))?;
    }
    std::fs::set_permissions(&top, std::fs::Permissions::from_mode(0o1751))?;
    std::os::unix::fs::chown(&top, Some(12), Some(34))?;
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    std::fs::File::open(&top)?.set_times(std::fs::FileTimes::new().set_modified(time))?;
    let top = Layer {
        folder: top,
        mib: 8,
    };
    let bench = Bench {
        disk: Disk::make(&folder.path().join("disk"), &[lower, top], 64, 32)?,
        folder,
        guest,
    };
    let script = "stat -c '%a %u %g %Y' /; chmod 700 /";
    let mut config = config(&bench.disk, sh(script));
    for (boot, expected) in [
        (1, "1751 12 34 1000000000\n"),
        (2, "700 12 34 1000000000\n"),
    ] {
        config.boot = boot;
        let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
        let attached = peer.attach(SessionId::CONTAINER, false).await?;
        started(&peer.start().await?);
        assert_eq!(attached.collect().await?.text(), expected);
        peer.exit(SessionId::CONTAINER).await?;
        peer.goodbye().await?;
        vm.off().await?;
    }
    Ok(())
}

/// Memory runs out in the container, not in the tether.
#[tokio::test]
async fn a_container_that_takes_all_memory_must_not_take_the_tether_along() -> Result<()> {
    let Some(bench) = bench()? else { return Ok(()) };
    let config = config(
        &bench.disk,
        sh("exec awk 'BEGIN { s = \"0123456789abcdef\"; while (1) { s = s s; a[n++] = s } }'"),
    );
    let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
    started(&peer.start().await?);
    let status = peer.exit(SessionId::CONTAINER).await?;
    assert_eq!((status.code, status.oom), (137, true));
    peer.goodbye().await?;
    vm.off().await
}

/// A start that fails is told with Docker's code, and the VM goes.
#[tokio::test]
async fn a_program_that_does_not_exist_ends_the_vm_with_127() -> Result<()> {
    for bench in on_each_kernel()? {
        let config = config(&bench.disk, process(&["missing"]));
        let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
        let message = "exec: \"missing\": executable file not found in $PATH";
        assert_eq!(
            peer.start().await?,
            Reply::StartFailed {
                code: 127,
                message: message.into()
            }
        );
        peer.goodbye().await?;
        vm.off().await?;
        let exit = journal::Reader::open(bench.disk.journal()?)?
            .exit()?
            .expect("an exit record");
        assert_eq!((exit.code, exit.reason.as_str()), (127, message));
    }
    Ok(())
}

/// A fault of the boot names its step.
#[tokio::test]
async fn a_fault_of_the_boot_is_told_by_its_step() -> Result<()> {
    let Some(bench) = bench()? else { return Ok(()) };
    let mut config = config(&bench.disk, sh("true"));
    // The journal is no ext4.
    config.disk.layers.push(config.disk.journal);
    let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
    let (step, message) = peer.fault().await?;
    assert_eq!(step, "layers");
    assert!(
        message.contains("layer 2, partition 3 (/dev/sda3)"),
        "{message}"
    );
    vm.off().await
}

/// A layer that is a file on a partition, by a loop device: it lies above the layers that are partitions.
#[tokio::test]
async fn a_layer_in_a_file_is_mounted_by_a_loop_device() -> Result<()> {
    let Some(guest) = Guest::fast()? else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let base = busybox(&folder.path().join("layer"))?;
    let top = folder.path().join("top");
    std::fs::create_dir_all(top.join("etc"))?;
    std::fs::write(top.join("etc/plain"), "from the file\n")?;
    let holder = folder.path().join("holder");
    std::fs::create_dir_all(holder.join("layers"))?;
    ext4(&top, &holder.join("layers/top.img"), 8)?;
    let holder = Layer {
        folder: holder,
        mib: 32,
    };
    let disk = Disk::make(&folder.path().join("disk"), &[base, holder], 64, 32)?;
    let bench = Bench {
        folder,
        guest,
        disk,
    };
    let mut config = config(
        &bench.disk,
        sh(
            "cat /etc/plain; head -1 /etc/passwd; ls -d /layers; echo changed > /etc/plain; cat /etc/plain",
        ),
    );
    let file = |path: &str| wire::config::LayerFile {
        partition: 2,
        path: path.into(),
    };
    config.disk.layers = vec![1];
    config.disk.layer_files = vec![file("layers/top.img")];
    let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
    let attached = peer.attach(SessionId::CONTAINER, false).await?;
    started(&peer.start().await?);
    let output = attached.collect().await?;
    assert_eq!(
        (
            output.text().as_str(),
            String::from_utf8_lossy(&output.stderr).as_ref()
        ),
        (
            "from the file\nroot:x:0:0:root:/root:/bin/sh\nchanged\n",
            "ls: /layers: No such file or directory\n"
        )
    );
    peer.goodbye().await?;
    vm.off().await?;
    // A path out of its partition leads nowhere, and the fault names layer and file.
    config.disk.layer_files = vec![file("../../../init")];
    let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
    let (step, message) = peer.fault().await?;
    assert_eq!(step, "layers");
    assert!(
        message.contains("layer 2, file \"../../../init\" on partition 2"),
        "{message}"
    );
    vm.off().await
}

/// A reader that stands still until `Shutdown`: what it did not get is counted, to the byte.
#[tokio::test]
async fn a_drain_that_shutdown_cuts_says_how_many_bytes_it_left() -> Result<()> {
    let Some(bench) = bench()? else { return Ok(()) };
    // More than the reader's credit lets through; the rest fits into the tether, so that the process can end.
    let size = link::Options::default().window + 32 * 1024;
    let config = config(&bench.disk, sh(&format!("exec head -c {size} /dev/zero")));
    let (mut vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
    let attached = peer.attach(SessionId::CONTAINER, false).await?;
    started(&peer.start().await?);
    assert_eq!(peer.exit(SessionId::CONTAINER).await?.code, 0);
    let reply = peer
        .request(|request| ToGuest::Shutdown { request })
        .await?;
    assert_eq!(reply, Reply::Done);
    let output = attached.collect().await?;
    assert!(output.left > 0, "nothing was left");
    assert_eq!(output.stdout.len() as u64 + output.left, u64::from(size));
    assert!(output.stdout.iter().all(|byte| *byte == 0));
    peer.goodbye().await?;
    vm.off().await
}

/// What a reset does, without a change of the VM's power: the same boot begins anew.
#[tokio::test]
async fn a_boot_that_was_begun_before_runs_nothing_and_ends() -> Result<()> {
    if let Some(bench) = bench()? {
        let config = config(&bench.disk, sh("echo once; exec sleep 1000"));
        let (vm, mut peer) = bench.boot(&config, &Keys::fresh()?).await?;
        let mut main = peer.attach(SessionId::CONTAINER, false).await?;
        started(&peer.start().await?);
        main.wait_for(&mut Output::default(), "once\n").await?;
        // Until it is on the disk.
        peer.run(sh("sleep 1")).await?;
        drop((vm, peer));
        // Each of them waits for an endpoint that might start it anew.
        for _ in 0..2 {
            let mut vm = Vm::boot(bench.folder.path(), &bench.guest, &bench.disk, &config, &[])?;
            vm.off().await?;
        }
        let mut reader = journal::Reader::open(bench.disk.journal()?)?;
        let mut at = reader.first()?;
        let mut records = Vec::new();
        while let journal::Step::Record(record, next) = reader.read(at)? {
            records.push(match record {
                journal::Record::Start { boot, .. } => format!("start of {boot}"),
                journal::Record::Output { bytes, .. } => String::from_utf8(bytes)?,
                journal::Record::Exit(exit) => format!("{}: {}", exit.code, exit.reason),
            });
            at = next;
        }
        let expected = ["start of 1", "once\n", "137: its VM was reset"];
        assert_eq!(records, expected);
    }
    Ok(())
}
