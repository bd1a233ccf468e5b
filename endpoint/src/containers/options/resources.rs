//! Memory, CPUs and /dev/shm.

use super::fields::Fields;
use super::refused;
use crate::errors::{Error, Result};

/// The smallest VM that boots with a container in it, in MiB.
pub const MEMORY_MIN_MIB: u64 = 64;
const MIB: u64 = 1024 * 1024;
/// dockerd's least reservation.
const RESERVATION_MIN: u64 = 6 * MIB;

/// Memory of the VM in MiB.
pub(super) fn memory(fields: &Fields<'_>) -> Result<Option<u32>> {
    let memory = fields.number("Memory")?.unwrap_or(0);
    let swap = fields.number("MemorySwap")?.unwrap_or(0);
    if swap != 0 && swap != memory {
        return Err(refused(
            "--memory-swap",
            "a container VM has no swap; leave it out or give it the value of --memory",
        ));
    }
    if let Some(swappiness) = fields.number("MemorySwappiness")?
        && !matches!(swappiness, -1 | 0)
    {
        return Err(refused(
            "--memory-swappiness",
            "a container VM has no swap; leave it out",
        ));
    }
    let memory = u64::try_from(memory)
        .map_err(|_| Error::bad(format!("--memory {memory}: it must not be negative")))?;
    if memory == 0 {
        return Ok(None);
    }
    if memory < MEMORY_MIN_MIB * MIB {
        return Err(Error::bad(format!(
            "--memory {memory}: a container VM needs at least {MEMORY_MIN_MIB}m"
        )));
    }
    vm_size(memory, "--memory").map(Some)
}

/// Whole MiB of a VM for so many bytes.
fn vm_size(bytes: u64, option: &str) -> Result<u32> {
    // vSphere wants a multiple of 4 MiB.
    let mib = bytes.div_ceil(4 * MIB) * 4;
    u32::try_from(mib).map_err(|_| Error::bad(format!("{option} {bytes}: more than a VM can have")))
}

/// The memory in MiB that a VM without a limit has at least; 0: nothing is said. No other container takes memory from a
/// VM, so to have it is to have it reserved.
pub(super) fn reservation(fields: &Fields<'_>) -> Result<u32> {
    let reserved = fields.number("MemoryReservation")?.unwrap_or(0);
    let memory = fields.number("Memory")?.unwrap_or(0);
    if reserved == 0 {
        return Ok(0);
    }
    let bytes = u64::try_from(reserved)
        .ok()
        .filter(|bytes| *bytes >= RESERVATION_MIN)
        .ok_or_else(|| Error::bad("Minimum memory reservation allowed is 6MB"))?;
    if memory > 0 && memory < reserved {
        return Err(Error::bad(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    vm_size(bytes, "--memory-reservation")
}

/// Whole CPUs of the VM.
pub(super) fn cpus(fields: &Fields<'_>) -> Result<Option<u32>> {
    let whole = |billionths: i64, option: &str| {
        if billionths < 0 || billionths % 1_000_000_000 != 0 {
            return Err(Error::bad(format!(
                "{option}: a container VM has whole CPUs; use a whole number"
            )));
        }
        u32::try_from(billionths / 1_000_000_000)
            .map_err(|_| Error::bad(format!("{option}: more than a VM can have")))
    };
    let nano = whole(fields.number("NanoCpus")?.unwrap_or(0), "--cpus")?;
    let count = fields.number("CpuCount")?.unwrap_or(0);
    let count = u32::try_from(count)
        .map_err(|_| Error::bad(format!("CpuCount {count}: more than a VM can have")))?;
    let period = match fields.number("CpuPeriod")?.unwrap_or(0) {
        0 => 100_000,
        period => period,
    };
    let quota = fields.number("CpuQuota")?.unwrap_or(0).max(0);
    let quota = if period <= 0 || quota % period != 0 {
        return Err(Error::bad(
            "--cpu-quota: a container VM has whole CPUs; use --cpus",
        ));
    } else {
        u32::try_from(quota / period)
            .map_err(|_| Error::bad("--cpu-quota: more than a VM can have"))?
    };
    let mut given = [nano, count, quota].into_iter().filter(|n| *n > 0);
    match (given.next(), given.next()) {
        (Some(_), Some(_)) => Err(Error::bad(
            "Conflicting options: --cpus, --cpu-quota and CpuCount cannot be used together",
        )),
        (one, _) => Ok(one),
    }
}

/// Bytes of /dev/shm; 0: Docker's default.
pub(super) fn shm_size(fields: &Fields<'_>) -> Result<u64> {
    let size = fields.number("ShmSize")?.unwrap_or(0);
    u64::try_from(size).map_err(|_| Error::bad("SHM size can not be less than 0"))
}
