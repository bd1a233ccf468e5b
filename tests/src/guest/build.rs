//! What a VM boots from: the static tether in an initramfs, and a kernel.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The checkout.
#[must_use]
pub fn checkout() -> &'static Path {
    // The manifest's folder has a parent: the workspace.
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// The static tether: `MOORING_TETHER`, or built here, once a run.
///
/// # Errors
/// If it does not build.
pub fn tether() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let build = || -> Result<PathBuf> {
        if let Some(path) = std::env::var_os("MOORING_TETHER") {
            return Ok(path.into());
        }
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(checkout())
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .args([
                "build",
                "-q",
                "--profile",
                "guest",
                "--target",
                TARGET,
                "-p",
                "tether",
            ])
            .status()
            .context("starting cargo")?;
        if !status.success() {
            bail!("building the static tether failed");
        }
        Ok(checkout().join("target").join(TARGET).join("guest/tether"))
    };
    BUILT
        .get_or_init(|| build().map_err(|e| format!("{e:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

/// The static prober that runs in containers: tests/guest/probe.rs, compiled once a run.
///
/// # Errors
/// If it does not compile.
pub fn prober(folder: &Path) -> Result<PathBuf> {
    let out = folder.join("probe");
    let status = Command::new("rustc")
        .args([
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
            "-o",
        ])
        .arg(&out)
        .arg(checkout().join("tests/guest/probe.rs"))
        .status()
        .context("starting rustc")?;
    if !status.success() {
        bail!("compiling the prober failed");
    }
    Ok(out)
}

/// The kernel that VM tests boot: `MOORING_TEST_KERNEL`, a vmlinux with a PVH entry or a bzImage
/// with everything built in. `None`: there is none here, and why.
#[must_use]
pub fn kernel() -> Option<PathBuf> {
    let path = std::env::var_os("MOORING_TEST_KERNEL").map_or_else(
        || checkout().join("target/kernel/fast/vmlinux"),
        PathBuf::from,
    );
    if path.is_file() {
        return Some(path);
    }
    eprintln!(
        "skipped: no kernel at {} (make images builds it; MOORING_TEST_KERNEL names another)",
        path.display()
    );
    None
}

/// Writes an initramfs (newc) with the tether as its init. For a kernel with everything built in.
///
/// # Errors
/// If cpio fails.
pub fn initramfs(tether: &Path, out: &Path) -> Result<()> {
    let root = out.with_extension("root");
    for folder in ["dev", "proc", "sys", "root", "run", "tmp", "modules"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::copy(tether, root.join("init"))?;
    std::fs::write(root.join("modules/order"), "# mooring modules 1\n")?;
    nix::sys::stat::mknod(
        &root.join("dev/console"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::from_bits_truncate(0o600),
        nix::sys::stat::makedev(5, 1),
    )
    .or_else(|e| {
        if e == nix::Error::EEXIST {
            Ok(())
        } else {
            Err(e)
        }
    })?;
    let status = Command::new("sh")
        .current_dir(&root)
        .args(["-c", "find . | cpio -o -H newc --quiet > \"$0\""])
        .arg(out)
        .status()
        .context("starting cpio")?;
    if !status.success() {
        bail!("cpio failed");
    }
    Ok(())
}
