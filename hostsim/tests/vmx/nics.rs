//! vNICs on the switch: who hears whom, and cards that come and go while the guest runs. They take root.

use crate::guest::{Folder, LONG, boot, console, power_on, spec, until_console};
use crate::netns::Netns;
use hostsim::vmx::switch::Switch;
use hostsim::vmx::{
    ExitReason, NicBackend, NicSpec, SwitchPort, UserNet, VmxError, VmxHandle, VmxSpec,
};
use std::path::{Path, PathBuf};
use tokio::time::timeout;

/// The boot files and a switch with the VLANs 100 and 101; `None` where they cannot be had.
fn rig() -> Option<((PathBuf, PathBuf), Netns)> {
    let (boot, netns) = (boot()?, Netns::new()?);
    Switch::new(netns.path()).prepare([100, 101]).unwrap();
    Some((boot, netns))
}

fn nic(netns: &Netns, slot: u8, last: u8, vlan: u16) -> NicSpec {
    NicSpec {
        slot,
        mac: format!("00:50:56:00:00:{last:02x}"),
        port_group: format!("VLAN {vlan}"),
        connected: true,
        backend: NicBackend::Port(SwitchPort {
            netns: netns.path(),
            vlan,
        }),
    }
}

async fn guest(folder: &Path, boot: &(PathBuf, PathBuf), nics: Vec<NicSpec>) -> VmxHandle {
    let spec = VmxSpec {
        nics,
        ..spec(folder, boot, "ether").await
    };
    power_on(folder, &spec).await
}

/// Waits until the guest says once more that it hears somebody.
async fn hears_again(folder: &Path, who: u8, by: u8) {
    let word = heard(who, by);
    let count = || console(folder).matches(&word).count();
    let before = count();
    let wait = async {
        while count() == before {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    if timeout(LONG, wait).await.is_err() {
        panic!("no new {word:?} on the console:\n{}", console(folder));
    }
}

fn heard(who: u8, by: u8) -> String {
    format!("heard 00:50:56:00:00:{who:02x} by {by:02x}")
}

#[tokio::test]
async fn guests_of_one_vlan_hear_each_other_and_those_of_another_do_not_until_one_moves() {
    let Some((boot, netns)) = rig() else { return };
    let folders = [Folder::new(), Folder::new(), Folder::new()];
    let [a, b, c] = folders.each_ref().map(Folder::path);
    let vm_a = guest(a, &boot, vec![nic(&netns, 0, 0xa, 100)]).await;
    let vm_b = guest(b, &boot, vec![nic(&netns, 0, 0xb, 100)]).await;
    let vm_c = guest(c, &boot, vec![nic(&netns, 0, 0xc, 101)]).await;
    until_console(a, &heard(0xb, 0xa)).await;
    until_console(b, &heard(0xa, 0xb)).await;
    until_console(c, "nic 00:50:56:00:00:0c").await;
    assert_eq!(netns.taps().len(), 3);

    // The guest that moves needs not be asked, and hears the other one at once.
    vm_a.set_nic(&nic(&netns, 0, 0xa, 101)).await.unwrap();
    until_console(c, &heard(0xa, 0xc)).await;
    until_console(a, &heard(0xc, 0xa)).await;
    assert!(!console(b).contains("00:50:56:00:00:0c"), "{}", console(b));
    assert!(!console(c).contains("00:50:56:00:00:0b"), "{}", console(c));
    // Its cable out, and in again.
    let out = NicSpec {
        connected: false,
        ..nic(&netns, 0, 0xa, 101)
    };
    vm_a.set_nic(&out).await.unwrap();
    vm_a.set_nic(&nic(&netns, 0, 0xa, 100)).await.unwrap();
    hears_again(b, 0xa, 0xb).await;
    hears_again(a, 0xb, 0xa).await;
    for vm in [vm_a, vm_b, vm_c] {
        timeout(LONG, vm.power_off()).await.unwrap().unwrap();
    }
    assert_eq!(netns.taps(), Vec::<String>::new());
}

#[tokio::test]
async fn a_vnic_is_plugged_in_and_taken_out_while_the_guest_runs() {
    let Some((boot, netns)) = rig() else { return };
    let (dir, other) = (Folder::new(), Folder::new());
    let vm = guest(dir.path(), &boot, Vec::new()).await;
    let peer = guest(other.path(), &boot, vec![nic(&netns, 3, 0x30, 101)]).await;
    until_console(dir.path(), "guest: ether").await;
    until_console(other.path(), "nic 00:50:56:00:00:30").await;
    for round in 0..2 {
        for slot in [0, 9] {
            let new = nic(&netns, slot, slot + 1, 101);
            vm.plug_nic(&new).await.unwrap();
            // Once more is fine: a hostsim that was killed meanwhile does not know.
            vm.plug_nic(&new).await.unwrap();
            hears_again(other.path(), slot + 1, 0x30).await;
            let taken = vm.plug_nic(&nic(&netns, slot, 0x77, 100)).await;
            assert!(matches!(taken, Err(VmxError::Refused { .. })), "{taken:?}");
        }
        assert_eq!(netns.taps().len(), 3, "{round}");
        if round == 1 {
            break;
        }
        for slot in [9, 0] {
            timeout(LONG, vm.unplug_nic(slot)).await.unwrap().unwrap();
            let gone = format!("gone 00:50:56:00:00:{:02x}", slot + 1);
            until_console(dir.path(), &gone).await;
            // An empty slot is fine.
            vm.unplug_nic(slot).await.unwrap();
        }
        assert_eq!(netns.taps().len(), 1);
    }
    // What was plugged in is there after a reset, too; and one that was there from the start can go.
    timeout(LONG, vm.reset()).await.unwrap().unwrap();
    hears_again(other.path(), 10, 0x30).await;
    assert_eq!(netns.taps().len(), 3);
    timeout(LONG, vm.unplug_nic(0)).await.unwrap().unwrap();
    let wrong = vm.plug_nic(&nic(&netns, 10, 1, 100)).await.unwrap_err();
    assert!(wrong.to_string().contains("slot 10"), "{wrong}");
    let wrong = vm.plug_nic(&nic(&netns, 1, 1, 7)).await.unwrap_err();
    assert!(wrong.to_string().contains("no bridge vlan7"), "{wrong}");
    assert_eq!(netns.taps().len(), 2);
    timeout(LONG, vm.power_off()).await.unwrap().unwrap();
    timeout(LONG, peer.power_off()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_killed_qemu_leaves_no_tap_and_a_killed_shim_none_either() {
    let Some((boot, netns)) = rig() else { return };
    let dir = Folder::new();
    let nics = || vec![nic(&netns, 0, 1, 100), nic(&netns, 1, 2, 101)];
    let kill_9 = |pid: u32| {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    };
    let vm = guest(dir.path(), &boot, nics()).await;
    assert_eq!(netns.taps().len(), 2);
    kill_9(vm.status().await.unwrap().qemu_pid.unwrap());
    let record = timeout(LONG, vm.exited()).await.unwrap().unwrap();
    assert_eq!(record.reason, ExitReason::QemuSignal { signal: 9 });
    assert_eq!(netns.taps(), Vec::<String>::new());

    let vm = guest(dir.path(), &boot, nics()).await;
    assert_eq!(netns.taps().len(), 2);
    kill_9(vm.status().await.unwrap().shim_pid);
    assert!(VmxHandle::reattach(vm.run_dir()).await.unwrap().is_none());
    // The lock is the first file that the end of QEMU closes.
    let gone = async {
        while !netns.taps().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, gone).await.unwrap();
}

#[tokio::test]
async fn a_guest_that_keeps_a_vnic_keeps_it_connected_and_the_request_fails_until_a_reset() {
    let Some((boot, netns)) = rig() else { return };
    let dir = Folder::new();
    let spec = VmxSpec {
        nics: vec![nic(&netns, 0, 1, 100)],
        // Nothing to boot: only firmware runs, which never lets go.
        boot: None,
        ..spec(dir.path(), &boot, "none").await
    };
    let vm = power_on(dir.path(), &spec).await;
    let kept = timeout(LONG, vm.unplug_nic(0)).await.unwrap().unwrap_err();
    assert!(kept.to_string().contains("has not let"), "{kept}");
    assert_eq!(netns.taps_in(100).len(), 1);
    // Asked again it waits again, cut off meanwhile; and a reset lets go of everything.
    let (asked, reset) = tokio::join!(vm.unplug_nic(0), async {
        while !netns.taps_in(100).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        timeout(LONG, vm.reset()).await.unwrap()
    });
    asked.unwrap();
    reset.unwrap();
    assert!(netns.taps().is_empty());
    timeout(LONG, vm.power_off()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_user_mode_vnic_is_plugged_in_and_taken_out_too_and_cannot_move() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let vm = guest(dir.path(), &boot, Vec::new()).await;
    until_console(dir.path(), "guest: ether").await;
    let net = UserNet::of_subnet("172.17.0.0".parse().unwrap(), 16).unwrap();
    let user = NicSpec {
        slot: 0,
        mac: "00:50:56:00:00:01".into(),
        port_group: "VM Network".into(),
        connected: true,
        backend: NicBackend::User(net),
    };
    vm.plug_nic(&user).await.unwrap();
    until_console(dir.path(), "nic 00:50:56:00:00:01").await;
    let out = NicSpec {
        connected: false,
        ..user.clone()
    };
    let wrong = vm.set_nic(&out).await.unwrap_err();
    assert!(wrong.to_string().contains("user-mode"), "{wrong}");
    timeout(LONG, vm.unplug_nic(0)).await.unwrap().unwrap();
    until_console(dir.path(), "gone 00:50:56:00:00:01").await;
    // One without a cable has nothing to take away.
    vm.plug_nic(&out).await.unwrap();
    timeout(LONG, vm.unplug_nic(0)).await.unwrap().unwrap();
    timeout(LONG, vm.power_off()).await.unwrap().unwrap();
}
