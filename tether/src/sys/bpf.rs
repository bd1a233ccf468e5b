//! bpf(2): programs of a cgroup that decide which devices its processes may open.

use super::check;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `BPF_CGROUP_DEVICE` of `enum bpf_attach_type` (linux/bpf.h).
const CGROUP_DEVICE: u32 = 6;

/// One instruction of eBPF (`struct bpf_insn`, linux/bpf.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Registers: the destination in the low half, the source in the high one.
    pub registers: u8,
    /// Distance of a jump, or of a load from its address.
    pub offset: i16,
    /// Constant.
    pub immediate: i32,
}

/// Loads a program of the type `BPF_PROG_TYPE_CGROUP_DEVICE` (`BPF_PROG_LOAD`).
///
/// # Errors
/// Those of bpf(2): `ENOSYS` or `EINVAL` where the kernel has no such programs.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    /// `union bpf_attr` for `BPF_PROG_LOAD`, as far as it is used.
    #[repr(C)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    const PROG_LOAD: i32 = 5;
    const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    let count =
        u32::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let load = Load {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        count,
        instructions: program.as_ptr() as u64,
        // It calls nothing of the kernel's, so the licence is without effect.
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `load` begins as `union bpf_attr` does, and its size is given; the kernel only reads it, the `count`
    // instructions of the live slice, and the licence, which ends with a NUL. The descriptor that it returns is new.
    unsafe {
        let fd = check(libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const load,
            size_of::<Load>(),
        ))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Attaches such a program to a cgroup (`BPF_PROG_ATTACH`), for as long as the cgroup is there. Cgroups in it may add
/// programs of their own; a device then needs the consent of all.
///
/// # Errors
/// Those of bpf(2): `EINVAL` where the kernel has no programs for cgroups.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    const PROG_ATTACH: i32 = 8;
    const ALLOW_MULTI: u32 = 2;
    let attach: [u32; 4] = [
        cgroup.as_raw_fd() as u32,
        program.as_raw_fd() as u32,
        CGROUP_DEVICE,
        ALLOW_MULTI,
    ];
    // SAFETY: `attach` has the layout of `union bpf_attr` for this command: target, program, type, flags.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_ATTACH,
            attach.as_ptr(),
            size_of_val(&attach),
        )
    })
    .map(drop)
}
