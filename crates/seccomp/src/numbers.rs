//! Numbers of system calls by their names (asm/unistd_64.h, asm/unistd_32.h).

/// The architectures that a container's kernel runs programs of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arch {
    X86_64,
    I386,
}

impl Arch {
    /// AUDIT_ARCH_… (linux/audit.h).
    pub(crate) fn audit(self) -> u32 {
        match self {
            Arch::X86_64 => 0xC000_003E,
            Arch::I386 => 0x4000_0003,
        }
    }

    /// The number of a call; `None`: this architecture has no such call.
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Arch::X86_64 => name.parse::<syscalls::x86_64::Sysno>().ok()?.id(),
            Arch::I386 => name.parse::<syscalls::x86::Sysno>().ok()?.id(),
        };
        u32::try_from(number).ok()
    }
}
