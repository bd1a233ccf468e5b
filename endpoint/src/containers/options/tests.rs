use super::*;
use serde_json::json;

fn host(value: Value) -> Result<Options> {
    check_host(value.as_object().unwrap())
}

/// What Docker's CLI 28 sends with `docker run -it`.
fn cli_default() -> Value {
    json!({
        "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}},
        "NetworkMode": "default", "PortBindings": {},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false,
        "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [24, 80], "CapAdd": null,
        "CapDrop": null, "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [],
        "ExtraHosts": null, "GroupAdd": null, "IpcMode": "", "Cgroup": "", "Links": null,
        "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false,
        "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
        "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0,
        "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [],
        "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0,
        "CpusetCpus": "", "CpusetMems": "", "Devices": [], "DeviceCgroupRules": null,
        "DeviceRequests": null, "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": -1,
        "OomKillDisable": false, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0, "CpuPercent": 0,
        "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": null, "ReadonlyPaths": null,
    })
}

#[test]
fn the_clients_defaults_ask_for_nothing() {
    let options = host(cli_default()).unwrap();
    assert_eq!(
        options,
        Options {
            console_size: Some((24, 80)),
            ..Options::default()
        }
    );
}

#[test]
fn every_field_of_the_api_description_is_known() {
    let fields = cli_default();
    let more = [
        "KernelMemoryTCP",
        "Init",
        "Mounts",
        "Annotations",
        "StorageOpt",
        "Tmpfs",
        "Sysctls",
        "Runtime",
    ];
    for field in fields
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .chain(more)
    {
        assert!(
            table::TAKEN.contains(&field) || table::refusal(field).is_some(),
            "{field}"
        );
    }
}

#[test]
fn an_unsupported_option_is_refused_by_its_name_and_never_ignored() {
    for (field, value, option) in [
        ("Privileged", json!(true), "--privileged"),
        (
            "SecurityOpt",
            json!(["systempaths=unconfined"]),
            "--security-opt",
        ),
        ("PidMode", json!("host"), "--pid"),
        ("IpcMode", json!("host"), "--ipc host"),
        (
            "LogConfig",
            json!({"Type": "syslog"}),
            "--log-driver syslog",
        ),
        (
            "LogConfig",
            json!({"Type": "", "Config": {"tag": "x"}}),
            "--log-opt",
        ),
        ("MaskedPaths", json!([]), "MaskedPaths"),
        ("MemorySwap", json!(-1), "--memory-swap"),
        ("CapAdd", json!(["ALL"]), "--cap-add ALL"),
        ("CapAdd", json!(["MKNOD"]), "--cap-add MKNOD"),
        ("Tomorrow", json!("x"), "Tomorrow"),
    ] {
        let error = host(json!({ field: value })).unwrap_err();
        assert_eq!(error.kind, Kind::NotImplemented, "{field}");
        assert!(
            error.message.starts_with(option) || error.message.contains(option),
            "{}",
            error.message
        );
    }
}

#[test]
fn wrong_values_are_bad_parameters() {
    for value in [
        json!({"Memory": 1024}),
        json!({"Memory": -1}),
        json!({"Memory": "x"}),
        json!({"NanoCpus": 9_999_999}),
        json!({"NanoCpus": -1}),
        json!({"NanoCpus": i64::MAX}),
        json!({"NanoCpus": 1_000_000_000, "CpuCount": 2}),
        json!({"CpuQuota": 999}),
        json!({"CpuQuota": 50_000, "CpuPeriod": 999}),
        json!({"CpuQuota": 50_000, "CpuPeriod": 1_000_001}),
        json!({"CpuQuota": i64::MAX}),
        json!({"Dns": ["x"]}),
        json!({"ExtraHosts": ["x"]}),
        json!({"ExtraHosts": ["x:y"]}),
        json!({"CapAdd": ["FOO"]}),
        json!({"ShmSize": -1}),
        json!({"RestartPolicy": {"Name": "sometimes"}}),
        json!({"ConsoleSize": [1]}),
        json!({"PortBindings": {"80/icmp": []}}),
        json!({"AutoRemove": "yes"}),
    ] {
        assert_eq!(
            host(value.clone()).unwrap_err().kind,
            Kind::BadParameter,
            "{value}"
        );
    }
}

#[test]
fn supported_options_reach_the_vm() {
    let options = host(json!({
        "Memory": 513 * 1024 * 1024, "NanoCpus": 2_000_000_000i64, "PublishAllPorts": true,
        "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
        "Dns": ["1.1.1.1"], "ExtraHosts": ["a:10.0.0.1", "b=[::1]", "c:host-gateway"], "CapAdd": ["net_admin"],
        "CapDrop": ["ALL"], "Init": true, "ReadonlyRootfs": true, "ShmSize": 65536,
        "AutoRemove": true, "GroupAdd": ["audio"],
    }))
    .unwrap();
    assert_eq!(options.memory_mib, Some(516));
    assert_eq!(options.cpus, Some(2));
    assert!(options.init && options.read_only && options.auto_remove);
    assert!(options.publish_all && options.ports[0].range == (8080, 8080));
    assert_eq!(options.cap_add, ["CAP_NET_ADMIN"]);
    let [_, b, c] = &options.extra_hosts[..] else {
        panic!("{:?}", options.extra_hosts)
    };
    assert_eq!(b, &("::1".to_owned(), "b".to_owned()));
    assert_eq!(c, &("host-gateway".to_owned(), "c".to_owned()));
    assert_eq!(host(json!({"CpuQuota": 200_000})).unwrap().cpus, Some(2));
}

#[test]
fn a_part_of_a_cpu_is_a_vm_with_the_next_whole_one_and_a_limit_of_its_time() {
    for (given, count, time) in [
        (json!({}), None, None),
        (json!({"CpuQuota": -1}), None, None),
        (json!({"CpuPeriod": 50_000}), None, None),
        (json!({"NanoCpus": 1_000_000_000}), Some(1), None),
        (
            json!({"NanoCpus": 500_000_000}),
            Some(1),
            Some((50_000, 100_000)),
        ),
        (
            json!({"NanoCpus": 10_000_000}),
            Some(1),
            Some((1_000, 100_000)),
        ),
        (
            json!({"NanoCpus": 2_010_000_000i64}),
            Some(3),
            Some((201_000, 100_000)),
        ),
        (
            json!({"CpuQuota": 30_000, "CpuPeriod": 20_000}),
            Some(2),
            Some((30_000, 20_000)),
        ),
        (
            json!({"CpuQuota": 40_000, "CpuPeriod": 20_000}),
            Some(2),
            None,
        ),
    ] {
        let options = host(given.clone()).unwrap();
        let cpu = options.limits.cpu.map(|cpu| (cpu.quota, cpu.period));
        assert_eq!((options.cpus, cpu), (count, time), "{given}");
    }
}

#[test]
fn memory_that_is_reserved_is_had_where_none_is_given() {
    const MIB: i64 = 1024 * 1024;
    let with =
        |reserved: i64, memory: i64| host(json!({"MemoryReservation": reserved, "Memory": memory}));
    assert_eq!(with(0, 0).unwrap().reserved_mib, 0);
    // Rounded up to what vSphere takes.
    assert_eq!(with(513 * MIB, 0).unwrap().reserved_mib, 516);
    assert_eq!(with(64 * MIB, 64 * MIB).unwrap().memory_mib, Some(64));
    for (reserved, memory, why) in [
        (6 * MIB - 1, 0, "Minimum memory reservation allowed is 6MB"),
        (-1, 0, "Minimum memory reservation allowed is 6MB"),
        (
            65 * MIB,
            64 * MIB,
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (i64::MAX, 0, "more than a VM can have"),
    ] {
        let error = with(reserved, memory).unwrap_err();
        assert_eq!(error.kind, Kind::BadParameter);
        assert!(error.message.contains(why), "{}", error.message);
    }
    let update = json!({"MemoryReservation": 64 * MIB});
    assert!(check_update(update.as_object().unwrap()).is_err());
}

#[test]
fn wrong_health_checks_and_unknown_fields_are_refused_in_the_configuration() {
    let check = |value: Value| check_config(value.as_object().unwrap());
    assert!(check(json!({"Volumes": {}, "Healthcheck": null, "Image": "x"})).is_ok());
    assert!(check(json!({"Healthcheck": {"Test": ["NONE"]}})).is_ok());
    assert!(check(json!({"Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000}})).is_ok());
    assert!(check(json!({"Healthcheck": {"Interval": 999_999}})).is_err());
    assert!(check(json!({"Healthcheck": {"Retries": -1}})).is_err());
    assert!(check(json!({"Volumes": {"/data": {}}})).is_ok());
    assert!(check(json!({"Surprise": 1})).is_err());
}

#[test]
fn the_page_of_compatibility_names_every_option_that_is_refused() {
    let page = include_str!("../../../../docs/docker-compatibility.md");
    let all = table::REFUSED.iter().flat_map(|(_, fields)| *fields);
    let options = all.filter(|(_, option)| option.starts_with("--"));
    let missing: Vec<_> = options
        .filter(|(_, option)| !page.contains(&format!("`{option}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
