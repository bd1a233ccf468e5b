//! vSphere's limits, and what the host announces.

use super::*;
use hostsim::serve::Strict;
use vim::FaultKind;

#[tokio::test]
async fn guestinfo_is_limited_by_value_and_in_all() {
    let rig = Rig::new().await;
    let vm = rig.create(named("a")).await.unwrap();
    let set = async |key: &str, size: usize| {
        let extra_config = vec![OptionValue::text(key, "x".repeat(size))];
        rig.client
            .reconfigure_vm(
                &vm,
                VirtualMachineConfigSpec {
                    extra_config,
                    ..Default::default()
                },
            )
            .await
    };
    set("guestinfo.a", 65536).await.unwrap();
    let wrong = set("guestinfo.a", 65537).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InvalidArgument { invalid_property: Some(p) }) if p.contains("extraConfig")),
        "{wrong}"
    );
    for n in 0..14 {
        set(&format!("guestinfo.b{n}"), 65536).await.unwrap();
    }
    assert!(set("guestinfo.c", 65536).await.is_err());
    set("mooring.large", 200_000).await.unwrap();
    rig.client.power_on(&vm).await.unwrap();
    assert!(set("guestinfo.c", 65536).await.is_err());
}

#[tokio::test]
async fn the_eleventh_network_card_is_refused() {
    let rig = Rig::new().await;
    let cards = |n: i32| VirtualMachineConfigSpec {
        device_change: (0..n)
            .map(|i| {
                VirtualDeviceConfigSpec::add(VirtualDevice::vmxnet3(-1 - i, "VM Network", None))
            })
            .collect(),
        ..named(&format!("cards-{n}"))
    };
    let vm = rig.create(cards(10)).await.unwrap();
    let macs: std::collections::HashSet<String> = {
        let info: VirtualMachineConfigInfo =
            rig.client.property(&vm, "config").await.unwrap().unwrap();
        info.hardware
            .device
            .iter()
            .filter_map(|d| d.mac_address())
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(macs.len(), 10);
    let wrong = rig.create(cards(11)).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::TooManyDevices { .. })),
        "{wrong}"
    );
}

#[tokio::test]
async fn a_chain_of_nested_parents_that_is_too_deep_is_refused_in_vsphere_s_words() {
    let rig = Rig::new().await;
    let nested = |depth: usize| {
        let mut backing = DiskBacking::new("[datastore1] image/0.vmdk");
        for n in 1..depth {
            backing = DiskBacking::child_of(&format!("[datastore1] image/{n}.vmdk"), backing);
        }
        let disk = VirtualDevice::disk(-2, -1, 0, backing, 1024);
        VirtualMachineConfigSpec {
            device_change: vec![
                VirtualDeviceConfigSpec::add(VirtualDevice::pvscsi(-1, 0)),
                VirtualDeviceConfigSpec::create(disk),
            ],
            ..named("deep")
        }
    };
    let wrong = rig.create(nested(95)).await.unwrap_err();
    assert!(
        wrong
            .to_string()
            .contains("XML element depth exceeds configured maximum 100"),
        "{wrong}"
    );
    // One that is not too deep fails for another reason: its files do not exist.
    let wrong = rig.create(nested(80)).await.unwrap_err();
    assert!(wrong.is_not_found(), "{wrong}");
}

#[tokio::test]
async fn wrong_specifications_name_what_is_wrong() {
    let rig = Rig::new().await;
    let with = |spec: VirtualMachineConfigSpec| VirtualMachineConfigSpec {
        name: Some("a".into()),
        ..spec
    };
    for (spec, property) in [
        (
            VirtualMachineConfigSpec {
                memory_mb: Some(3),
                ..Default::default()
            },
            "configSpec.memoryMB",
        ),
        (
            VirtualMachineConfigSpec {
                num_cpus: Some(0),
                ..Default::default()
            },
            "configSpec.numCPUs",
        ),
        (
            VirtualMachineConfigSpec {
                firmware: Some("x".into()),
                ..Default::default()
            },
            "configSpec.firmware",
        ),
        (
            VirtualMachineConfigSpec {
                uuid: Some("x".into()),
                ..Default::default()
            },
            "configSpec.uuid",
        ),
    ] {
        let wrong = rig.create(with(spec)).await.unwrap_err();
        assert!(
            matches!(wrong.kind(), Some(FaultKind::InvalidArgument { invalid_property: Some(p) }) if p == property),
            "{property}: {wrong}"
        );
    }
    let no_controller = VirtualDevice::disk(-2, 1003, 0, DiskBacking::new(""), 1024);
    let spec = VirtualMachineConfigSpec {
        device_change: vec![VirtualDeviceConfigSpec::create(no_controller)],
        ..Default::default()
    };
    let wrong = rig.create(with(spec)).await.unwrap_err();
    assert!(
        matches!(
            wrong.kind(),
            Some(FaultKind::InvalidDeviceSpec {
                device_index: 0,
                ..
            })
        ),
        "{wrong}"
    );
    let wrong = rig
        .create(VirtualMachineConfigSpec::default())
        .await
        .unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InvalidName { .. })),
        "{wrong}"
    );
}

#[tokio::test]
async fn a_full_datastore_says_so() {
    let rig = Rig::with(|args| args.datastore_size = Some(1 << 20)).await;
    let wrong = rig
        .client
        .file_put("ha-datacenter", &path("x"), vec![1; 2 << 20])
        .await
        .unwrap_err();
    assert!(
        matches!(wrong, vim::Error::Status { status: 507, .. }),
        "{wrong}"
    );
    rig.client
        .file_put("ha-datacenter", &path("x"), vec![1; 1 << 20])
        .await
        .unwrap();
    let wrong = rig.create(container("web", None)).await.unwrap_err();
    assert!(
        matches!(wrong.kind(), Some(FaultKind::InsufficientStorageSpace {})),
        "{wrong}"
    );
    let summary: DatastoreSummary = rig
        .client
        .property(&hostsim::inventory::datastore(), "summary")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((summary.capacity, summary.free_space), (1 << 20, 0));
}

#[tokio::test]
async fn an_upload_without_room_is_cut_off_where_it_is_asked_for() {
    let rig = Rig::with(|args| {
        args.datastore_size = Some(1 << 20);
        args.cut_off_uploads = true;
    })
    .await;
    let place = path("x");
    let put = |bytes| rig.client.file_put("ha-datacenter", &place, vec![1; bytes]);
    let wrong = put(2 << 20).await.unwrap_err();
    assert!(matches!(wrong, vim::Error::Http { .. }), "{wrong}");
    put(1 << 20).await.unwrap();
}

#[tokio::test]
async fn only_what_is_announced_is_taken() {
    let sparse = [b"KDMV".as_slice(), &[0; 508]].concat();
    for (strict, upload, link) in [
        (None, true, true),
        (Some(Strict::Link), true, false),
        (Some(Strict::All), false, false),
    ] {
        let rig = Rig::with(|args| args.strict = strict).await;
        let options = rig.client.options("mooring.").await.unwrap();
        let keys: Vec<&str> = options.iter().map(|o| o.key.as_str()).collect();
        assert_eq!(keys.contains(&"mooring.disk.upload"), upload, "{strict:?}");
        assert_eq!(keys.contains(&"mooring.link.vsock"), link, "{strict:?}");
        assert_eq!(keys.contains(&"mooring.boot.kernel"), link, "{strict:?}");
        let put = rig
            .client
            .file_put("ha-datacenter", &path("x.vmdk"), sparse.clone())
            .await;
        assert_eq!(put.is_ok(), upload, "{strict:?}: {put:?}");
        assert!(rig.client.options("nothing.").await.unwrap().is_empty());
    }
}
