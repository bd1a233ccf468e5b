//! The life of a VM, and the fault of each wrong step.

use super::*;
use vim::FaultKind;

#[tokio::test]
async fn a_vm_is_made_changed_run_and_destroyed() {
    let rig = Rig::new().await;
    let c = &rig.client;
    let vm = rig.create(container("web", None)).await.unwrap();
    let info: VirtualMachineConfigInfo = c.property(&vm, "config").await.unwrap().unwrap();
    assert_eq!(
        (
            info.name.as_str(),
            info.hardware.memory_mb,
            info.hardware.num_cpu
        ),
        ("web", 256, 2)
    );
    assert_eq!(
        info.files.vm_path_name.as_deref(),
        Some("[datastore1] web/web.vmx")
    );
    let disk = info
        .hardware
        .device
        .iter()
        .find(|d| matches!(d.kind, DeviceKind::Disk(_)))
        .unwrap();
    assert_eq!(
        (disk.key, disk.controller_key, disk.unit_number),
        (2000, Some(1000), Some(0))
    );
    assert_eq!(
        disk.disk_backing().unwrap().file_name,
        "[datastore1] web/web.vmdk"
    );
    let DeviceKind::Disk(members) = &disk.kind else {
        panic!()
    };
    assert_eq!(members.capacity_in_kb, 1 << 20);
    let mac = info
        .hardware
        .device
        .iter()
        .find_map(|d| d.mac_address())
        .unwrap();
    assert!(mac.starts_with("00:50:56:"), "{mac}");
    let devices: Vec<VirtualDevice> = c
        .properties(&vm, &["config.hardware.device"])
        .await
        .unwrap()
        .items("config.hardware.device")
        .unwrap();
    assert_eq!(devices, info.hardware.device);

    c.reconfigure_vm(
        &vm,
        VirtualMachineConfigSpec {
            memory_mb: Some(512),
            extra_config: vec![
                OptionValue::text("mooring.id", ""),
                OptionValue::text("mooring.state", "{\"a\":\"é\\\"|\"}"),
            ],
            ..Default::default()
        },
    )
    .await
    .unwrap();
    let extra: Vec<OptionValue> = c
        .properties(&vm, &["config.extraConfig"])
        .await
        .unwrap()
        .items("config.extraConfig")
        .unwrap();
    assert_eq!(extra.len(), 1);
    assert_eq!(
        (extra[0].key.as_str(), extra[0].as_text()),
        ("mooring.state", "{\"a\":\"é\\\"|\"}")
    );

    c.power_on(&vm).await.unwrap();
    assert_eq!(rig.power_state(&vm).await, PowerState::PoweredOn);
    let wrong = c.power_on(&vm).await.unwrap_err();
    assert!(
        matches!(
            wrong.kind(),
            Some(FaultKind::InvalidPowerState {
                existing_state: PowerState::PoweredOn,
                ..
            })
        ),
        "{wrong}"
    );
    let wrong = c.destroy_vm(&vm).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InvalidPowerState { .. })),
        "{wrong}"
    );
    let wrong = c.unregister_vm(&vm).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InvalidPowerState { .. })),
        "{wrong}"
    );
    c.rename(&vm, "renamed").await.unwrap();
    c.reset(&vm).await.unwrap();
    c.power_off(&vm).await.unwrap();
    let wrong = c.power_off(&vm).await.unwrap_err();
    assert!(
        matches!(
            wrong.kind(),
            Some(FaultKind::InvalidPowerState {
                existing_state: PowerState::PoweredOff,
                ..
            })
        ),
        "{wrong}"
    );
    let name: String = c.property(&vm, "name").await.unwrap().unwrap();
    assert_eq!(name, "renamed");
    c.power_on(&vm).await.unwrap();
    c.shutdown_guest(&vm).await.unwrap();
    assert_eq!(rig.power_state(&vm).await, PowerState::PoweredOff);

    let events = c.events(EventFilterSpec::default()).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|e| e.kind.as_str()).collect();
    for kind in [
        "VmCreatedEvent",
        "VmReconfiguredEvent",
        "VmPoweredOnEvent",
        "VmRenamedEvent",
        "VmPoweredOffEvent",
    ] {
        assert!(kinds.contains(&kind), "{kind} is missing in {kinds:?}");
    }
    c.destroy_vm(&vm).await.unwrap();
    assert!(
        c.properties(&vm, &["name"])
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(c.power_on(&vm).await.unwrap_err().is_not_found());
    assert!(
        !rig.serving.host.store.root().join("web").exists(),
        "the folder is gone"
    );
}

#[tokio::test]
async fn a_change_at_run_time_is_gone_at_power_off() {
    let rig = Rig::new().await;
    let c = &rig.client;
    let vm = rig.create(container("web", None)).await.unwrap();
    c.power_on(&vm).await.unwrap();
    let extra = |value: &str| VirtualMachineConfigSpec {
        extra_config: vec![
            OptionValue::text("mooring.link.resume", value),
            OptionValue::text("mooring.id", ""),
        ],
        ..Default::default()
    };
    c.reconfigure_vm(&vm, extra("key")).await.unwrap();
    let read = async || -> Vec<(String, String)> {
        let found: Vec<OptionValue> = c
            .properties(&vm, &["config.extraConfig"])
            .await
            .unwrap()
            .items("config.extraConfig")
            .unwrap();
        found
            .iter()
            .map(|o| (o.key.clone(), o.as_text().to_owned()))
            .collect()
    };
    assert_eq!(
        read().await,
        [("mooring.link.resume".to_owned(), "key".to_owned())]
    );
    let memory = VirtualMachineConfigSpec {
        memory_mb: Some(1024),
        ..Default::default()
    };
    let wrong = c.reconfigure_vm(&vm, memory).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InvalidPowerState { .. })),
        "{wrong}"
    );
    c.power_off(&vm).await.unwrap();
    assert_eq!(read().await, [("mooring.id".to_owned(), "abc".to_owned())]);
}

#[tokio::test]
async fn a_name_is_given_once() {
    let rig = Rig::new().await;
    let a = rig.create(named("a")).await.unwrap();
    let wrong = rig.create(named("a")).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::DuplicateName { name, object }) if name == "a" && *object == a),
        "{wrong}"
    );
    let b = rig.create(named("b")).await.unwrap();
    let wrong = rig.client.rename(&b, "a").await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::DuplicateName { .. })),
        "{wrong}"
    );
    let c = &rig.client;
    assert_eq!(
        c.find_by_path("ha-datacenter/vm/b").await.unwrap(),
        Some(b.clone())
    );
    assert_eq!(
        c.find_child(&hostsim::inventory::vm_folder(), "a")
            .await
            .unwrap(),
        Some(a.clone())
    );
    let uuid: String = c.property(&a, "config.uuid").await.unwrap().unwrap();
    assert_eq!(
        c.find_vm_by_uuid(&uuid.to_uppercase()).await.unwrap(),
        Some(a)
    );
    assert_eq!(c.find_by_path("ha-datacenter/vm/none").await.unwrap(), None);
}

#[tokio::test]
async fn a_failed_creation_leaves_nothing_and_takes_nothing() {
    let rig = Rig::new().await;
    let wrong = rig
        .create(container("web", Some("[datastore1] none/none.vmdk")))
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::FileNotFound { .. })),
        "{wrong}"
    );
    assert_eq!(
        std::fs::read_dir(rig.serving.host.store.root())
            .unwrap()
            .count(),
        0
    );
    let first = rig.create(container("web", None)).await.unwrap();
    // A second VM that is to make the first one's disk: the disk stays.
    let mut spec = container("other", None);
    let backing = DiskBacking::new("[datastore1] web/web.vmdk");
    spec.device_change[1] =
        VirtualDeviceConfigSpec::create(VirtualDevice::disk(-2, -1, 0, backing, 1024));
    let wrong = rig.create(spec).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::FileAlreadyExists { .. })),
        "{wrong}"
    );
    rig.client.power_on(&first).await.unwrap();
    assert_eq!(
        std::fs::read_dir(rig.serving.host.store.root())
            .unwrap()
            .count(),
        1
    );
}

#[tokio::test]
async fn destroying_a_vm_spares_what_others_are_built_on() {
    let rig = Rig::new().await;
    let c = &rig.client;
    let base = path("image/base.vmdk");
    c.make_directory(None, &path("image"), false).await.unwrap();
    c.create_virtual_disk(None, &base, 1 << 20).await.unwrap();
    let vm = rig
        .create(container("web", Some(&base.to_string())))
        .await
        .unwrap();
    let guard = rig
        .create(container("guard", Some(&base.to_string())))
        .await
        .unwrap();
    let info: VirtualMachineConfigInfo = c.property(&vm, "config").await.unwrap().unwrap();
    let backing = info
        .hardware
        .device
        .iter()
        .find_map(|d| d.disk_backing())
        .unwrap();
    assert_eq!(backing.parent.as_ref().unwrap().file_name, base.to_string());
    let wrong = c.delete_virtual_disk(None, &base).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::FileLocked { .. })),
        "{wrong}"
    );
    c.destroy_vm(&vm).await.unwrap();
    assert!(
        rig.serving
            .host
            .store
            .root()
            .join("image/base.vmdk")
            .exists(),
        "the guard keeps it"
    );
    // The last one takes the chain along, as vCenter does.
    c.destroy_vm(&guard).await.unwrap();
    assert!(
        !rig.serving
            .host
            .store
            .root()
            .join("image/base.vmdk")
            .exists()
    );
}

#[tokio::test]
async fn a_disk_that_is_detached_first_outlives_its_vm() {
    let rig = Rig::new().await;
    let c = &rig.client;
    let vm = rig.create(container("web", None)).await.unwrap();
    let info: VirtualMachineConfigInfo = c.property(&vm, "config").await.unwrap().unwrap();
    let disk = info
        .hardware
        .device
        .into_iter()
        .find(|d| d.disk_backing().is_some())
        .unwrap();
    let spec = VirtualMachineConfigSpec {
        device_change: vec![VirtualDeviceConfigSpec::remove(disk.clone())],
        ..Default::default()
    };
    c.reconfigure_vm(&vm, spec.clone()).await.unwrap();
    let wrong = c.reconfigure_vm(&vm, spec).await.unwrap_err();
    assert!(
        matches!(
            wrong.kind(),
            Some(FaultKind::DeviceNotFound {
                device_index: 0,
                ..
            })
        ),
        "{wrong}"
    );
    c.destroy_vm(&vm).await.unwrap();
    c.file_head("ha-datacenter", &path("web/web.vmdk"))
        .await
        .unwrap();
    c.delete_file(None, &path("web")).await.unwrap();
}

#[tokio::test]
async fn an_unregistered_vm_can_be_registered_again() {
    let rig = Rig::new().await;
    let c = &rig.client;
    let mut spec = container("web", None);
    spec.files = Some(VirtualMachineFileInfo {
        vm_path_name: Some("[datastore1] own/web.vmx".into()),
        ..Default::default()
    });
    spec.device_change.truncate(3);
    let vm = rig.create(spec).await.unwrap();
    let before: VirtualMachineConfigInfo = c.property(&vm, "config").await.unwrap().unwrap();
    let folder = hostsim::inventory::vm_folder();
    let pool = hostsim::inventory::resource_pool();
    let wrong = c
        .register_vm(&folder, &path("own/web.vmx"), &pool)
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::AlreadyExists { .. })),
        "{wrong}"
    );
    c.unregister_vm(&vm).await.unwrap();
    assert!(
        c.list(&folder, "VirtualMachine", &["name"])
            .await
            .unwrap()
            .is_empty()
    );
    let vm = c
        .register_vm(&folder, &path("own/web.vmx"), &pool)
        .await
        .unwrap();
    let after: VirtualMachineConfigInfo = c.property(&vm, "config").await.unwrap().unwrap();
    assert_eq!(after, before);
    let wrong = c
        .register_vm(&folder, &path("none/web.vmx"), &pool)
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::FileNotFound { .. })),
        "{wrong}"
    );
}

/// A VM with a disk that exists, in this mode.
fn with_disk(name: &str, disk: &DatastorePath, mode: &str) -> VirtualMachineConfigSpec {
    let mut spec = container(name, None);
    let mut backing = DiskBacking::new(&disk.to_string());
    backing.disk_mode = mode.to_owned();
    let device = VirtualDevice::disk(-5, 1000, 1, backing, 1024);
    spec.device_change
        .push(VirtualDeviceConfigSpec::add(device));
    spec
}

#[tokio::test]
async fn a_disk_that_a_running_vm_writes_to_must_not_be_opened_by_another() {
    let rig = Rig::new().await;
    let c = &rig.client;
    let disk = path("[datastore1] shared.vmdk");
    c.create_virtual_disk(None, &disk, 1 << 20).await.unwrap();
    let writes = "independent_persistent";
    let reads = "independent_nonpersistent";
    let mut vms = Vec::new();
    for (name, mode) in [("w1", writes), ("w2", writes), ("r1", reads), ("r2", reads)] {
        vms.push(rig.create(with_disk(name, &disk, mode)).await.unwrap());
    }
    let refused = async |vm: &ManagedObjectReference| {
        let error = c.power_on(vm).await.unwrap_err();
        let Some(FaultKind::GenericVmConfigFault { reason }) = error.kind() else {
            panic!("{error}")
        };
        assert_eq!(reason, "Failed to lock the file");
        assert!(error.to_string().contains("shared.vmdk"), "{error}");
        assert_eq!(rig.power_state(vm).await, PowerState::PoweredOff);
    };
    c.power_on(&vms[0]).await.unwrap();
    refused(&vms[1]).await;
    refused(&vms[2]).await;
    c.power_off(&vms[0]).await.unwrap();
    c.power_on(&vms[2]).await.unwrap();
    c.power_on(&vms[3]).await.unwrap();
    refused(&vms[0]).await;
    c.power_off(&vms[2]).await.unwrap();
    refused(&vms[0]).await;
    c.power_off(&vms[3]).await.unwrap();
    c.power_on(&vms[1]).await.unwrap();
}
