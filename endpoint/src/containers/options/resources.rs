//! Memory, CPUs and /dev/shm.

use super::fields::Fields;
use super::refused;
use crate::errors::{Error, Result};
use wire::limits::CpuTime;

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

/// CPUs of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cpus {
    /// How many.
    pub count: u32,
    /// What of their time there is, where that is not all.
    pub time: Option<CpuTime>,
}

impl Cpus {
    /// For so much time in each period, both in µs. The VM gets as many whole ones as that takes.
    fn new(quota: i64, period: i64, option: &str) -> Result<Self> {
        if !(1_000..=1_000_000).contains(&period) {
            return Err(Error::bad(
                "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
            ));
        }
        if quota < 1_000 {
            return Err(Error::bad(format!(
                "{option}: at least 1 ms in each period: 0.01 CPUs, or a quota of 1000"
            )));
        }
        let many = |_| Error::bad(format!("{option}: more than a VM can have"));
        let number = |n: i64| u32::try_from(n).map_err(many);
        let count = number((quota - 1) / period + 1)?;
        let time = match quota % period {
            0 => None,
            _ => Some(CpuTime {
                quota: number(quota)?,
                period: number(period)?,
            }),
        };
        Ok(Self { count, time })
    }
}

/// CPUs of the VM; `None`: nothing is said.
pub(super) fn cpus(fields: &Fields<'_>) -> Result<Option<Cpus>> {
    let number = |field: &str| Ok::<i64, Error>(fields.number(field)?.unwrap_or(0));
    // In these dockerd counts what it is given in billionths.
    const PERIOD: i64 = 100_000;
    let nano = match number("NanoCpus")? {
        0 => None,
        nano => Some(Cpus::new(nano / 10_000, PERIOD, "--cpus")?),
    };
    let count = match number("CpuCount")? {
        0 => None,
        count => {
            let count = u32::try_from(count)
                .map_err(|_| Error::bad(format!("CpuCount {count}: more than a VM can have")))?;
            Some(Cpus { count, time: None })
        }
    };
    let period = match number("CpuPeriod")? {
        0 => PERIOD,
        period => period,
    };
    let quota = match number("CpuQuota")? {
        // -1 is without limit.
        quota if quota <= 0 => None,
        quota => Some(Cpus::new(quota, period, "--cpu-quota")?),
    };
    let mut given = [nano, count, quota].into_iter().flatten();
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
