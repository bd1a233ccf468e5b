//! How VMs come to run, are found again, and end.

use crate::guest::{Folder, LONG, boot, console, launcher, power_on, spec, until_console};
use hostsim::vmx::{DiskSpec, ExitReason, ExitRecord, VmxError, VmxHandle, VmxState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use tokio::time::timeout;

fn kill_9(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_guest_prints_and_powers_off() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let vm = power_on(dir.path(), &spec(dir.path(), &boot, "poweroff").await).await;
    let record = timeout(LONG, vm.exited()).await.unwrap().unwrap();
    assert_eq!(record.reason, ExitReason::GuestPowerOff);
    assert!(record.ran && record.at > 0);
    assert!(
        console(dir.path()).contains("guest: poweroff"),
        "{}",
        console(dir.path())
    );
    assert_eq!(
        ExitRecord::read(&dir.path().join("run")).unwrap(),
        Some(record.clone())
    );
    // Asked again, the answer is the same; and nothing is left to reattach to.
    assert_eq!(vm.exited().await.unwrap(), record);
    assert_eq!(vm.power_off().await.unwrap(), record);
    assert!(matches!(vm.status().await, Err(VmxError::Exited(_))));
    assert!(VmxHandle::reattach(vm.run_dir()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_guests_own_reset_is_an_end() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let vm = power_on(dir.path(), &spec(dir.path(), &boot, "reset").await).await;
    let record = timeout(LONG, vm.exited()).await.unwrap().unwrap();
    assert_eq!(record.reason, ExitReason::GuestReset);
}

#[tokio::test]
async fn a_vm_is_one_of_a_kind_and_can_be_reset_and_powered_off() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let spec = spec(dir.path(), &boot, "wait").await;
    let vm = power_on(dir.path(), &spec).await;
    until_console(dir.path(), "waiting").await;
    let again = launcher().power_on(vm.run_dir(), &spec).await;
    assert!(matches!(again, Err(VmxError::Running { .. })), "{again:?}");

    timeout(LONG, vm.reset()).await.unwrap().unwrap();
    let twice = async {
        while console(dir.path()).matches("waiting").count() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, twice).await.unwrap();
    let status = vm.status().await.unwrap();
    assert_eq!(status.state, VmxState::Running);

    let record = timeout(LONG, vm.power_off()).await.unwrap().unwrap();
    assert_eq!(record.reason, ExitReason::PowerOffRequested);
    assert!(!Path::new(&format!("/proc/{}", status.qemu_pid.unwrap())).exists());
    // The same folder takes the next run.
    let vm = power_on(dir.path(), &spec).await;
    timeout(LONG, vm.power_off()).await.unwrap().unwrap();
}

/// Not a test: what hostsim does in [`a_vm_survives_the_end_of_whoever_started_it`], in a process
/// of its own that can be killed.
#[tokio::test]
#[ignore = "started by another test"]
async fn start_one_and_wait() {
    let Some(folder) = std::env::var_os("VMX_TEST_FOLDER") else {
        return;
    };
    let (folder, boot) = (Path::new(&folder), boot().unwrap());
    power_on(folder, &spec(folder, &boot, "wait").await).await;
    std::fs::write(folder.join("started"), "").unwrap();
    std::future::pending().await
}

#[tokio::test]
async fn a_vm_survives_the_end_of_whoever_started_it() {
    if boot().is_none() {
        return;
    }
    let dir = Folder::new();
    let mut starter = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::start_one_and_wait", "--ignored"])
        .env("VMX_TEST_FOLDER", dir.path())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let started = async {
        while !dir.path().join("started").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, started).await.unwrap();
    let vm = VmxHandle::reattach(&dir.path().join("run"))
        .await
        .unwrap()
        .unwrap();
    let before = vm.status().await.unwrap();
    starter.kill().await.unwrap();

    until_console(dir.path(), "waiting").await;
    let vm = VmxHandle::reattach(&dir.path().join("run"))
        .await
        .unwrap()
        .unwrap();
    let status = vm.status().await.unwrap();
    assert_eq!(
        (status.state, status.qemu_pid),
        (VmxState::Running, before.qemu_pid)
    );
    assert_eq!(status.running_since, before.running_since);
    timeout(LONG, vm.power_off()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_killed_qemu_leaves_its_signal() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let vm = power_on(dir.path(), &spec(dir.path(), &boot, "wait").await).await;
    kill_9(vm.status().await.unwrap().qemu_pid.unwrap());
    let record = timeout(LONG, vm.exited()).await.unwrap().unwrap();
    assert_eq!(record.reason, ExitReason::QemuSignal { signal: 9 });
}

/// Whether a process is gone, or on its way: the kernel closes the files of one that ends, and so the lock that tells of
/// its end, a moment before it lets the process go (PF_EXITING, 4, in the flags: proc_pid_stat(5), field 9).
fn is_dying(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The name before the last parenthesis may hold anything.
    let fields = stat.rsplit_once(')').unwrap().1;
    let flags = fields.split_whitespace().nth(6).unwrap();
    flags.parse::<u32>().unwrap() & 4 != 0
}

#[tokio::test]
async fn no_qemu_outlives_its_shim() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let vm = power_on(dir.path(), &spec(dir.path(), &boot, "wait").await).await;
    let status = vm.status().await.unwrap();
    let waiting = tokio::spawn({
        let vm = vm.clone();
        async move { vm.exited().await }
    });
    kill_9(status.shim_pid);
    let record = timeout(LONG, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(record.reason, ExitReason::ShimDied);
    assert!(is_dying(status.qemu_pid.unwrap()), "QEMU runs on");
    assert!(VmxHandle::reattach(vm.run_dir()).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let dir = Folder::new();
    let kernel = dir.path().join("no-kernel");
    let boot = (kernel.clone(), dir.path().join("no-initrd"));
    let mut spec = spec(dir.path(), &boot, "poweroff").await;
    let fault = launcher()
        .power_on(&dir.path().join("run"), &spec)
        .await
        .unwrap_err()
        .to_string();
    assert!(fault.contains("no-kernel: No such file"), "{fault}");

    spec.boot = None;
    let path = dir.path().join("gone.vmdk");
    spec.disks = vec![DiskSpec {
        path: path.clone(),
        controller: 0,
        unit: 0,
        read_only: false,
    }];
    let fault = launcher()
        .power_on(&dir.path().join("run"), &spec)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        fault.contains("disk") && fault.contains("gone.vmdk: No such file"),
        "{fault}"
    );

    // What only QEMU can find out is told in QEMU's words.
    std::fs::write(&path, [0; 4096]).unwrap();
    let fault = launcher()
        .power_on(&dir.path().join("run"), &spec)
        .await
        .unwrap_err()
        .to_string();
    assert!(fault.to_lowercase().contains("vmdk"), "{fault}");
    let record = ExitRecord::read(&dir.path().join("run")).unwrap().unwrap();
    assert!(!record.ran);

    spec.disks[0].unit = 7;
    let fault = launcher()
        .power_on(&dir.path().join("run"), &spec)
        .await
        .unwrap_err()
        .to_string();
    assert!(fault.contains("unit 7"), "{fault}");
}

#[tokio::test]
async fn guestinfo_is_seen_by_the_guest_and_by_nobody_else() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let mut spec = spec(dir.path(), &boot, "fwcfg key=guestinfo.mooring.config.0").await;
    spec.guestinfo
        .insert("guestinfo.mooring.config.0".into(), "c2VjcmV0".into());
    for n in 1..40 {
        spec.guestinfo.insert(
            format!("guestinfo.mooring.config.{n}"),
            "x".repeat(48 * 1024),
        );
    }
    let vm = power_on(dir.path(), &spec).await;
    let pid = vm.status().await.map(|status| status.qemu_pid.unwrap());
    if let Ok(pid) = pid {
        let argv = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&argv).contains("c2VjcmV0"));
    }
    timeout(LONG, vm.exited()).await.unwrap().unwrap();
    assert!(
        console(dir.path()).contains("value: c2VjcmV0"),
        "{}",
        console(dir.path())
    );
    use std::os::unix::fs::PermissionsExt;
    for name in ["spec.json", "fwcfg/0"] {
        let mode = std::fs::metadata(vm.run_dir().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}

#[tokio::test]
async fn a_child_disk_shows_its_parent_and_takes_the_writes() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let image = |args: &[&str]| {
        let status = std::process::Command::new("qemu-img")
            .args(args)
            .current_dir(dir.path())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    };
    let mut raw = vec![0u8; 1024 * 1024];
    raw[..8].copy_from_slice(b"original");
    std::fs::write(dir.path().join("raw"), raw).unwrap();
    image(&["convert", "-f", "raw", "-O", "vmdk", "raw", "base.vmdk"]);
    image(&[
        "create",
        "-f",
        "vmdk",
        "-b",
        "base.vmdk",
        "-F",
        "vmdk",
        "leaf, 1.vmdk",
    ]);
    let base = std::fs::read(dir.path().join("base.vmdk")).unwrap();
    let mut spec = spec(dir.path(), &boot, "disk").await;
    let path = dir.path().join("leaf, 1.vmdk");
    spec.disks = vec![DiskSpec {
        path,
        controller: 0,
        unit: 0,
        read_only: false,
    }];
    for seen in ["disk: original", "disk: changed"] {
        let vm = power_on(dir.path(), &spec).await;
        timeout(LONG, vm.exited()).await.unwrap().unwrap();
        assert!(
            console(dir.path()).contains(seen),
            "{}",
            console(dir.path())
        );
    }
    assert_eq!(std::fs::read(dir.path().join("base.vmdk")).unwrap(), base);
}
