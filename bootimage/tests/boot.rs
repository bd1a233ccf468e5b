//! Real boots: direct, by PVH, and from the ISO under BIOS and UEFI, of both kernels, with every
//! module of the image loaded by what `/modules/order` says.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use std::path::Path;

use support::{assert_booted, build_default, compile_init, debian_kernel, fast_kernel, run_vm};

fn boots_in_every_way(kernel: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let init = compile_init(dir.path());
    let out = dir.path().join("out");
    let manifest = build_default(kernel, &init, &out);
    let file = |name: &str| out.join(name).display().to_string();
    let (kernel, vmlinux, initrd, iso) = (
        file("vmlinuz"),
        file("vmlinux"),
        file("initrd.img"),
        file("boot.iso"),
    );

    let direct = [
        "-initrd",
        &initrd,
        "-append",
        bootimage::iso::DEFAULT_CMDLINE,
    ];
    let output = run_vm(
        ["-M", "q35,sata=off", "-kernel", &kernel]
            .iter()
            .chain(&direct),
    );
    assert_booted(&output, &manifest);
    assert!(manifest.kernel.pvh);
    let pvh = [
        "-M",
        "q35,sata=off",
        "-bios",
        "qboot.rom",
        "-kernel",
        &vmlinux,
    ];
    assert_booted(&run_vm(pvh.iter().chain(&direct)), &manifest);

    assert_booted(&run_vm(["-M", "pc", "-cdrom", &iso]), &manifest);

    let vars = file("vars.fd");
    std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &vars).expect("the tests need Debian's ovmf");
    let code = "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd";
    let vars = format!("if=pflash,format=raw,file={vars}");
    let uefi = ["-M", "q35", "-drive", code, "-drive", &vars, "-cdrom", &iso];
    assert_booted(&run_vm(uefi), &manifest);
}

#[test]
fn debians_kernel_boots_directly_and_from_the_iso() {
    if let Some(kernel) = debian_kernel() {
        boots_in_every_way(&kernel);
    }
}

#[test]
fn the_trimmed_kernel_boots_directly_and_from_the_iso() {
    if let Some(kernel) = fast_kernel() {
        boots_in_every_way(&kernel);
    }
}
