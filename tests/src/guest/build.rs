//! What a VM boots from: the static tether in an initramfs, and a kernel.

use crate::{command, places};
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
        let status = Command::new(checkout().join("scripts/tether"))
            .arg("-q")
            .status()
            .context("starting scripts/tether")?;
        if !status.success() {
            bail!("building the static tether failed");
        }
        Ok(places::target().join(TARGET).join("guest/tether"))
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

/// What a VM boots directly.
#[derive(Debug, Clone)]
pub struct Guest {
    /// A vmlinux with a PVH entry, or a bzImage.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initramfs: PathBuf,
}

impl Guest {
    /// Has bootimage build them out of a kernel package (or folder), this init, and these modules (the default list
    /// where none is given); and an ISO with this kernel command line, if there is one.
    ///
    /// # Errors
    /// Those of bootimage.
    pub fn build(
        kernel: &Path,
        init: &Path,
        modules: Option<&Path>,
        iso: Option<&str>,
        out: &Path,
    ) -> Result<Guest> {
        let mut bootimage = Command::new(places::programs().join("bootimage"));
        bootimage.arg("build").arg("--kernel").arg(kernel);
        bootimage.arg("--init").arg(init).arg("--out").arg(out);
        if let Some(modules) = modules {
            bootimage.arg("--modules").arg(modules);
        }
        if let Some(cmdline) = iso {
            bootimage.args(["--iso", "--cmdline", cmdline]);
        }
        command::run(bootimage, b"", command::DEADLINE)?.ok()?;
        let kernels = ["vmlinux", "vmlinuz"].map(|k| out.join(k));
        Ok(Guest {
            kernel: kernels
                .into_iter()
                .find(|k| k.is_file())
                .context("bootimage wrote no kernel")?,
            initramfs: out.join("initrd.cpio"),
        })
    }

    /// The tether on the trimmed kernel, made once a run. `None`: there is no such kernel here, and why.
    ///
    /// # Errors
    /// If it cannot be built.
    pub fn fast() -> Result<Option<Guest>> {
        static BUILT: Built = Built::new();
        let kernel = places::kernel_fast();
        if !kernel.join("vmlinux").is_file() {
            eprintln!(
                "skipped: no kernel in {} (make kernel builds it)",
                kernel.display()
            );
            return Ok(None);
        }
        once(&BUILT, &kernel).map(Some)
    }

    /// The tether on the distribution's packaged kernel. `None`: there is none here, and why.
    ///
    /// # Errors
    /// If it cannot be built.
    pub fn packaged() -> Result<Option<Guest>> {
        static BUILT: Built = Built::new();
        match places::kernel_package() {
            Ok(kernel) => once(&BUILT, &kernel).map(Some),
            Err(why) => {
                eprintln!("skipped: {why:#}");
                Ok(None)
            }
        }
    }

    /// The tether on both kernels, as far as they are there, each with its name.
    ///
    /// # Errors
    /// If one cannot be built.
    pub fn each() -> Result<Vec<(&'static str, Guest)>> {
        let guests = [
            ("the trimmed kernel", Guest::fast()?),
            ("the packaged kernel", Guest::packaged()?),
        ];
        Ok(guests
            .into_iter()
            .filter_map(|(name, guest)| Some((name, guest?)))
            .collect())
    }
}

type Built = OnceLock<std::result::Result<Guest, String>>;

/// Builds the tether's guest on a kernel, once for all tests of the run.
fn once(built: &Built, kernel: &Path) -> Result<Guest> {
    let build = || {
        // Replaced by the next run.
        let name = kernel.file_stem().unwrap_or_default();
        let out = places::target().join("tmp/guest").join(name);
        Guest::build(kernel, &tether()?, None, None, &out)
    };
    built
        .get_or_init(|| build().map_err(|e| format!("{e:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}
