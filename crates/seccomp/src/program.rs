//! Rules as classic BPF over `struct seccomp_data` (linux/seccomp.h, linux/bpf_common.h).

use crate::numbers::Arch;
use std::collections::BTreeMap;

/// Operations.
pub(crate) const LD_W_ABS: u16 = 0x20;
pub(crate) const AND: u16 = 0x54;
pub(crate) const JA: u16 = 0x05;
pub(crate) const JEQ: u16 = 0x15;
pub(crate) const JGT: u16 = 0x25;
pub(crate) const JGE: u16 = 0x35;
pub(crate) const RET: u16 = 0x06;

/// What a filter returns.
pub(crate) const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const ERRNO: u32 = 0x0005_0000;
pub(crate) const EPERM: u32 = ERRNO | 1;
pub(crate) const ENOSYS: u32 = ERRNO | 38;

/// `__X32_SYSCALL_BIT`.
pub(crate) const X32: u32 = 0x4000_0000;
const AF_VSOCK: u64 = 40;

/// Offsets in `struct seccomp_data`; an argument has 8 bytes, its low half first.
pub(crate) const OFFSET_NR: u32 = 0;
pub(crate) const OFFSET_ARCH: u32 = 4;
pub(crate) const OFFSET_ARGS: u32 = 16;

/// Calls that are refused whatever a profile says: `socket` for AF_VSOCK; io_uring, which makes sockets past every
/// filter; i386's `socketcall`, whose arguments a filter cannot read, as if there were none: C libraries take `socket`
/// then; and x32 as a whole.
pub const GUARD: [&str; 3] = ["socket", "socketcall", "io_uring_setup"];

/// One instruction (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip where a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip where it does not.
    pub jump_false: u8,
    /// Constant.
    pub k: u32,
}

impl Instruction {
    /// As a little-endian kernel has it.
    pub(crate) fn bytes(self) -> [u8; 8] {
        let ([a, b], [c, d, e, f]) = (self.code.to_le_bytes(), self.k.to_le_bytes());
        [a, b, self.jump_true, self.jump_false, c, d, e, f]
    }
}

fn op(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        k,
    }
}

/// How an argument is compared, as a number of 64 bits without sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// What the mask leaves of it is equal.
    Masked(u64),
}

/// A condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) index: u8,
    pub(crate) compare: Compare,
    pub(crate) value: u64,
}

/// What happens to a call all of whose conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) number: u32,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) action: u32,
}

/// What happens to a call: the first of the lists that holds, or else the last action.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    rules: Vec<(Vec<Argument>, u32)>,
    last: u32,
}

/// A condition's instructions, as they jump: on, or to what follows where the condition holds or does not.
#[derive(Clone, Copy)]
enum To {
    Next,
    Holds,
    Fails,
}

impl Argument {
    /// Its instructions: those that jump over the rest where it holds come to its end, the others go `beyond` it by so
    /// many instructions.
    fn emit(self, beyond: u8) -> Vec<Instruction> {
        let low_at = OFFSET_ARGS + u32::from(self.index) * 8;
        let halves = |n: u64| ((n >> 32) as u32, n as u32);
        let (high, low) = halves(self.value);
        let (load_high, load_low) = (op(LD_W_ABS, low_at + 4, 0, 0), op(LD_W_ABS, low_at, 0, 0));
        let plain = |i: Instruction| (i, To::Next, To::Next);
        let jump = |code: u16, k: u32, holds: To, fails: To| (op(code, k, 0, 0), holds, fails);
        // A comparison and its opposite are the same instructions.
        let order = |last: u16, (yes, no): (To, To)| {
            vec![
                plain(load_high),
                jump(JGT, high, yes, To::Next),
                jump(JEQ, high, To::Next, no),
                plain(load_low),
                jump(last, low, yes, no),
            ]
        };
        let (up, down) = ((To::Holds, To::Fails), (To::Fails, To::Holds));
        let all = match self.compare {
            Compare::Equal => vec![
                plain(load_high),
                jump(JEQ, high, To::Next, To::Fails),
                plain(load_low),
                jump(JEQ, low, To::Holds, To::Fails),
            ],
            Compare::NotEqual => vec![
                plain(load_high),
                jump(JEQ, high, To::Next, To::Holds),
                plain(load_low),
                jump(JEQ, low, To::Fails, To::Holds),
            ],
            Compare::Greater => order(JGT, up),
            Compare::GreaterOrEqual => order(JGE, up),
            Compare::LessOrEqual => order(JGT, down),
            Compare::Less => order(JGE, down),
            Compare::Masked(mask) => {
                let (mask_high, mask_low) = halves(mask);
                vec![
                    plain(load_high),
                    plain(op(AND, mask_high, 0, 0)),
                    jump(JEQ, high, To::Next, To::Fails),
                    plain(load_low),
                    plain(op(AND, mask_low, 0, 0)),
                    jump(JEQ, low, To::Holds, To::Fails),
                ]
            }
        };
        let length = all.len();
        all.into_iter()
            .enumerate()
            .map(|(at, (mut one, holds, fails))| {
                // Six at most: it fits.
                let rest = (length - at - 1) as u8;
                let far = |to: To| match to {
                    To::Next => 0,
                    To::Holds => rest,
                    To::Fails => rest + beyond,
                };
                if !matches!(one.code, LD_W_ABS | AND) {
                    (one.jump_true, one.jump_false) = (far(holds), far(fails));
                }
                one
            })
            .collect()
    }
}

impl Decision {
    fn emit(&self) -> Vec<Instruction> {
        let mut out = Vec::new();
        for (arguments, action) in &self.rules {
            // From behind: each knows how much of its rule follows. Six arguments of six instructions at most.
            let mut rule = vec![op(RET, *action, 0, 0)];
            for argument in arguments.iter().rev() {
                let mut longer = argument.emit(rule.len() as u8);
                longer.extend(rule);
                rule = longer;
            }
            out.extend(rule);
            if arguments.is_empty() {
                return out;
            }
        }
        out.push(op(RET, self.last, 0, 0));
        out
    }
}

/// The program of these rules; calls without one, and those whose rules do not hold, get the default.
pub(crate) fn compile(arches: &[(Arch, Vec<Rule>)], default: u32) -> Vec<Instruction> {
    let mut out = vec![op(LD_W_ABS, OFFSET_ARCH, 0, 0)];
    for (arch, rules) in arches {
        let mut part = vec![op(LD_W_ABS, OFFSET_NR, 0, 0)];
        if *arch == Arch::X86_64 {
            part.extend([op(JGE, X32, 0, 1), op(RET, ENOSYS, 0, 0)]);
        }
        part.extend(tree(&ranges(*arch, rules, default)));
        out.push(op(JEQ, arch.audit(), 1, 0));
        out.push(op(JA, part.len() as u32, 0, 0));
        out.extend(part);
    }
    out.push(op(RET, ENOSYS, 0, 0));
    out
}

/// Sorted ranges of numbers that are decided alike; they cover all from 0.
fn ranges(arch: Arch, rules: &[Rule], default: u32) -> Vec<(u32, Decision)> {
    let mut decisions: BTreeMap<u32, Decision> = BTreeMap::new();
    let plain = |last: u32| Decision {
        rules: Vec::new(),
        last,
    };
    for rule in rules {
        let decision = decisions.entry(rule.number).or_insert(plain(default));
        decision.rules.push((rule.arguments.clone(), rule.action));
    }
    let newest = decisions.keys().next_back().copied().unwrap_or(0);
    for name in GUARD {
        let Some(number) = arch.number(name) else {
            continue;
        };
        let decision = decisions.entry(number).or_insert(plain(default));
        match name {
            "socket" => {
                // The kernel takes the low half alone.
                let vsock = Argument {
                    index: 0,
                    compare: Compare::Masked(0xffff_ffff),
                    value: AF_VSOCK,
                };
                decision.rules.insert(0, (vec![vsock], EPERM));
            }
            "socketcall" => *decision = plain(ENOSYS),
            _ => *decision = plain(EPERM),
        }
    }
    // As runc: calls newer than the profile are unknown, not forbidden; programs then take the older way.
    let unknown = match default {
        ALLOW | LOG => default,
        _ => ENOSYS,
    };
    let mut out: Vec<(u32, Decision)> = Vec::new();
    let last = decisions
        .keys()
        .next_back()
        .copied()
        .unwrap_or(0)
        .max(newest);
    for number in 0..=last + 1 {
        let decision = match decisions.get(&number) {
            Some(decision) => decision.clone(),
            None if number > newest => plain(unknown),
            None => plain(default),
        };
        if out.last().is_none_or(|(_, before)| *before != decision) {
            out.push((number, decision));
        }
    }
    out
}

/// A binary search over the ranges, with the number in the accumulator.
fn tree(ranges: &[(u32, Decision)]) -> Vec<Instruction> {
    if let [(_, decision)] = ranges {
        return decision.emit();
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
