//! Which devices the container's processes may open, whatever file systems they have mounted: a program of the cgroup
//! (Documentation/admin-guide/cgroup-v2.rst, "Device controller").
//!
//! Without it a container that may mount has a devtmpfs, and with that the VM's disks and serial ports.

use crate::sys::bpf::{Instruction, attach_device_program, load_device_program};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The character devices that may be opened, as runc and Docker have them: major and minor number, `None` for all.
const ALLOWED: [(i32, Option<i32>); 9] = [
    // null, zero, full, random, urandom.
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    // tty, console, ptmx.
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    // Terminals (Documentation/admin-guide/devices.txt: devpts has them all in one major number).
    (136, None),
];

/// From here on a cgroup's processes open no other device, and mount none.
///
/// # Errors
/// Those of bpf(2): a kernel without `CONFIG_CGROUP_BPF` cannot do this.
pub fn restrict(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    // The cgroup holds the program; its descriptor is of no use any more.
    attach_device_program(cgroup, load_device_program(&program())?.as_fd())
}

/// `struct bpf_cgroup_dev_ctx` (linux/bpf.h): type of the device and, 16 bits up, of the access; major; minor.
const ACCESS_TYPE: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;
/// `BPF_DEVCG_DEV_CHAR`, `BPF_DEVCG_ACC_MKNOD`.
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;

/// The program (Documentation/bpf/instruction-set.rst). Register 1 holds the question, 0 takes the answer.
fn program() -> Vec<Instruction> {
    let load = |to: u8, offset| Instruction {
        code: 0x61, // LDX | MEM | W
        registers: 1 << 4 | to,
        offset,
        immediate: 0,
    };
    let alu = |code, to: u8, immediate| Instruction {
        code, // ALU, with a constant
        registers: to,
        offset: 0,
        immediate,
    };
    let jump = |code, on: u8, immediate, offset| Instruction {
        code,
        registers: on,
        offset,
        immediate,
    };
    const MOVE: u8 = 0xb4;
    const AND: u8 = 0x54;
    const SHIFT_RIGHT: u8 = 0x74;
    const IF_EQUAL: u8 = 0x15;
    const IF_NOT: u8 = 0x55;
    const EXIT: Instruction = Instruction {
        code: 0x95,
        registers: 0,
        offset: 0,
        immediate: 0,
    };
    let answer = |allowed: bool| [alu(MOVE, 0, i32::from(allowed)), EXIT];
    // Each rule answers by itself: no distance depends on how many there are.
    let yes = answer(true).len() as i16;
    let mut program = vec![
        load(2, ACCESS_TYPE),
        load(3, ACCESS_TYPE),
        alu(AND, 2, 0xffff),
        alu(SHIFT_RIGHT, 3, 16),
        load(4, MAJOR),
        load(5, MINOR),
    ];
    // A node by itself opens nothing, and whoever has no CAP_MKNOD makes none anyway.
    program.push(jump(IF_NOT, 3, MKNOD, yes));
    program.extend(answer(true));
    program.push(jump(IF_EQUAL, 2, CHARACTER, yes));
    program.extend(answer(false));
    for (major, minor) in ALLOWED {
        program.push(jump(IF_NOT, 4, major, yes + i16::from(minor.is_some())));
        program.extend(minor.map(|minor| jump(IF_NOT, 5, minor, yes)));
        program.extend(answer(true));
    }
    program.extend(answer(false));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u32 = 1;
    const CHARACTER: u32 = super::CHARACTER as u32;
    const MKNOD: u32 = super::MKNOD as u32;
    const READ: u32 = 2;
    const WRITE: u32 = 4;

    /// What the kernel makes of the program, as far as it uses eBPF.
    fn allows(kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let question = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0u32; 11], 0usize);
        let program = program();
        loop {
            let i = program[at];
            let (to, constant) = (usize::from(i.registers & 0xf), i.immediate as u32);
            at += 1;
            let jump = match i.code {
                0x61 => {
                    assert_eq!(i.registers >> 4, 1);
                    registers[to] = question[usize::try_from(i.offset / 4).unwrap()];
                    false
                }
                0xb4 => {
                    registers[to] = constant;
                    false
                }
                0x54 => {
                    registers[to] &= constant;
                    false
                }
                0x74 => {
                    registers[to] >>= constant;
                    false
                }
                0x15 => registers[to] == constant,
                0x55 => registers[to] != constant,
                0x95 => return registers[0] == 1,
                other => panic!("no such operation: {other:x}"),
            };
            if jump {
                at = at.checked_add_signed(i.offset.into()).unwrap();
            }
        }
    }

    #[test]
    fn terminals_and_the_usual_devices_are_allowed_and_no_disk_or_serial_port() {
        for (major, minor) in [
            (1, 3),
            (1, 5),
            (1, 7),
            (1, 8),
            (1, 9),
            (5, 0),
            (5, 1),
            (5, 2),
            (136, 0),
            (136, 4711),
        ] {
            for access in [READ, WRITE, READ | WRITE, READ | WRITE | MKNOD] {
                assert!(allows(CHARACTER, access, major, minor), "{major}:{minor}");
                assert!(!allows(BLOCK, access, major, minor), "{major}:{minor}");
            }
        }
        // mem, port, kmsg, ttyS0, ttyS1, loop-control, fuse, ppp, tun, rtc, the SCSI generic driver.
        for (major, minor) in [
            (1, 1),
            (1, 4),
            (1, 11),
            (4, 64),
            (4, 65),
            (5, 3),
            (10, 237),
            (10, 229),
            (108, 0),
            (10, 200),
            (250, 0),
            (21, 0),
            (135, 0),
            (137, 0),
        ] {
            for access in [READ, WRITE, READ | WRITE, READ | MKNOD] {
                assert!(!allows(CHARACTER, access, major, minor), "{major}:{minor}");
            }
        }
        for disk in [(8, 0), (8, 1), (253, 0), (7, 0), (11, 0), (254, 3)] {
            for access in [READ, WRITE, READ | WRITE] {
                assert!(!allows(BLOCK, access, disk.0, disk.1), "{disk:?}");
            }
        }
    }

    #[test]
    fn nodes_may_be_made_of_anything() {
        assert!(allows(BLOCK, MKNOD, 8, 0));
        assert!(allows(CHARACTER, MKNOD, 4, 65));
    }

    #[test]
    fn the_kernel_takes_the_program() {
        match load_device_program(&program()) {
            Ok(_) => {}
            Err(e) if e.raw_os_error() == Some(libc::EACCES) => panic!("the verifier: {e}"),
            Err(e) => eprintln!("skipped: no bpf(2) here: {e}"),
        }
    }
}
