//! The seccomp filter, which the endpoint has compiled (crates/seccomp) and the guest installs.

use crate::sys::process::BpfInstruction;
use wire::config::{ConfigError, seccomp_program};

/// Calls that a container has whose capabilities would make them a way to the tether's memory (see
/// [`kept_out`]), by their numbers on x86-64: bpf, perf_event_open, swapon, kexec_load (also that of x32),
/// kexec_file_load.
const CALLS: [u32; 6] = [321, 298, 167, 246, 528, 320];
/// The same of i386, which has no kexec_file_load.
const CALLS_I386: [u32; 4] = [357, 336, 87, 283];

/// The program out of a configuration's text.
///
/// # Errors
/// If it is none.
pub fn program(text: &str) -> Result<Vec<BpfInstruction>, ConfigError> {
    let bytes = seccomp_program(text)?;
    let instruction = |&[a, b, jump_true, jump_false, c, d, e, f]: &[u8; 8]| BpfInstruction {
        code: u16::from_le_bytes([a, b]),
        jump_true,
        jump_false,
        k: u32::from_le_bytes([c, d, e, f]),
    };
    let (all, _) = bytes.as_chunks::<8>();
    Ok(all.iter().map(instruction).collect())
}

/// A filter besides that of the profile, for a container whose capabilities ([`super::caps::kernel`]) make these calls a
/// way out of it, whatever its profile says: bpf(2) reads the kernel's memory, and takes the program off a cgroup that
/// keeps devices closed (kernel/bpf/syscall.c, `bpf_prog_detach`, asks for no capability); perf_event_open(2) samples the
/// stacks of all processes; swapon(2) has others' memory written to a file; kexec_load(2) starts a kernel.
#[must_use]
pub fn kept_out() -> Vec<BpfInstruction> {
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    const X32_BIT: u32 = 0x4000_0000;
    const REFUSE: u32 = 0x0005_0000 | libc::EPERM as u32; // SECCOMP_RET_ERRNO
    const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
    const IF_EQUAL: u16 = 0x15; // JMP | JEQ | K
    let one = |code, k, jump_true, jump_false| BpfInstruction {
        code,
        jump_true,
        jump_false,
        k,
    };
    // `struct seccomp_data`: the number is at 0, the architecture at 4.
    let load = |offset| one(0x20, offset, 0, 0); // LD | W | ABS
    let answer = |what| one(0x06, what, 0, 0); // RET | K
    // Each comparison is followed by its answer: no distance depends on how many there are.
    let refuse = |number: &u32| [one(IF_EQUAL, *number, 0, 1), answer(REFUSE)];
    let i386: Vec<_> = CALLS_I386.iter().flat_map(refuse).collect();
    let mut all = vec![
        load(4),
        one(IF_EQUAL, AUDIT_ARCH_I386, 0, i386.len() as u8 + 2),
        load(0),
    ];
    all.extend(i386);
    all.push(answer(ALLOW));
    all.extend([load(0), one(0x54, !X32_BIT, 0, 0)]); // ALU | AND | K
    all.extend(CALLS.iter().flat_map(refuse));
    all.push(answer(ALLOW));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel makes of the filter, as far as it uses BPF.
    fn answer(arch: u32, number: u32) -> u32 {
        let (program, mut at, mut accumulator) = (kept_out(), 0, 0);
        loop {
            let BpfInstruction {
                code,
                jump_true,
                jump_false,
                k,
            } = program[at];
            at += 1;
            match code {
                0x20 => accumulator = if k == 4 { arch } else { number },
                0x54 => accumulator &= k,
                0x15 => {
                    at += usize::from(if accumulator == k {
                        jump_true
                    } else {
                        jump_false
                    })
                }
                0x06 => return k,
                other => panic!("no such operation: {other:x}"),
            }
        }
    }

    #[test]
    fn calls_that_lead_to_the_kernels_memory_are_refused_on_every_architecture() {
        const X86_64: u32 = 0xc000_003e;
        const I386: u32 = 0x4000_0003;
        let (refused, allowed) = (0x0005_0001, 0x7fff_0000);
        for number in [
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_swapon,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
        ] {
            let number = u32::try_from(number).unwrap();
            assert_eq!(answer(X86_64, number), refused, "{number}");
            assert_eq!(answer(X86_64, number | 0x4000_0000), refused, "{number}");
        }
        assert_eq!(answer(X86_64, 0x4000_0000 | 528), refused);
        for number in CALLS_I386 {
            assert_eq!(answer(I386, number), refused, "{number}");
        }
        for number in [libc::SYS_mount, libc::SYS_openat, libc::SYS_clone] {
            assert_eq!(answer(X86_64, number as u32), allowed);
        }
        // The numbers of one architecture are other calls on the other.
        for number in CALLS {
            assert_eq!(answer(I386, number), allowed, "{number}");
        }
    }
}
