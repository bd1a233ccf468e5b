//! The images as files: reproducible, readable by others' tools, refused where something is wrong.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use std::path::Path;
use std::process::Command;

use bootimage::build::build;
use bootimage::inspect::{Report, inspect};
use bootimage::modules::parse_list;
use support::{build_default, compile_init, debian_kernel, options};

fn output_of(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let Some(kernel) = debian_kernel() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let init = compile_init(dir.path());
    let first = build_default(&kernel, &init, &dir.path().join("one"));
    // A file system and a second later.
    let second = build_default(&kernel, &init, &dir.path().join("two"));
    let sums = |manifest: &bootimage::build::Manifest| {
        manifest
            .files
            .iter()
            .map(|f| (f.file.clone(), f.sha256.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(sums(&first), sums(&second));
    let names: Vec<&str> = first.files.iter().map(|f| f.file.as_str()).collect();
    assert_eq!(
        names,
        [
            "vmlinuz",
            "vmlinux",
            "initrd.img",
            "initrd.cpio",
            "boot.iso"
        ]
    );
    let manifest =
        |which: &str| std::fs::read(dir.path().join(which).join("manifest.json")).unwrap();
    assert_eq!(manifest("one"), manifest("two"));
}

#[test]
fn other_programs_read_what_is_written() {
    let Some(kernel) = debian_kernel() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let init = compile_init(dir.path());
    let out = dir.path().join("out");
    let manifest = build_default(&kernel, &init, &out);

    // cpio lists the initramfs as bootimage does.
    let script = format!(
        "zstd -dc {} | cpio -t --quiet",
        out.join("initrd.img").display()
    );
    let listed = output_of(Command::new("sh").args(["-c", &script]));
    let report = inspect(&out.join("initrd.img")).unwrap();
    let text = report.text();
    let Report::Initramfs(report) = report else {
        panic!("no initramfs")
    };
    let paths: Vec<&str> = report
        .entries
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), paths);
    assert_eq!(report.modules, manifest.modules);
    // For people: each file with its size, each module with the kernel that it is for.
    let module = report
        .entries
        .iter()
        .find(|e| e.path.ends_with("pvscsi.ko"));
    let module = module.unwrap();
    for part in [
        format!("{}", module.size),
        module.path.clone(),
        manifest.kernel.release.clone(),
        " init\n".to_owned(),
    ] {
        assert!(text.contains(&part), "{part:?} is not in\n{text}");
    }
    for entry in report
        .entries
        .iter()
        .filter(|entry| entry.path.ends_with(".ko"))
    {
        assert!(
            entry
                .vermagic
                .as_deref()
                .unwrap()
                .starts_with(&manifest.kernel.release)
        );
    }

    // xorriso finds both boot images and takes the files out whole.
    let iso = out.join("boot.iso");
    let boot = output_of(
        Command::new("xorriso")
            .arg("-indev")
            .arg(&iso)
            .args(["-report_el_torito", "plain"]),
    );
    assert!(
        boot.contains("El Torito img path :   1  /ISOLINUX.BIN"),
        "{boot}"
    );
    assert!(
        boot.contains("El Torito img opts :   1  boot-info-table"),
        "{boot}"
    );
    assert!(
        boot.contains("El Torito img path :   2  /EFI.IMG"),
        "{boot}"
    );
    for (inside, outside) in [("/INITRD.IMG", "initrd.img"), ("/VMLINUZ", "vmlinuz")] {
        let copy = dir.path().join("copy");
        output_of(
            Command::new("xorriso")
                .args(["-osirrox", "on", "-indev"])
                .arg(&iso)
                .args(["-extract", inside])
                .arg(&copy),
        );
        assert_eq!(
            std::fs::read(&copy).unwrap(),
            std::fs::read(out.join(outside)).unwrap(),
            "{inside}"
        );
        std::fs::remove_file(&copy).unwrap();
    }
    let Report::Iso(report) = inspect(&iso).unwrap() else {
        panic!("no ISO")
    };
    assert_eq!(
        report.cmdline.as_deref(),
        Some(bootimage::iso::DEFAULT_CMDLINE)
    );
    assert_eq!(
        report.kernel.unwrap().release.unwrap(),
        manifest.kernel.release
    );
}

#[test]
fn a_required_module_that_debians_kernel_lacks_is_an_error_that_leaves_nothing() {
    let Some(kernel) = debian_kernel() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let init = compile_init(dir.path());
    let out = dir.path().join("out");
    let mut options = options(&kernel, &init, &out);
    options.modules = parse_list("boot required vmw_pvscsy", "list").unwrap();
    let error = build(&options, &mut |_| {}).unwrap_err().to_string();
    assert!(
        error.contains("no module `vmw_pvscsy`") && error.contains("nearest: vmw_pvscsi"),
        "{error}"
    );
    assert!(!out.exists());
}

#[test]
fn an_image_cut_short_is_refused() {
    let Some(kernel) = debian_kernel() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let init = compile_init(dir.path());
    let out = dir.path().join("out");
    build_default(&kernel, &init, &out);
    for name in ["initrd.img", "boot.iso"] {
        let whole = std::fs::read(out.join(name)).unwrap();
        let cut = dir.path().join(name);
        std::fs::write(&cut, &whole[..whole.len() * 2 / 3]).unwrap();
        inspect(&cut).unwrap_err();
    }
    let deb = std::fs::read(&kernel).unwrap();
    let cut = dir.path().join("cut.deb");
    std::fs::write(&cut, &deb[..deb.len() / 2]).unwrap();
    let error = inspect(&cut).unwrap_err().to_string();
    assert!(error.contains("is damaged"), "{error}");
}

#[test]
fn junk_is_no_boot_image() {
    let error = inspect(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("Cargo.toml")
            .as_path(),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("is no initramfs, ISO, kernel"),
        "{error}"
    );
}
