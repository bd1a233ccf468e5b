//! What makes VMs boot quickly here: all of it hostsim's own, none of it anything that a VM needs on ESXi.
//! Figures and what was tried in vain: docs/decisions/0012-quick-boot.md.

use super::spec::Accelerator;

/// QEMU's `-accel` for a VM with so many CPUs.
///
/// Under emulation several CPUs take turns in one thread. With a thread for each, one can run a piece of code that it has
/// translated while another one was patching it (a kernel's jump labels), and does so from then on: of 38 boots with two
/// CPUs on a busy machine one ended in `int3: 0000 [#1]`, a breakpoint that was long gone (QEMU 7.2).
#[must_use]
pub fn accel(accelerator: Accelerator, cpus: u32) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg if cpus > 1 => "tcg,thread=single",
        Accelerator::Tcg => "tcg,thread=multi",
    }
}

/// QEMU's `-cpu`. A kernel that sees `erms` and `fsrm` clears and copies pages by `rep stosb` and `rep movsb`, which are
/// quick in hardware and go byte by byte under emulation; `la57` is a fifth table for each walk; checksums by `pclmulqdq`
/// are seven times slower there than those by tables.
#[must_use]
pub fn cpu(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "max",
        Accelerator::Tcg => "max,-erms,-fsrm,-la57,-pclmulqdq",
    }
}

/// What is added to the command line of a kernel that is booted directly; begins with a space where there is any.
///
/// Under emulation timers are not calibrated against each other, since that takes the time of a boot and can hang under
/// load, and `lock` prefixes stay where there is one CPU: each one that is overwritten throws translated code away.
#[must_use]
pub fn kernel_arguments(accelerator: Accelerator, tsc_khz: Option<u64>) -> String {
    match (accelerator, tsc_khz) {
        (Accelerator::Kvm, _) => String::new(),
        (Accelerator::Tcg, None) => " nolapic_timer no_timer_check noreplace-smp".to_owned(),
        (Accelerator::Tcg, Some(khz)) => {
            format!(" nolapic_timer no_timer_check noreplace-smp tsc_early_khz={khz}")
        }
    }
}
