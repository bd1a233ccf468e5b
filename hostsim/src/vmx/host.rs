//! What this host can do for a VM: found out once, by trying, and kept in hostsim's state folder.

use super::argv::QEMU;
use super::files;
use super::spec::Accelerator;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Name of the file in the state folder.
const FACTS_FILE: &str = "host.json";
/// How long the boot of the probe may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);
/// A probe that takes longer than this under KVM must at least be quicker than under emulation:
/// nested or emulated KVM can be far slower than no KVM at all.
const KVM_SURELY_QUICK: Duration = Duration::from_millis(500);
/// For how long the TSC is measured.
const TSC_WINDOW: Duration = Duration::from_millis(50);
/// What the probe's boot sector writes to the debug exit port, and QEMU's status for it.
const PROBE_VALUE: u8 = 0x2a;
const PROBE_STATUS: i32 = (PROBE_VALUE as i32) << 1 | 1;

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The accelerator to use.
    pub accelerator: Accelerator,
    /// The TSC's frequency in kHz, where it is constant.
    pub tsc_khz: Option<u64>,
    /// The boot of the host that this was found on; another one finds out anew.
    boot_id: String,
}

impl HostFacts {
    /// The facts, from the state folder where they were found out since the host's boot. KVM is
    /// taken only if a VM really boots with it: /dev/kvm may exist and be of no use.
    ///
    /// # Errors
    /// The state folder cannot be written, or no VM runs at all.
    pub async fn detect(state: &Path) -> io::Result<HostFacts> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned();
        let path = state.join(FACTS_FILE);
        if let Ok(text) = std::fs::read(&path)
            && let Ok(facts) = serde_json::from_slice::<HostFacts>(&text)
            && facts.boot_id == boot_id
        {
            return Ok(facts);
        }
        let accelerator = choose(state).await?;
        let tsc_khz = tokio::task::spawn_blocking(|| super::sys::measure_tsc_khz(TSC_WINDOW))
            .await
            .map_err(io::Error::other)?;
        let facts = HostFacts {
            accelerator,
            tsc_khz,
            boot_id,
        };
        files::write_durably(&path, &serde_json::to_vec_pretty(&facts)?)?;
        Ok(facts)
    }
}

async fn choose(state: &Path) -> io::Result<Accelerator> {
    let disk = state.join("probe.img");
    files::write_private(&disk, &boot_sector())?;
    let result = choose_with(&disk).await;
    std::fs::remove_file(&disk)?;
    result
}

async fn choose_with(disk: &Path) -> io::Result<Accelerator> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Tcg);
    }
    match probe(disk, "kvm").await? {
        Some(time) if time < KVM_SURELY_QUICK => Ok(Accelerator::Kvm),
        Some(kvm) => Ok(match probe(disk, "tcg").await? {
            Some(tcg) if tcg <= kvm => Accelerator::Tcg,
            _ => Accelerator::Kvm,
        }),
        None => Ok(Accelerator::Tcg),
    }
}

/// Boot the probe; how long that took, if it got to its end.
async fn probe(disk: &Path, accelerator: &str) -> io::Result<Option<Duration>> {
    let start = Instant::now();
    let path = disk
        .to_str()
        .ok_or_else(|| io::Error::other("the state folder is not UTF-8"))?;
    let file = serde_json::json!({
        "driver": "raw", "node-name": "d0", "read-only": true,
        "file": { "driver": "file", "filename": path },
    });
    let mut child = tokio::process::Command::new(QEMU)
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-m",
            "32M",
            "-cpu",
            "max",
        ])
        .args(["-machine", "q35,sata=off,usb=off", "-accel", accelerator])
        .args([
            "-blockdev",
            &file.to_string(),
            "-device",
            "virtio-blk-pci,drive=d0",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("{QEMU} (package qemu-system-x86): {e}")))?;
    let status = match tokio::time::timeout(PROBE_DEADLINE, child.wait()).await {
        Ok(status) => status?,
        Err(_) => {
            child.kill().await?;
            return Ok(None);
        }
    };
    Ok((status.code() == Some(PROBE_STATUS)).then(|| start.elapsed()))
}

/// A disk whose boot sector writes [`PROBE_VALUE`] to the debug exit port. The firmware that
/// loads it is what really tries the processor: 16 and 32 bit, PCI, interrupts, a virtio disk.
fn boot_sector() -> Vec<u8> {
    // mov al, VALUE; out 0xf4, al; hlt; jmp to the hlt
    let code = [0xb0, PROBE_VALUE, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd];
    // SeaBIOS boots no disk of a single sector.
    let mut disk = vec![0; 1024 * 1024];
    for (to, from) in disk.iter_mut().zip(code) {
        *to = from;
    }
    for (to, from) in disk.iter_mut().skip(510).zip([0x55, 0xaa]) {
        *to = from;
    }
    disk
}
