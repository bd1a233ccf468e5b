//! An RPM of linux-esx's layout, made with rpmbuild: kernel in /boot, modules in /usr/lib/modules,
//! compressed with xz; ext4 built in, no virtio vsock transport, no fw_cfg.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use bootimage::inspect::{Report, inspect};
use bootimage::package::KernelPackage;
use bootimage::testing::elf_module;
use support::{build_default, compile_init, debian_kernel};

const RELEASE: &str = "6.1.79-1.ph5-esx";

/// Modules that linux-esx has, with what they depend on; the rest of the list is built in.
const MODULES: &[(&str, &str)] = &[
    ("vmw_vmci", ""),
    ("vsock", ""),
    ("vmw_vsock_vmci_transport", "vmw_vmci,vsock"),
    ("vmxnet3", ""),
    ("cdrom", ""),
    ("sr_mod", "cdrom"),
    ("isofs", "cdrom"),
    ("loop", ""),
    ("nf_tables", ""),
];

const BUILTIN: &[&str] = &[
    "ext4",
    "overlay",
    "sd_mod",
    "vmw_pvscsi",
    "nfs",
    "nfsv3",
    "nfsv4",
    "nf_conntrack",
    "nft_ct",
    // Of Debian's modules, what the ones above depend on.
    "nfnetlink",
    "libcrc32c",
    "scsi_mod",
    "scsi_common",
];

/// What goes into the package: real out of Debian's package where it is there, else made up.
struct Parts {
    image: Vec<u8>,
    modules: BTreeMap<&'static str, Vec<u8>>,
}

fn parts() -> Parts {
    let Some(path) = debian_kernel() else {
        let made_up = |(name, depends): &(&'static str, &str)| {
            (
                *name,
                elf_module(format!("name={name}\0depends={depends}\0").as_bytes()),
            )
        };
        let image = b"no kernel, but as good as one for this test".to_vec();
        return Parts {
            image,
            modules: MODULES.iter().map(made_up).collect(),
        };
    };
    let kernel = KernelPackage::open(&path).unwrap();
    let files = kernel.modules();
    let real = |(name, _): &(&'static str, &str)| (*name, kernel.module(files[*name]).unwrap());
    Parts {
        image: kernel.kernel_image().unwrap(),
        modules: MODULES.iter().map(real).collect(),
    }
}

fn xz(content: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn linux_esx(folder: &Path, payload: &str, parts: &Parts) -> PathBuf {
    let root = folder.join("root");
    let lib = root.join("usr/lib/modules").join(RELEASE);
    fs::create_dir_all(lib.join("kernel/drivers")).unwrap();
    fs::create_dir_all(root.join("boot")).unwrap();
    fs::write(root.join(format!("boot/vmlinuz-{RELEASE}")), &parts.image).unwrap();
    fs::write(
        root.join(format!("boot/config-{RELEASE}")),
        "CONFIG_RD_GZIP=y\n",
    )
    .unwrap();
    let mut order = String::new();
    for (name, content) in &parts.modules {
        fs::write(
            lib.join(format!("kernel/drivers/{name}.ko.xz")),
            xz(content),
        )
        .unwrap();
        order.push_str(&format!("kernel/drivers/{name}.ko\n"));
    }
    fs::write(lib.join("modules.order"), order).unwrap();
    let builtin: String = BUILTIN
        .iter()
        .map(|name| format!("kernel/x/{name}.ko\n"))
        .collect();
    fs::write(lib.join("modules.builtin"), builtin).unwrap();

    let spec = folder.join("linux-esx.spec");
    let text = format!(
        "Name: linux-esx\nVersion: 6.1.79\nRelease: 1.ph5\nSummary: Kernel\nLicense: GPLv2\n\
         BuildArch: x86_64\nAutoReqProv: no\n%description\nKernel\n%global debug_package %{{nil}}\n\
         %define __os_install_post %{{nil}}\n%define _binary_payload {payload}\n\
         %install\nmkdir -p %{{buildroot}}\ncp -a {}/. %{{buildroot}}\n%files\n/boot\n/usr/lib/modules\n",
        root.display()
    );
    fs::write(&spec, text).unwrap();
    let output = Command::new("rpmbuild")
        .args(["-bb", "--quiet", "--target", "x86_64", "--define"])
        .arg(format!("_topdir {}", folder.join("rpmbuild").display()))
        .arg("--define")
        .arg(format!("_rpmdir {}", folder.display()))
        .arg(&spec)
        .output()
        .expect("rpmbuild starts; the tests need Debian's rpm");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    folder.join("x86_64/linux-esx-6.1.79-1.ph5.x86_64.rpm")
}

#[test]
fn an_image_is_built_from_an_rpm_of_linux_esx_layout() {
    let parts = parts();
    // The payloads that rpm writes: gzip as it used to, xz and zstd as Photon's are.
    for payload in ["w1.gzdio", "w1.xzdio", "w1.zstdio"] {
        let dir = tempfile::tempdir().unwrap();
        let rpm = linux_esx(dir.path(), payload, &parts);
        let init = compile_init(dir.path());
        let out = dir.path().join("out");
        let manifest = build_default(&rpm, &init, &out);
        assert_eq!(manifest.kernel.release, RELEASE);
        assert_eq!(manifest.kernel.label, "linux-esx 6.1.79-1.ph5");

        let names: Vec<&str> = manifest.modules.iter().map(|line| line.name()).collect();
        let place = |name: &str| names.iter().position(|other| *other == name).unwrap();
        assert_eq!(names.len(), MODULES.len(), "{names:?}");
        assert!(place("vsock") < place("vmw_vsock_vmci_transport"));
        assert!(place("cdrom") < place("sr_mod"));
        assert!(manifest.builtin.iter().any(|name| name == "ext4"));
        for absent in ["vmw_vsock_virtio_transport", "qemu_fw_cfg"] {
            assert!(
                manifest.absent.iter().any(|name| name == absent),
                "{absent}"
            );
        }
        // The configuration allows gzip only, and the modules are there unpacked.
        let Report::Initramfs(initramfs) = inspect(&out.join("initrd.img")).unwrap() else {
            panic!("no initramfs")
        };
        assert_eq!(
            initramfs.compression,
            bootimage::compress::Compression::Gzip
        );
        let sizes: BTreeMap<&str, u64> = initramfs
            .entries
            .iter()
            .map(|entry| (entry.path.as_str(), entry.size))
            .collect();
        for (index, name) in names.iter().enumerate() {
            assert_eq!(
                sizes[format!("modules/{index:03}-{name}.ko").as_str()],
                // Debian's are signed, and this kernel does not insist on it.
                bootimage::modinfo::without_signature(&parts.modules[name]).len() as u64
            );
        }
        let Report::Package(package) = inspect(&rpm).unwrap() else {
            panic!("no package")
        };
        assert_eq!(package.kernel.release.as_deref(), Some(RELEASE));
        assert_eq!(package.modules.len(), MODULES.len());
    }
}
