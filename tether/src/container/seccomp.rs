//! Compiles Docker's default seccomp profile into a BPF program for a set of capabilities.
//!
//! On top of the profile: AF_VSOCK sockets are refused on every way to make one, so i386's
//! `socketcall` (whose arguments a filter cannot read) is refused too, and x32 as a whole. What a
//! filter cannot refuse is an `in` or `out` instruction: under VMware ring 3 reaches the backdoor
//! port whatever is set here. Nothing secret may therefore stay in guestinfo (the link's secret is
//! of no use after the first session).

use super::seccomp_table::{ALLOWED, BY_CAPABILITY, Call, NONE};
use crate::sys::process::BpfInstruction;

const LD_W_ABS: u16 = 0x20;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

const ARCH_X86_64: u32 = 0xC000_003E;
const ARCH_I386: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT`.
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`; arguments' low halves.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARG0: u32 = 16;

const AF_VSOCK: u32 = 40;
/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET: as Docker's profile, 0x7E020000.
const CLONE_NAMESPACES: u32 = 0x7E02_0000;
const CAP_SYS_ADMIN: u8 = 21;

fn op(code: u16, k: u32, jump_true: u8, jump_false: u8) -> BpfInstruction {
    BpfInstruction {
        code,
        jump_true,
        jump_false,
        k,
    }
}

/// What happens to one range of system calls: where it begins, and how it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Return(u32),
    /// `socket`: allowed but for AF_VSOCK.
    NoVsock,
    /// `clone` without new namespaces.
    NoNamespaces,
    /// `personality`: the values that Docker allows.
    Personality,
}

impl Rule {
    fn emit(self) -> Vec<BpfInstruction> {
        match self {
            Rule::Return(value) => vec![op(RET, value, 0, 0)],
            Rule::NoVsock => vec![
                op(LD_W_ABS, OFFSET_ARG0, 0, 0),
                op(JEQ, AF_VSOCK, 0, 1),
                op(RET, EPERM, 0, 0),
                op(RET, ALLOW, 0, 0),
            ],
            Rule::NoNamespaces => vec![
                op(LD_W_ABS, OFFSET_ARG0, 0, 0),
                op(JSET, CLONE_NAMESPACES, 0, 1),
                op(RET, EPERM, 0, 0),
                op(RET, ALLOW, 0, 0),
            ],
            Rule::Personality => vec![
                op(LD_W_ABS, OFFSET_ARG0, 0, 0),
                op(JEQ, 0, 5, 0),
                op(JEQ, 8, 4, 0),
                op(JEQ, 0x2_0000, 3, 0),
                op(JEQ, 0x2_0008, 2, 0),
                op(JEQ, 0xffff_ffff, 1, 0),
                op(RET, EPERM, 0, 0),
                op(RET, ALLOW, 0, 0),
            ],
        }
    }
}

/// The filter for a process that holds `capabilities` (bit set).
#[must_use]
pub fn compile(capabilities: u64) -> Vec<BpfInstruction> {
    let held = |cap: u8| capabilities & (1 << cap) != 0;
    let mut calls: Vec<Call> = ALLOWED.to_vec();
    for (cap, more) in BY_CAPABILITY {
        if held(*cap) {
            calls.extend_from_slice(more);
        }
    }
    // (name's numbers, rule) of the calls that are neither allowed nor refused as a whole.
    let mut special: Vec<((u32, u32), Rule)> =
        vec![((41, 359), Rule::NoVsock), ((135, 136), Rule::Personality)];
    if !held(CAP_SYS_ADMIN) {
        special.push(((56, 120), Rule::NoNamespaces));
    }
    // glibc falls back to clone on ENOSYS; a filter cannot read clone3's flags.
    special.push((
        (435, 435),
        if held(CAP_SYS_ADMIN) {
            Rule::Return(ALLOW)
        } else {
            Rule::Return(ENOSYS)
        },
    ));
    // i386's socketcall carries its arguments in memory; ENOSYS makes C libraries use `socket`.
    let mut i386_special: Vec<(u32, Rule)> =
        special.iter().map(|((_, nr), rule)| (*nr, *rule)).collect();
    i386_special.push((102, Rule::Return(ENOSYS)));
    let x86_64 = tree(&ranges(
        calls.iter().map(|c| c.1),
        special.iter().map(|((nr, _), rule)| (*nr, *rule)),
    ));
    let i386 = tree(&ranges(calls.iter().map(|c| c.2), i386_special.into_iter()));

    let mut program = vec![
        op(LD_W_ABS, OFFSET_ARCH, 0, 0),
        op(JEQ, ARCH_X86_64, 1, 0),
        op(JA, 3 + x86_64.len() as u32, 0, 0),
    ];
    program.push(op(LD_W_ABS, OFFSET_NR, 0, 0));
    program.push(op(JGE, X32, 0, 1));
    program.push(op(RET, ENOSYS, 0, 0));
    program.extend(x86_64);
    program.extend([
        op(JEQ, ARCH_I386, 1, 0),
        op(RET, ENOSYS, 0, 0),
        op(LD_W_ABS, OFFSET_NR, 0, 0),
    ]);
    program.extend(i386);
    program
}

/// Sorted ranges (start, rule) that cover all numbers from 0.
fn ranges(
    allowed: impl Iterator<Item = i16>,
    special: impl Iterator<Item = (u32, Rule)>,
) -> Vec<(u32, Rule)> {
    let mut rules: std::collections::BTreeMap<u32, Rule> = allowed
        .filter(|nr| *nr != NONE)
        .map(|nr| (u32::from(nr.unsigned_abs()), Rule::Return(ALLOW)))
        .collect();
    rules.extend(special);
    let last = rules.keys().next_back().copied().unwrap_or(0);
    let mut out: Vec<(u32, Rule)> = Vec::new();
    // Calls newer than the profile are unknown, not forbidden: programs then take the older way.
    for nr in 0..=last + 1 {
        let rule = if nr > last {
            Rule::Return(ENOSYS)
        } else {
            rules.get(&nr).copied().unwrap_or(Rule::Return(EPERM))
        };
        if out.last().is_none_or(|(_, before)| *before != rule) {
            out.push((nr, rule));
        }
    }
    out
}

/// A binary search over the ranges, with the number in the accumulator.
fn tree(ranges: &[(u32, Rule)]) -> Vec<BpfInstruction> {
    if let [(_, rule)] = ranges {
        return rule.emit();
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let left = tree(low);
    let mut out = match u8::try_from(left.len()) {
        Ok(skip) => vec![op(JGE, high[0].0, skip, 0)],
        // Conditional jumps reach 255 instructions; beyond, an unconditional one.
        Err(_) => vec![op(JGE, high[0].0, 0, 1), op(JA, left.len() as u32, 0, 0)],
    };
    out.extend(left);
    out.extend(tree(high));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets the program as the kernel would.
    fn run(program: &[BpfInstruction], arch: u32, nr: u32, arg0: u32) -> u32 {
        let (mut pc, mut a) = (0usize, 0u32);
        loop {
            let i = program[pc];
            pc += 1;
            let jump = |taken: bool| usize::from(if taken { i.jump_true } else { i.jump_false });
            match i.code {
                LD_W_ABS => {
                    a = [(OFFSET_NR, nr), (OFFSET_ARCH, arch), (OFFSET_ARG0, arg0)]
                        .iter()
                        .find(|(o, _)| *o == i.k)
                        .unwrap()
                        .1
                }
                JA => pc += i.k as usize,
                JEQ => pc += jump(a == i.k),
                JGE => pc += jump(a >= i.k),
                JSET => pc += jump(a & i.k != 0),
                RET => return i.k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn every_listed_call_is_allowed_and_no_other() {
        let program = compile(0);
        assert!(program.len() < 4096, "{} instructions", program.len());
        let special64 = [41, 135, 56, 435];
        let special32 = [359, 136, 120, 435, 102];
        for nr in 0..1000u32 {
            let listed = |pick: fn(&Call) -> i16| ALLOWED.iter().any(|c| pick(c) == nr as i16);
            if !special64.contains(&nr) {
                assert_eq!(
                    run(&program, ARCH_X86_64, nr, 0) == ALLOW,
                    listed(|c| c.1),
                    "x86_64 {nr}"
                );
            }
            if !special32.contains(&nr) {
                assert_eq!(
                    run(&program, ARCH_I386, nr, 0) == ALLOW,
                    listed(|c| c.2),
                    "i386 {nr}"
                );
            }
        }
    }

    #[test]
    fn arguments_decide_where_the_profile_says_so() {
        let program = compile(0);
        for (arch, socket, personality, clone) in
            [(ARCH_X86_64, 41, 135, 56), (ARCH_I386, 359, 136, 120)]
        {
            assert_eq!(run(&program, arch, socket, 2), ALLOW);
            assert_eq!(run(&program, arch, socket, AF_VSOCK), EPERM);
            assert_eq!(run(&program, arch, personality, 0x2_0008), ALLOW);
            assert_eq!(run(&program, arch, personality, 0xffff_ffff), ALLOW);
            assert_eq!(run(&program, arch, personality, 1), EPERM);
            assert_eq!(run(&program, arch, clone, 0x0120_0011), ALLOW);
            assert_eq!(
                run(&program, arch, clone, 0x1000_0000),
                EPERM,
                "CLONE_NEWUSER"
            );
            assert_eq!(run(&program, arch, 435, 0), ENOSYS, "clone3");
        }
        assert_eq!(run(&program, ARCH_I386, 102, 1), ENOSYS, "socketcall");
        assert_eq!(run(&program, ARCH_X86_64, X32 | 1, 0), ENOSYS);
        assert_eq!(run(&program, 0x1234, 1, 0), ENOSYS);
        assert_eq!(
            run(&program, ARCH_X86_64, 4000, 0),
            ENOSYS,
            "newer than the profile"
        );
    }

    #[test]
    fn a_capability_opens_its_calls() {
        let mount = 165;
        assert_eq!(run(&compile(0), ARCH_X86_64, mount, 0), EPERM);
        let admin = compile(1 << CAP_SYS_ADMIN);
        assert_eq!(run(&admin, ARCH_X86_64, mount, 0), ALLOW);
        assert_eq!(run(&admin, ARCH_X86_64, 56, 0x1000_0000), ALLOW);
        assert_eq!(
            run(&admin, ARCH_X86_64, 313, 0),
            EPERM,
            "finit_module needs CAP_SYS_MODULE"
        );
    }
}
