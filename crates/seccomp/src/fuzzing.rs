//! What must hold of every profile, whatever it says. `crates/seccomp/fuzz` drives this with libFuzzer, a property test
//! with what is nearly right.

use crate::numbers::Arch;
use crate::program::*;
use crate::{Instruction, PROGRAM_MAX, custom, unconfined};
use std::collections::BTreeSet;

/// Interprets the program as the kernel would.
pub(crate) fn run(program: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let (mut pc, mut a) = (0usize, 0u32);
    loop {
        let i = program[pc];
        pc += 1;
        let jump = |taken: bool| usize::from(if taken { i.jump_true } else { i.jump_false });
        match i.code {
            LD_W_ABS => {
                a = match i.k {
                    OFFSET_NR => number,
                    OFFSET_ARCH => arch,
                    at => {
                        let at = at - OFFSET_ARGS;
                        (arguments[at as usize / 8] >> (at % 8 * 8)) as u32
                    }
                }
            }
            AND => a &= i.k,
            JA => pc += i.k as usize,
            JEQ => pc += jump(a == i.k),
            JGT => pc += jump(a > i.k),
            JGE => pc += jump(a >= i.k),
            RET => return i.k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

/// A profile of a client's: its program ends on every way through it, and keeps the way to the VM's host shut.
pub fn profile(json: &str) {
    let none = BTreeSet::new();
    let Ok(program) = custom(json, &none) else {
        return;
    };
    assert!((1..=PROGRAM_MAX).contains(&program.len()));
    // The kernel takes no jump behind the end, and none backwards can be written.
    for (at, i) in program.iter().enumerate() {
        let furthest = match i.code {
            RET => continue,
            JA => i.k as usize,
            _ => usize::from(i.jump_true.max(i.jump_false)),
        };
        assert!(at + 1 + furthest < program.len(), "{at}: {i:?}");
    }
    let base = unconfined().unwrap_or_default();
    for arch in [Arch::X86_64, Arch::I386] {
        for (name, first) in [("socket", 40), ("socketcall", 1), ("io_uring_setup", 1)] {
            let Some(number) = arch.number(name) else {
                continue;
            };
            let ask = |program: &[Instruction]| {
                run(program, arch.audit(), number, [first, 0, 0, 0, 0, 0])
            };
            // Neither is allowed, nor logged or traced and then allowed (linux/seccomp.h, SECCOMP_RET_TRACE and above).
            let passes = |answer: u32| (0x7ff0_0000..=ALLOW | 0xffff).contains(&answer);
            assert!(!passes(ask(&base)) && !passes(ask(&program)), "{name}");
        }
    }
    run(&program, Arch::X86_64.audit(), X32 | 41, [40; 6]);
    run(&program, 0, 0, [0; 6]);
}
