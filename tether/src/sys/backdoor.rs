//! VMware's backdoor: the port 0x5658 (low bandwidth) and 0x5659 (high bandwidth), by the real
//! instructions. A hypervisor of VMware's answers ring 3 whatever the I/O permissions say;
//! elsewhere the instruction faults, so ask [`present`] first.

use std::arch::asm;

/// `VMXh`: in eax, it makes the access a backdoor call.
pub const MAGIC: u32 = 0x564D_5868;
/// The low-bandwidth port.
pub const PORT: u16 = 0x5658;
/// The high-bandwidth port: `rep insb`, `rep outsb`.
pub const PORT_HB: u16 = 0x5659;

/// The registers of one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// In: [`MAGIC`]; out: result.
    pub eax: u32,
    /// Command's argument and answer.
    pub ebx: u32,
    /// In: command (low 16 bits) and its kind; out: status in the high half.
    pub ecx: u32,
    /// In: port (low 16 bits) and channel.
    pub edx: u32,
    /// First cookie.
    pub esi: u32,
    /// Second cookie.
    pub edi: u32,
}

/// One low-bandwidth call: `in eax, dx`.
#[must_use]
pub fn call(mut r: Registers) -> Registers {
    let mut rbx = u64::from(r.ebx);
    // SAFETY: on VMware (see `present`) the hypervisor answers in registers and touches no memory;
    // rbx, which the compiler keeps for itself, is swapped in and out.
    unsafe {
        asm!(
            "xchg {rbx}, rbx",
            "in eax, dx",
            "xchg {rbx}, rbx",
            rbx = inout(reg) rbx,
            inout("eax") r.eax,
            inout("ecx") r.ecx,
            inout("edx") r.edx,
            inout("esi") r.esi,
            inout("edi") r.edi,
            options(nostack),
        );
    }
    r.ebx = rbx as u32;
    r
}

/// One high-bandwidth read of `buffer.len()` bytes: `rep insb` on [`PORT_HB`]. `r.esi` and
/// `r.edi` are the first and second cookie. Returns the registers, status in the high half of ebx.
#[must_use]
pub fn read_bulk(mut r: Registers, buffer: &mut [u8]) -> Registers {
    let mut rbx = u64::from(r.ebx);
    // SAFETY: the hypervisor writes at most rcx bytes at rdi, which is `buffer`; rbx and rbp are
    // swapped in and out around the instruction, rbp through the stack.
    unsafe {
        asm!(
            "xchg {rbx}, rbx",
            "push rbp",
            "mov rbp, r8",
            "rep insb",
            "pop rbp",
            "xchg {rbx}, rbx",
            rbx = inout(reg) rbx,
            inout("eax") r.eax,
            inout("rcx") buffer.len() => _,
            inout("edx") r.edx,
            inout("rsi") u64::from(r.esi) => _,
            inout("rdi") buffer.as_mut_ptr() => _,
            in("r8") u64::from(r.edi),
        );
    }
    r.ebx = rbx as u32;
    r
}

/// Whether the hypervisor's CPUID signature is VMware's (leaf 0x4000_0000, "VMwareVMware").
#[must_use]
pub fn present() -> bool {
    use std::arch::x86_64::__cpuid;
    let hypervisor = __cpuid(1).ecx & (1 << 31) != 0;
    let leaf = __cpuid(0x4000_0000);
    hypervisor
        && [leaf.ebx, leaf.ecx, leaf.edx]
            == [
                u32::from_le_bytes(*b"VMwa"),
                u32::from_le_bytes(*b"reVM"),
                u32::from_le_bytes(*b"ware"),
            ]
}
