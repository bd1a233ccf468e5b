//! Whole machines: several processors, all devices, and how long a boot takes.

use crate::guest::{Folder, LONG, boot, console, power_on, spec};
use hostsim::vmx::host::HostFacts;
use hostsim::vmx::{Firmware, NicBackend, NicSpec, UserNet};
use std::time::Instant;
use tokio::io::AsyncReadExt;
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
    let mut spec = spec(dir.path(), &boot, "poweroff").await;
    spec.cpus = 2;
    let net = UserNet::of_subnet("172.17.0.0".parse().unwrap(), 16).unwrap();
    for n in 0..10 {
        spec.nics.push(NicSpec {
            slot: n,
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
        let spec = spec(dir.path(), &boot, "poweroff").await;
        let start = Instant::now();
        let vm = power_on(dir.path(), &spec).await;
        let running = start.elapsed();
        timeout(LONG, vm.exited()).await.unwrap().unwrap();
        assert!(console(dir.path()).contains("done"));
        times.push((running, start.elapsed()));
    }
    println!("powered on, ended: {times:?}");
}

#[tokio::test]
async fn a_guest_with_a_static_address_reaches_the_host_and_has_its_vnics_in_order() {
    let Some(boot) = boot() else { return };
    let dir = Folder::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let test = format!("net own=172.17.0.2 gateway=172.17.0.1 port={port}");
    let mut spec = spec(dir.path(), &boot, &test).await;
    let net = UserNet::of_subnet("172.17.0.0".parse().unwrap(), 16).unwrap();
    for n in 0..2 {
        spec.nics.push(NicSpec {
            slot: n,
            mac: format!("00:50:56:00:00:{n:02x}"),
            port_group: "VM Network".into(),
            connected: n == 0,
            backend: NicBackend::User(net.clone()),
        });
    }
    let vm = power_on(dir.path(), &spec).await;
    let accepted = timeout(LONG, listener.accept()).await;
    let (mut stream, _) = accepted
        .unwrap_or_else(|_| panic!("{}", console(dir.path())))
        .unwrap();
    let mut said = String::new();
    timeout(LONG, stream.read_to_string(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(said, "hello");
    timeout(LONG, vm.exited()).await.unwrap().unwrap();
    let console = console(dir.path());
    assert!(console.contains("eth1: 00:50:56:00:00:01"), "{console}");
}

/// Both firmwares with a CD-ROM drive come up; what they boot is for the tests of the ISO.
#[tokio::test]
async fn either_firmware_runs_with_a_cd_rom() {
    let dir = Folder::new();
    let iso = dir.path().join("a, b.iso");
    std::fs::write(&iso, vec![0; 1024 * 1024]).unwrap();
    let kernel = (iso.clone(), iso.clone());
    let mut spec = spec(dir.path(), &kernel, "none").await;
    spec.boot = None;
    spec.cdrom = Some(iso);
    for firmware in [Firmware::Bios, Firmware::Efi] {
        spec.firmware = firmware;
        let vm = power_on(dir.path(), &spec).await;
        timeout(LONG, vm.power_off()).await.unwrap().unwrap();
    }
}
