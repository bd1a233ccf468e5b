//! Where `make` puts what the tests need.

use anyhow::{Context, Result};
use std::path::PathBuf;

/// The checkout's root.
pub fn root() -> PathBuf {
    // This crate's folder is one below the root.
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .components()
        .collect()
}

/// Folder of the programs under test (`MOORING_BIN`, else target/release).
pub fn programs() -> PathBuf {
    std::env::var_os("MOORING_BIN").map_or_else(|| target().join("release"), PathBuf::from)
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR");
    // A relative one is meant from the root, where `make` runs; tests run in their package's folder.
    root().join(given.unwrap_or_else(|| "target".into()))
}

/// Boot files on the built, fast kernel (`make kernel`).
pub fn boot_fast() -> PathBuf {
    target().join("boot-fast")
}

/// Boot files on the distribution's packaged kernel (`make iso`).
pub fn boot_packaged() -> PathBuf {
    target().join("boot")
}

/// The fast kernel's boot files where they are built, else the packaged kernel's.
pub fn boot() -> PathBuf {
    let fast = boot_fast();
    if fast.join("initrd.img").is_file() {
        fast
    } else {
        boot_packaged()
    }
}

/// The trimmed kernel, as `bootimage kernel` leaves it (`make kernel`).
pub fn kernel_fast() -> PathBuf {
    target().join("kernel/fast")
}

/// The distribution's kernel package, as scripts/boot-files takes it.
///
/// # Errors
/// Where there is none, and what gets it.
pub fn kernel_package() -> Result<PathBuf> {
    let folder = target().join("kernel");
    let mut debs: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| folder.display().to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("linux-image-") && name.ends_with(".deb")
        })
        .collect();
    debs.sort();
    debs.pop().with_context(|| {
        format!(
            "no kernel package in {}; scripts/fetch-kernel gets it",
            folder.display()
        )
    })
}

/// A client program from a package registry (scripts/clients).
pub fn client(name: &str) -> PathBuf {
    target().join("clients/bin").join(name)
}

/// OCI layout of a test image (`make images`).
pub fn image(name: &str) -> PathBuf {
    target().join("images").join(name)
}

/// `docker load` archive of a test image, with the reference `mooring-test/<name>:latest`.
pub fn archive(name: &str) -> PathBuf {
    target().join("images").join(format!("{name}.docker.tar"))
}

/// The first of what an end-to-end test needs that is not there.
pub fn missing() -> Option<PathBuf> {
    [
        programs().join("vch"),
        programs().join("hostsim"),
        programs().join("endpoint"),
        boot().join("initrd.img"),
        image("busybox"),
    ]
    .into_iter()
    .find(|p| !p.exists())
}
