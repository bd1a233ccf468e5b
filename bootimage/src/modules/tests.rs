use super::*;
use crate::testing::elf_module;

/// A kernel folder with modules of these names and modinfos.
fn kernel(modules: &[(&str, &str)], builtin: &str) -> (tempfile::TempDir, KernelPackage) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir_all(root.join("boot")).unwrap();
    std::fs::create_dir_all(root.join("lib/modules/6.1.0-test/kernel")).unwrap();
    std::fs::write(root.join("boot/vmlinuz-6.1.0-test"), b"kernel").unwrap();
    std::fs::write(root.join("lib/modules/6.1.0-test/modules.builtin"), builtin).unwrap();
    for (name, info) in modules {
        let path = root.join(format!("lib/modules/6.1.0-test/kernel/{name}.ko"));
        std::fs::write(path, elf_module(info.replace(';', "\0").as_bytes())).unwrap();
    }
    let package = KernelPackage::open(root).unwrap();
    (dir, package)
}

fn names(selection: &Selection) -> Vec<&str> {
    selection
        .modules
        .iter()
        .map(|module| module.name.as_str())
        .collect()
}

#[test]
fn each_module_comes_after_all_that_it_needs() {
    let (_dir, kernel) = kernel(
        &[
            ("sd_mod", "depends=scsi-mod,t10-pi;alias=scsi:t-0x00*;"),
            ("scsi_mod", "depends=scsi_common;"),
            ("scsi_common", "depends=;"),
            ("t10-pi", "depends=crc;"),
            ("crc", "depends=;"),
            ("vmw_pvscsi", "depends=scsi_mod;"),
            ("unrelated", "depends=;"),
        ],
        "",
    );
    let list = parse_list(
        "boot required sd_mod\ndevice required vmw_pvscsi pci:x*\n",
        "list",
    )
    .unwrap();
    let selection = select(&kernel, &list).unwrap();
    assert_eq!(
        names(&selection),
        [
            "scsi_common",
            "scsi_mod",
            "crc",
            "t10_pi",
            "sd_mod",
            "vmw_pvscsi"
        ]
    );
    assert_eq!(selection.modules[4].needs, [0, 1, 2, 3]);
    assert_eq!(selection.modules[4].aliases, ["scsi:t-0x00*"]);
    assert_eq!(selection.modules[5].needs, [0, 1]);
    assert_eq!(selection.modules[5].more_aliases, ["pci:x*"]);
    assert_eq!(selection.modules[1].group, "boot");
    assert!(!selection.modules[1].listed && selection.modules[4].listed);
}

#[test]
fn soft_dependencies_come_first_if_they_exist() {
    let (_dir, kernel) = kernel(
        &[
            ("a", "softdep=pre: b gone;depends=;"),
            ("b", "depends=;softdep=pre: a;"),
        ],
        "",
    );
    let selection = select(&kernel, &parse_list("x required a", "list").unwrap()).unwrap();
    assert_eq!(names(&selection), ["b", "a"]);
}

#[test]
fn a_soft_dependency_that_cannot_be_had_leaves_nothing() {
    let (_dir, kernel) = kernel(
        &[
            ("a", "softdep=pre: b c;depends=z;"),
            ("b", "depends=a;"),
            ("c", "depends=d,zz;"),
            ("d", "depends=;"),
            ("z", "depends=;"),
        ],
        "",
    );
    let list = parse_list("x required a\ny required d", "list").unwrap();
    let selection = select(&kernel, &list).unwrap();
    assert_eq!(names(&selection), ["z", "a", "d"]);
    assert_eq!(selection.modules[1].needs, [0]);
}

#[test]
fn what_the_list_says_of_a_module_counts_where_another_one_needed_it_first() {
    let (_dir, kernel) = kernel(
        &[
            ("nfs", "depends=sunrpc;"),
            ("sunrpc", "alias=pci:own*;alias=fs-rpc;"),
        ],
        "",
    );
    let list = "nfs required nfs\ndevice required sunrpc vmbus:b* usb:c*";
    let selection = select(&kernel, &parse_list(list, "list").unwrap()).unwrap();
    let lines = crate::order::lines(&selection.modules);
    assert_eq!(lines[0].name(), "sunrpc");
    assert_eq!(lines[0].group, "device");
    assert_eq!(lines[0].aliases, ["pci:own*", "vmbus:b*", "usb:c*"]);
    assert_eq!(lines[1].needs, [0]);
}

#[test]
fn built_in_is_fine_and_an_absent_optional_one_is_noted() {
    let (_dir, kernel) = kernel(&[("a", "depends=ext4;")], "kernel/fs/ext4/ext4.ko\n");
    let list = "x required ext4\nx optional nope\nx required a";
    let selection = select(&kernel, &parse_list(list, "list").unwrap()).unwrap();
    assert_eq!(names(&selection), ["a"]);
    assert_eq!(selection.builtin, ["ext4"]);
    assert_eq!(selection.absent, ["nope"]);
}

#[test]
fn a_required_module_that_does_not_exist_is_an_error_naming_the_nearest() {
    let (_dir, kernel) = kernel(&[("vmxnet3", "depends=;"), ("nfs", "depends=;")], "");
    let list = parse_list("x required vmxnet2", "list").unwrap();
    let error = select(&kernel, &list).unwrap_err().to_string();
    assert!(
        error.contains("6.1.0-test has no module `vmxnet2`"),
        "{error}"
    );
    assert!(error.contains("(nearest: vmxnet3)"), "{error}");
}

#[test]
fn a_dependency_that_does_not_exist_is_an_error() {
    let (_dir, kernel) = kernel(&[("a", "depends=zz;")], "");
    let error = select(&kernel, &parse_list("x optional a", "list").unwrap()).unwrap_err();
    assert!(error.to_string().contains("has no module `zz`"), "{error}");
}

#[test]
fn a_circle_is_an_error_that_shows_it() {
    let (_dir, kernel) = kernel(
        &[
            ("a", "depends=b;"),
            ("b", "depends=c;"),
            ("c", "depends=b;"),
        ],
        "",
    );
    let error = select(&kernel, &parse_list("x required a", "list").unwrap()).unwrap_err();
    assert!(error.to_string().ends_with("b -> c -> b"), "{error}");
}

#[test]
fn a_line_that_is_wrong_is_named_by_its_number() {
    let error = |text: &str| parse_list(text, "my.modules").unwrap_err().to_string();
    assert!(error("# ok\nboot maybe x").starts_with("my.modules, line 2: the second word"));
    assert!(error("boot required").contains("name is missing"));
    assert!(error("boot required ../x").contains("`../x` is not made of"));
    assert!(error("a required x\nb optional x").contains("line 2: `x` is there twice"));
}

#[test]
fn the_default_list_is_one() {
    let list = parse_list(DEFAULT_LIST, "default").unwrap();
    let wanted = |name: &str| list.iter().find(|want| want.name == name);
    // ESXi's devices and QEMU's, and the file systems and rules that a container may need.
    for name in [
        "vmw_pvscsi",
        "vmxnet3",
        "vmw_vsock_vmci_transport",
        "virtio_blk",
        "virtio_net",
        "vmw_vsock_virtio_transport",
        "virtio_console",
        "sr_mod",
        "ata_piix",
        "isofs",
        "ext4",
        "overlay",
        "loop",
        "nfs",
        "nf_tables",
    ] {
        assert!(wanted(name).is_some(), "{name} is missing");
    }
    assert!(wanted("vmw_pvscsi").unwrap().required);
    assert!(!wanted("vmw_vsock_virtio_transport").unwrap().required);
}

#[test]
fn without_modules_builtin_the_configuration_tells_what_is_built_in() {
    let config = "CONFIG_EXT4_FS=y\nCONFIG_OVERLAY_FS=m\n# CONFIG_NFS_FS is not set\n";
    assert_eq!(builtin_by_config(config).collect::<Vec<_>>(), ["ext4"]);
}

#[test]
fn distances() {
    assert_eq!(edit_distance("", "abc"), 3);
    assert_eq!(edit_distance("kitten", "sitting"), 3);
    let names = ["nf_tables", "nft_ct", "vmxnet3"].map(String::from);
    assert_eq!(nearest("nf_table", names.iter()), ["nf_tables"]);
    assert!(nearest("completely_else", names.iter()).is_empty());
}
