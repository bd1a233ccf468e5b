//! What root in a container must not be able to do. One boot of each kernel, in which a prober tries everything;
//! each rule is a test of its own, on both. What capabilities must not open beyond that has boots of its own.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use tests::guest::build::Guest;
use tests::guest::disk::{Disk, busybox};
use tests::guest::peer::{Keys, Peer};
use tests::guest::vm::{Vm, config, process};
use wire::config::Process;
use wire::message::{Reply, SessionId, ToGuest};

/// What the prober found: key, then lines.
type Findings = BTreeMap<String, Vec<String>>;

/// Attempts of tests/guest/probe.rs.
const ATTEMPTS: &str = "vsock io_uring finit_module init_module reboot kexec mknod_disk mknod_serial mount_proc mount_devtmpfs \
    remount_proc_sys remount_sys umount_mask pivot_root new_user_namespace new_mount_namespace setns iopl ioperm bpf settime \
    sethostname open_by_handle clone3 write_sysctl write_sysrq write_cgroup chroot_escape";

fn script() -> String {
    let mut script = format!("say() {{ sed \"s/^/$1\t/\"; }}\nprobe {ATTEMPTS} | say attempt\n");
    for (key, command) in [
        ("dev", "ls /dev"),
        ("firmware", "ls -A /sys/firmware"),
        ("processes", "cat /proc/[0-9]*/comm"),
        ("threads", "ls /proc/1/task"),
        ("root", "ls -A /"),
        ("nodes", "find / -xdev -type b -o -xdev -type c"),
        ("nodes_dev", "find /dev -type b"),
        ("mounts", "cat /proc/self/mountinfo"),
        ("status", "cat /proc/self/status"),
        ("kmsg", "dmesg 2>&1 | head -1"),
        ("kcore", "head -c 1 /proc/kcore | wc -c"),
        ("keys", "cat /proc/keys"),
        ("cgroup", "cat /proc/self/cgroup"),
        ("cgroup_folder", "ls /sys/fs/cgroup"),
        ("environ", "cat /proc/1/environ | tr '\\0' '\\n'"),
        (
            "secret",
            "grep -rl 5f5f5f5f5f5f5f5f /sys/firmware /proc/cmdline /proc/1/environ /run /tmp 2>/dev/null",
        ),
        (
            "write",
            "for f in /proc/sys/kernel/hostname /sys/kernel/mm/transparent_hugepage/enabled /sys/block/sda/queue/read_ahead_kb /proc/irq/default_smp_affinity; do [ -e $f ] && (echo 1 > $f) 2>/dev/null && echo $f; done; true",
        ),
        ("killall", "kill -9 -1; echo alive"),
    ] {
        script += &format!("( {command} ) 2>/dev/null | say {key}\n");
    }
    // `kill -1` spares who sends it; the shell that is process 1 of the namespace cannot be killed from inside.
    script + "echo 'done\tyes'"
}

async fn probe(guest: &Guest) -> Result<Findings> {
    let folder = tempfile::tempdir()?;
    let layer = busybox(&folder.path().join("layer"))?;
    let disk = Disk::make(&folder.path().join("disk"), &[layer], 64, 16)?;
    let config = config(&disk, process(&["sh", "-c", &script()]));
    let mut vm = Vm::boot(folder.path(), guest, &disk, &config, &[])?;
    let mut peer = Peer::accept(vm.connection().await?, &Keys::fresh()?).await?;
    let attached = peer.attach(SessionId::CONTAINER, false).await?;
    let reply = peer.start().await?;
    if !matches!(reply, Reply::Started { .. }) {
        bail!("{reply:?}");
    }
    let text = attached.collect().await?.text();
    // After all of it the tether still tells the exit and powers off.
    peer.exit(SessionId::CONTAINER).await?;
    peer.goodbye().await?;
    vm.off().await?;
    let mut findings = Findings::new();
    for (key, line) in text.lines().filter_map(|l| l.split_once('\t')) {
        findings
            .entry(key.to_owned())
            .or_default()
            .push(line.to_owned());
    }
    if !findings.contains_key("done") {
        bail!("the prober broke off:\n{text}");
    }
    Ok(findings)
}

/// The findings on each kernel that is there, with its name; of one boot each for all tests of a run. Under nextest,
/// which gives each test a process of its own, the first one leaves them in a file for the others.
fn findings() -> impl Iterator<Item = &'static Findings> {
    static FINDINGS: OnceLock<Vec<(String, Findings)>> = OnceLock::new();
    let boot = || -> Result<Vec<(String, Findings)>> {
        let runtime = tokio::runtime::Runtime::new()?;
        let mut all = Vec::new();
        for (name, guest) in Guest::each()? {
            let findings = runtime.block_on(probe(&guest)).context(name)?;
            all.push((name.to_owned(), findings));
        }
        Ok(all)
    };
    let shared = |run: String| -> Result<Vec<(String, Findings)>> {
        let path = std::env::temp_dir().join(format!("mooring-isolation-{run}.json"));
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(&path)?;
        let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
            .map_err(|(_, e)| e)?;
        let text = std::fs::read(&path)?;
        if !text.is_empty() {
            return serde_json::from_slice(&text).context("the findings of this run's first test");
        }
        let findings = boot()?;
        serde_json::to_writer(&*lock, &findings)?;
        Ok(findings)
    };
    let all = FINDINGS.get_or_init(|| {
        let result = match std::env::var("NEXTEST_RUN_ID") {
            Ok(run) => shared(run),
            Err(_) => boot(),
        };
        result.expect("the prober's boot")
    });
    // Shown where the test fails.
    all.iter().map(|(name, findings)| {
        eprintln!("on {name}:");
        findings
    })
}

fn lines<'a>(findings: &'a Findings, key: &str) -> &'a [String] {
    findings.get(key).map_or(&[], Vec::as_slice)
}

/// The prober was refused, with one of these error numbers (1 EPERM, 2 ENOENT, 13 EACCES, 30 EROFS, 38 ENOSYS).
fn refused(attempt: &str, errors: &[i32]) {
    for findings in findings() {
        let line = lines(findings, "attempt")
            .iter()
            .find(|l| l.starts_with(&format!("{attempt} ")))
            .expect("it was tried");
        assert!(
            errors
                .iter()
                .any(|e| *line == format!("{attempt} refused {e}")),
            "{line}"
        );
    }
}

#[test]
fn a_container_root_must_not_open_the_journal_disk() {
    for findings in findings() {
        let mut devices: Vec<&str> = lines(findings, "dev").iter().map(String::as_str).collect();
        devices.sort_unstable();
        let expected = [
            "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
            "stdin", "stdout", "tty", "urandom", "zero",
        ];
        assert_eq!(devices, expected);
        assert_eq!(lines(findings, "nodes_dev"), [""; 0]);
        assert_eq!(
            lines(findings, "nodes"),
            [""; 0],
            "no device node outside /dev"
        );
    }
}

#[test]
fn a_container_root_must_not_mknod_a_disk() {
    refused("mknod_disk", &[1]);
}

#[test]
fn a_container_root_must_not_mknod_a_serial_port() {
    refused("mknod_serial", &[1]);
}

#[test]
fn a_device_node_in_an_image_must_not_work() {
    for findings in findings() {
        for line in lines(findings, "mounts") {
            let fields: Vec<&str> = line.split(' ').collect();
            let (root, target, options) = (fields[3], fields[4], fields[5]);
            // Its own /dev has nodes, its devpts has terminals, and masked files are /dev/null.
            let own = ["/dev", "/dev/pts"].contains(&target) || root == "/null";
            assert!(own || options.split(',').any(|o| o == "nodev"), "{line}");
        }
        assert!(lines(findings, "mounts").len() > 10);
    }
}

#[test]
fn a_container_root_must_not_see_the_tether_process() {
    for findings in findings() {
        let names = lines(findings, "processes");
        assert!(
            names
                .iter()
                .all(|n| ["sh", "cat", "sed", "ls"].contains(&n.as_str())),
            "{names:?}"
        );
        assert_eq!(lines(findings, "threads"), ["1"]);
    }
}

#[test]
fn a_container_root_must_not_kill_the_tether() {
    for findings in findings() {
        // The VM told its exit after this: `probe` checks it.
        assert_eq!(lines(findings, "done"), ["yes"]);
    }
}

#[test]
fn a_container_root_must_not_see_the_initramfs() {
    for findings in findings() {
        let root = lines(findings, "root");
        assert!(
            !root
                .iter()
                .any(|f| f == "init" || f == "modules" || f == "cg"),
            "{root:?}"
        );
    }
}

#[test]
fn a_container_root_must_not_leave_its_root_by_chroot() {
    refused("chroot_escape", &[2]);
}

#[test]
fn a_container_root_must_not_reach_the_endpoint_by_vsock() {
    refused("vsock", &[1]);
}

#[test]
fn a_container_root_must_not_pass_by_the_filter_with_io_uring() {
    refused("io_uring", &[1]);
}

#[test]
fn a_container_root_must_not_load_modules() {
    refused("finit_module", &[1]);
    refused("init_module", &[1]);
}

#[test]
fn a_container_root_must_not_reboot_the_vm() {
    refused("reboot", &[1]);
    refused("kexec", &[1]);
    refused("write_sysrq", &[2, 30]);
}

#[test]
fn a_container_root_must_not_remount_proc_sys_writable() {
    refused("remount_proc_sys", &[1]);
    refused("remount_sys", &[1]);
    refused("write_sysctl", &[2, 30]);
    for findings in findings() {
        assert_eq!(lines(findings, "write"), [""; 0]);
    }
}

#[test]
fn a_container_root_must_not_mount() {
    for attempt in ["mount_proc", "mount_devtmpfs", "umount_mask", "pivot_root"] {
        refused(attempt, &[1]);
    }
}

#[test]
fn a_container_root_must_not_make_or_join_namespaces() {
    for attempt in ["new_user_namespace", "new_mount_namespace", "setns"] {
        refused(attempt, &[1]);
    }
    refused("clone3", &[38]);
}

#[test]
fn a_container_root_must_not_read_the_link_secret_from_fw_cfg() {
    for findings in findings() {
        assert_eq!(lines(findings, "firmware"), [""; 0]);
        assert_eq!(lines(findings, "secret"), [""; 0]);
    }
}

#[test]
fn a_container_root_must_not_read_kernel_memory_or_messages() {
    for findings in findings() {
        assert!(["", "0"].contains(&lines(findings, "kcore").first().map_or("", |l| l.trim())));
        assert_eq!(lines(findings, "keys"), [""; 0]);
        let kmsg = lines(findings, "kmsg");
        assert!(kmsg.iter().all(|l| l.contains("not permitted")), "{kmsg:?}");
    }
}

#[test]
fn a_container_root_must_not_leave_its_cgroup() {
    for findings in findings() {
        assert_eq!(lines(findings, "cgroup"), ["0::/"]);
        assert!(
            !lines(findings, "cgroup_folder")
                .iter()
                .any(|f| f == "container")
        );
        refused("write_cgroup", &[13, 30]);
    }
}

#[test]
fn a_container_root_must_not_hold_more_capabilities_than_dockers_less_mknod() {
    for findings in findings() {
        let status = lines(findings, "status");
        let field = |name: &str| {
            status
                .iter()
                .find_map(|l| l.strip_prefix(name))
                .map(str::trim)
        };
        for (name, value) in [
            ("CapInh:", "0000000000000000"),
            ("CapPrm:", "00000000a00425fb"),
            ("CapEff:", "00000000a00425fb"),
            ("CapBnd:", "00000000a00425fb"),
            ("CapAmb:", "0000000000000000"),
            ("NoNewPrivs:", "0"),
            ("Seccomp:", "2"),
        ] {
            assert_eq!(field(name), Some(value), "{name}");
        }
    }
}

#[test]
fn a_container_root_must_not_use_io_ports_by_permission() {
    refused("iopl", &[1]);
    refused("ioperm", &[1]);
}

#[test]
fn a_container_root_must_not_change_clock_or_host_name() {
    refused("settime", &[1]);
    refused("sethostname", &[1]);
}

#[test]
fn a_container_root_must_not_use_bpf_or_open_by_handle() {
    refused("bpf", &[1]);
    refused("open_by_handle", &[1]);
}

#[test]
fn a_container_must_not_inherit_the_tethers_environment() {
    for findings in findings() {
        let environ = lines(findings, "environ");
        let names: Vec<&str> = environ
            .iter()
            .filter_map(|l| l.split_once('='))
            .map(|(n, _)| n)
            .collect();
        assert_eq!(names, ["PATH", "HOSTNAME", "HOME"]);
    }
}

/// A VM whose container has a capability besides the usual ones, and runs.
struct Capable {
    capability: &'static str,
    vm: Vm,
    peer: Peer,
    _folder: tempfile::TempDir,
}

impl Capable {
    /// One on each kernel that is there.
    async fn each(
        capability: &'static str,
        script: &str,
        mut check: impl AsyncFnMut(&mut Capable) -> Result<()>,
    ) -> Result<()> {
        for (name, guest) in Guest::each()? {
            let mut one = Capable::boot(&guest, capability, script).await?;
            check(&mut one).await.context(name)?;
            one.end().await.context(name)?;
        }
        Ok(())
    }

    async fn boot(guest: &Guest, capability: &'static str, script: &str) -> Result<Capable> {
        let folder = tempfile::tempdir()?;
        let layer = busybox(&folder.path().join("layer"))?;
        let disk = Disk::make(&folder.path().join("disk"), &[layer], 64, 16)?;
        let first = Process {
            cap_add: vec![capability.to_owned()],
            ..process(&["sh", "-c", script])
        };
        let mut config = config(&disk, first);
        let held = seccomp::held(&config.process.cap_add, &[]);
        config.seccomp = seccomp::to_text(&seccomp::builtin(&held)?);
        let mut vm = Vm::boot(folder.path(), guest, &disk, &config, &[])?;
        let mut peer = Peer::accept(vm.connection().await?, &Keys::fresh()?).await?;
        let reply = peer.start().await?;
        if !matches!(reply, Reply::Started { .. }) {
            bail!("{reply:?}");
        }
        Ok(Capable {
            capability,
            vm,
            peer,
            _folder: folder,
        })
    }

    /// Runs an exec, as the endpoint does: with the container's capabilities. Its output and its exit code.
    async fn run(&mut self, tty: bool, script: &str) -> Result<(String, i32)> {
        let process = Process {
            cap_add: vec![self.capability.to_owned()],
            tty,
            ..process(&["sh", "-c", script])
        };
        let (output, code) = self.peer.run(process).await?;
        Ok((output.text(), code))
    }

    async fn end(mut self) -> Result<()> {
        let kill = |request| ToGuest::Signal {
            request,
            session: SessionId::CONTAINER,
            signal: libc::SIGKILL,
        };
        assert_eq!(self.peer.request(kill).await?, Reply::Done);
        self.peer.exit(SessionId::CONTAINER).await?;
        self.peer.goodbye().await?;
        self.vm.off().await
    }
}

/// What a container sees of devices that it has mounted at /mnt.
const DEVICES: &str = "for d in sda ttyS1; do [ -e /mnt/$d ] && echo /mnt/$d; true < /mnt/$d && echo $d opens; true > /mnt/$d && echo $d opens; done; \
    mkdir -p /disk; mount -o ro -t ext4 /mnt/sda1 /disk && echo sda1 is mounted; \
    echo x > /mnt/null && echo null; echo x > /dev/null && echo own null; head -c 1 /mnt/urandom | wc -c; \
    true < /dev/ptmx && echo ptmx; probe bpf";

/// What [`DEVICES`] says where nothing opens but what may.
fn only_the_usual_devices(said: &str) {
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    for device in ["sda", "ttyS1"] {
        assert!(
            lines.contains(&format!("/mnt/{device}").as_str()),
            "it is there: {said}"
        );
        let refused = |line: &&&str| {
            line.contains(&format!("/mnt/{device}:")) && line.ends_with("Operation not permitted")
        };
        assert_eq!(lines.iter().filter(refused).count(), 2, "{said}");
    }
    assert!(
        !lines
            .iter()
            .any(|l| l.ends_with("opens") || l.ends_with("is mounted")),
        "{said}"
    );
    for line in ["null", "own null", "1", "ptmx", "bpf refused 1"] {
        assert!(lines.contains(&line), "{line}: {said}");
    }
}

#[tokio::test]
async fn a_container_that_may_mount_must_not_open_a_disk_or_a_serial_port() -> Result<()> {
    let first = format!(
        "mkdir /mnt; mount -t devtmpfs d /mnt; ({DEVICES}) > /tmp/first 2>&1; mv /tmp/first /tmp/said; exec sleep 10000"
    );
    Capable::each("CAP_SYS_ADMIN", &first, async |one| {
        let wait = "until [ -e /tmp/said ]; do sleep 0.1; done; cat /tmp/said";
        only_the_usual_devices(&one.run(false, wait).await?.0);
        let (said, _) = one.run(false, &format!("({DEVICES}) 2>&1")).await?;
        only_the_usual_devices(&said);
        let (said, _) = one.run(true, &format!("tty; {DEVICES}")).await?;
        assert!(said.starts_with("/dev/pts/"), "{said}");
        only_the_usual_devices(&said);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_container_that_may_mount_must_not_change_its_limits_or_leave_its_cgroup() -> Result<()> {
    let first = "mkdir /cg; mount -t cgroup2 c /cg; exec sleep 10000";
    Capable::each("CAP_SYS_ADMIN", first, async |one| {
        let tries = "until [ -e /cg/cgroup.procs ]; do sleep 0.1; done; \
            for f in pids.max memory.max cgroup.freeze; do echo max > /cg/$f && echo $f is written; done; \
            ls /cg | grep -x container; mkdir /cg/own && echo 0 > /cg/own/cgroup.procs && cat /proc/self/cgroup";
        let (said, _) = one.run(false, &format!("({tries}) 2>&1")).await?;
        assert!(!said.contains("is written"), "{said}");
        assert_eq!(said.matches("Operation not permitted").count(), 3, "{said}");
        assert!(!said.contains("container"), "{said}");
        // What is below it is its own.
        assert!(said.ends_with("0::/own\n"), "{said}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_container_that_may_trace_must_not_reach_a_process_with_more_rights() -> Result<()> {
    // As fast as it goes: a child of the tether's would be there for moments only.
    let first = "while :; do grep -hs -e CapEff -e CapPrm /proc/[0-9]*/status >> /tmp/seen; done";
    Capable::each("CAP_SYS_PTRACE", first, async |one| {
        for n in 0..20 {
            assert_eq!(one.run(false, &format!("exit {n}")).await?.1, n);
        }
        let (said, code) = one.run(true, "tty; true < /dev/tty; exit 3").await?;
        assert_eq!((said.as_str(), code), ("/dev/pts/0\r\n", 3));
        let (sets, _) = one
            .run(false, "cut -f 2 /tmp/seen | sort -u | head -20")
            .await?;
        // Docker's less MKNOD, and SYS_PTRACE, which is bit 19.
        assert_eq!(sets, "00000000a00c25fb\n");
        // In the container's pid namespace, as any other, and its own leader.
        let (said, _) = one
            .run(
                false,
                "cut -d ' ' -f 4-6 /proc/$$/stat; echo $$; ls /proc/$$/fd; true",
            )
            .await?;
        let lines: Vec<&str> = said.lines().collect();
        let own = lines.get(1).copied().unwrap_or_default();
        assert_eq!(lines[0], format!("0 {own} {own}"), "{said}");
        assert_eq!(lines[2..], ["0", "1", "2"], "no pipe of the tether's");
        let missing = Process {
            cap_add: vec!["CAP_SYS_PTRACE".into()],
            ..process(&["missing"])
        };
        let (reply, ..) = one.peer.exec(missing).await?;
        assert!(
            matches!(reply, Reply::StartFailed { code: 127, .. }),
            "{reply:?}"
        );
        Ok(())
    })
    .await
}
