//! Whole machines: several processors, all devices, and how long a boot takes.

use crate::guest::{Folder, LONG, boot, console, power_on, spec};
use hostsim::vmx::host::HostFacts;
use hostsim::vmx::{NicBackend, NicSpec, UserNet};
use std::time::Instant;
use tokio::time::timeout;

#[tokio::test]
async fn a_host_is_tried_once() {
    let dir = tempfile::tempdir().unwrap();
    let facts = HostFacts::detect(dir.path()).await.unwrap();
    println!("{facts:?}");
    let again = Instant::now();
    assert_eq!(HostFacts::detect(dir.path()).await.unwrap(), facts);
    assert!(!dir.path().join("probe.img").exists());
    println!("again: {:?}", again.elapsed());
}

#[tokio::test]
async fn a_guest_with_two_processors_and_ten_vnics_boots_with_what_the_host_can() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let facts = HostFacts::detect(dir.path()).await.unwrap();
    let mut spec = spec(dir.path(), &boot, "poweroff");
    spec.accelerator = facts.accelerator;
    spec.tsc_khz = facts.tsc_khz;
    spec.cpus = 2;
    let net = UserNet::of_subnet("172.17.0.0".parse().unwrap(), 16).unwrap();
    for n in 0..10 {
        spec.nics.push(NicSpec {
            mac: format!("00:50:56:00:00:{n:02x}"),
            port_group: "VM Network".into(),
            connected: n != 1,
            backend: NicBackend::User(net.clone()),
        });
    }
    let vm = power_on(dir.path(), &spec).await;
    timeout(LONG, vm.exited()).await.unwrap().unwrap();
    assert!(
        console(dir.path()).contains("done"),
        "{}",
        console(dir.path())
    );
}

/// Prints how long it takes from the request to the guest's end; asserts that it ends.
#[tokio::test]
async fn a_boot_takes_its_time() {
    let Some(boot) = boot() else { return };
    let mut times = Vec::new();
    for _ in 0..5 {
        let dir = Folder::new();
        let facts = HostFacts::detect(dir.path()).await.unwrap();
        let mut spec = spec(dir.path(), &boot, "poweroff");
        spec.accelerator = facts.accelerator;
        spec.tsc_khz = facts.tsc_khz;
        let start = Instant::now();
        let vm = power_on(dir.path(), &spec).await;
        let running = start.elapsed();
        timeout(LONG, vm.exited()).await.unwrap().unwrap();
        assert!(console(dir.path()).contains("done"));
        times.push((running, start.elapsed()));
    }
    println!("powered on, ended: {times:?}");
}
