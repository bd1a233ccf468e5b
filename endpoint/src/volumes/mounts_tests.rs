use super::*;
use crate::errors::Kind;
use serde_json::json;

fn read(host: Value) -> Result<Requested> {
    Requested::read(host.as_object().unwrap())
}

fn bind_of(text: &str) -> Result<Wanted> {
    Ok(read(json!({ "Binds": [text] }))?.mounts.remove(0))
}

#[test]
fn binds_of_volumes_are_read_as_docker_reads_them() {
    let plain = bind_of("data:/var//lib/./x/").unwrap();
    assert_eq!(plain.volume.name.as_deref(), Some("data"));
    assert_eq!(
        (plain.target.as_str(), plain.read_only, plain.copy),
        ("/var/lib/x", false, true)
    );
    let both = bind_of("data:/x:ro,nocopy").unwrap();
    assert_eq!(
        (both.read_only, both.copy, both.mode.as_str()),
        (true, false, "ro,nocopy")
    );
    assert_eq!(bind_of("data:/x:rw,Z").unwrap().mode, "rw,Z");
    assert_eq!(bind_of("/only").unwrap().volume.name, None);
    for (wrong, part) in [
        ("", "invalid volume specification: ''"),
        ("a1:/b:ro:x", "invalid volume specification: 'a1:/b:ro:x'"),
        ("a1:ro", "invalid volume specification: 'a1:ro'"),
        ("a1:/b:what", "invalid mode: what"),
        ("a1:/b:ro,rw", "invalid mode: ro,rw"),
        (
            "a1:b",
            "invalid mount path: 'b' mount path must be absolute",
        ),
        ("a1:/", "destination can't be '/'"),
        ("a1:/x/..", "destination can't be '/'"),
        ("a1:/proc/sys", "cannot be mounted"),
        (
            "./a:/b",
            "includes invalid characters for a local volume name",
        ),
    ] {
        let error = bind_of(wrong).unwrap_err();
        assert_eq!(error.kind, Kind::BadParameter, "{wrong}");
        assert!(error.message.contains(part), "{}", error.message);
    }
}

#[test]
fn paths_of_the_machine_are_read_in_both_forms() {
    let requested = read(json!({
        "Binds": ["/etc/../srv/a:/mnt", "/srv/b:/b:ro,z,cached"],
        "Mounts": [{"Type": "bind", "Source": "/srv/c", "Target": "/c", "ReadOnly": true,
            "BindOptions": {"Propagation": "rprivate", "CreateMountpoint": true}}],
    }))
    .unwrap();
    let found = requested.shares.iter();
    let found = found.map(|s| (s.source.as_str(), s.target.as_str(), s.read_only, s.create));
    let want = [
        ("/srv/a", "/mnt", false, true),
        ("/srv/b", "/b", true, true),
        ("/srv/c", "/c", true, true),
    ];
    assert_eq!(found.collect::<Vec<_>>(), want);
}

#[test]
fn wrong_paths_of_the_machine_are_refused() {
    for (host, part) in [
        (json!({"Binds": ["/srv:/mnt:rw,ro"]}), "invalid mode: rw,ro"),
        (
            json!({"Binds": ["/srv:/mnt:nocopy"]}),
            "invalid mode: nocopy",
        ),
        (
            json!({"Binds": ["/srv:/mnt:rshared"]}),
            "propagation rshared",
        ),
        (
            json!({"Binds": ["/srv:mnt"]}),
            "mount path must be absolute",
        ),
        (json!({"Binds": ["/srv:/"]}), "destination can't be '/'"),
        (
            json!({"Binds": ["/srv:/x", "/srv/y:/x/"]}),
            "Duplicate mount point: /x",
        ),
        (
            json!({"Mounts": [{"Type": "bind", "Target": "/x"}]}),
            "Source must not be empty",
        ),
        (
            json!({"Mounts": [{"Type": "bind", "Source": "srv", "Target": "/x"}]}),
            "absolute",
        ),
        (
            json!({"Mounts": [{"Type": "bind", "Source": "/srv", "Target": "/x", "VolumeOptions": {}}]}),
            "VolumeOptions must not be specified",
        ),
    ] {
        let error = read(host).unwrap_err();
        assert_eq!(error.kind, Kind::BadParameter);
        assert!(error.message.contains(part), "{}", error.message);
    }
}

#[test]
fn mounts_are_read_with_all_their_options() {
    let requested = read(json!({"Mounts": [{
        "Type": "volume", "Source": "data", "Target": "/x", "ReadOnly": true,
        "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}, "Subpath": "p/../q",
            "DriverConfig": {"Name": "local", "Options": {"Capacity": "1G"}}},
    }], "VolumesFrom": ["web", "db:ro"]}))
    .unwrap();
    let mount = &requested.mounts[0];
    assert_eq!(mount.volume.capacity, Some(1 << 30));
    assert_eq!(mount.volume.labels["a"], "b");
    assert_eq!(
        (mount.subpath.as_str(), mount.read_only, mount.copy),
        ("p/../q", true, false)
    );
    assert_eq!(
        requested.from,
        [("web".to_owned(), false), ("db".to_owned(), true)]
    );
    let with = |more: Value| {
        let mut entry = json!({"Type": "volume", "Source": "data", "Target": "/x"});
        for (name, value) in more.as_object().unwrap() {
            entry[name] = value.clone();
        }
        read(json!({ "Mounts": [entry] }))
    };
    assert!(with(json!({})).is_ok());
    for (more, part) in [
        (
            json!({"Target": ""}),
            "invalid mount config for type \"volume\": field Target must not be empty",
        ),
        (
            json!({"Target": "x"}),
            "invalid mount path: 'x' mount path must be absolute",
        ),
        (json!({"Target": "/"}), "destination can't be '/'"),
        (json!({"Type": "floppy"}), "mount type unknown"),
        (
            json!({"BindOptions": {}}),
            "field BindOptions must not be specified",
        ),
        (
            json!({"Source": "", "ReadOnly": true}),
            "must not set ReadOnly mode",
        ),
        (
            json!({"Source": "", "VolumeOptions": {"Subpath": "a"}}),
            "must not set Subpath",
        ),
        (
            json!({"VolumeOptions": {"Subpath": "a/../../b"}}),
            "subpath must be a relative path",
        ),
        (
            json!({"VolumeOptions": {"Subpath": "/a"}}),
            "subpath must be a relative path",
        ),
        (
            json!({"VolumeOptions": {"DriverConfig": {"Name": "nfs"}}}),
            "plugin \"nfs\" not found",
        ),
        (json!({"ReadOnly": 1}), "ReadOnly must be a boolean"),
    ] {
        let error = with(more).unwrap_err();
        assert!(error.message.contains(part), "{}", error.message);
    }
}

#[test]
fn a_mount_point_is_there_once() {
    let error = read(json!({"Binds": ["a1:/x", "b1:/x/"]})).unwrap_err();
    assert_eq!(error.message, "Duplicate mount point: /x");
    for wrong in ["", ":ro", "x:nocopy", "x:y"] {
        assert!(read(json!({ "VolumesFrom": [wrong] })).is_err(), "{wrong}");
    }
}

#[test]
fn a_disk_is_attached_once_and_written_to_if_one_mount_does() {
    let mount = |volume: &str, target: &str, read_only| MountPoint {
        volume: volume.to_owned(),
        uuid: String::new(),
        capacity: 0,
        nfs: None,
        target: target.to_owned(),
        subpath: String::new(),
        read_only,
        copy: true,
        anonymous: false,
        mode: String::new(),
    };
    let mounts = [
        mount("b", "/1", true),
        mount("a", "/2", true),
        mount("b", "/3", false),
    ];
    let found: Vec<_> = disks(&mounts)
        .into_iter()
        .map(|(mount, writes)| (mount.volume.as_str(), writes))
        .collect();
    assert_eq!(found, [("b", true), ("a", false)]);
}

#[test]
fn nothing_in_a_mount_is_ignored() {
    let bind = |options: Value| json!({"Type": "bind", "Source": "/srv", "Target": "/x", "BindOptions": options});
    for (mount, part) in [
        (
            bind(json!({"NonRecursive": true})),
            "bind-recursive=disabled",
        ),
        (
            bind(json!({"ReadOnlyNonRecursive": true})),
            "bind-recursive=writable",
        ),
        (bind(json!({"Surprise": true})), "BindOptions.Surprise"),
        (
            json!({"Type": "volume", "Target": "/x", "VolumeOptions": {"Size": 1}}),
            "VolumeOptions.Size",
        ),
        (
            json!({"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Size": 1}}),
            "TmpfsOptions.Size",
        ),
        (
            json!({"Type": "volume", "Target": "/tmpfs"}),
            "Duplicate mount point: /tmpfs",
        ),
        (
            json!({"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Name": "nosuch"}}}),
            "plugin \"nosuch\" not found",
        ),
        (
            json!({"Type": "volume", "Target": "/x", "Owner": "me"}),
            "Owner",
        ),
        (
            json!({"Type": "volume", "Target": "/x", "Consistency": "eventual"}),
            "eventual",
        ),
    ] {
        let error = read(json!({ "Mounts": [mount], "Tmpfs": {"/tmpfs/": ""} })).unwrap_err();
        // Not that it is not found: the client would pull the image.
        assert_ne!(error.kind, Kind::NotFound);
        assert!(error.message.contains(part), "{}", error.message);
    }
    let taken = [
        bind(json!({"ReadOnlyForceRecursive": true, "NonRecursive": false})),
        json!({"Type": "volume", "Target": "/y", "Consistency": "cached"}),
    ];
    assert!(read(json!({ "Mounts": taken })).is_ok());
}
