//! The VMware backdoor, executed for real: the instruction faults in user space, and a handler of
//! SIGSEGV plays the hypervisor's port, as VMware's answers ring 3.

use std::cell::UnsafeCell;
use tether::boot::config::{Hypervisor, Rpc, Source};
use tether::sys::backdoor::{MAGIC, PORT, PORT_HB};

/// The hypervisor's side of the message protocol.
struct Host {
    value: String,
    high_bandwidth: bool,
    request: Vec<u8>,
    expected: usize,
    answer: Vec<u8>,
    sent: usize,
    calls: usize,
    /// So many requests are still broken off by a checkpoint; that it was so now.
    checkpoints: usize,
    broken_off: bool,
}

struct Global(UnsafeCell<Option<Host>>);
// SAFETY: used by the one thread of this test, and by its own synchronous signal handler.
unsafe impl Sync for Global {}
static HOST: Global = Global(UnsafeCell::new(None));

const CHANNEL: u64 = 7;
const COOKIES: (u64, u64) = (0x1111_2222, 0x3333_4444);

impl Host {
    /// One low-bandwidth call; gives ebx, ecx, edx, esi, edi.
    fn call(&mut self, ebx: u64, ecx: u64, edx: u64, cookies: (u64, u64)) -> [u64; 5] {
        self.calls += 1;
        let (kind, mut out) = (ecx >> 16, [ebx, 1 << 16, edx, cookies.0, cookies.1]);
        assert_eq!(ecx & 0xffff, 30, "the message command");
        if kind != 0 {
            assert_eq!(
                (edx >> 16, cookies),
                (CHANNEL, COOKIES),
                "channel and cookies of the open"
            );
        }
        assert!(!self.broken_off || matches!(kind, 0 | 6), "not begun anew");
        match kind {
            0 => {
                self.broken_off = false;
                assert_eq!(ebx, 0xC943_5052, "RPCI with cookies");
                out[2..].copy_from_slice(&[CHANNEL << 16, COOKIES.0, COOKIES.1]);
            }
            1 => (self.expected, self.request) = (ebx as usize, Vec::new()),
            2 => {
                let n = 4.min(self.expected - self.request.len());
                self.request.extend(&(ebx as u32).to_le_bytes()[..n]);
                if self.request.len() == self.expected {
                    let there = self.request == b"info-get guestinfo.there";
                    self.answer = if there {
                        format!("1 {}", self.value)
                    } else {
                        "0 No value found".into()
                    }
                    .into_bytes();
                    self.sent = 0;
                }
            }
            3 if self.checkpoints > 0 => {
                (self.checkpoints, self.broken_off) = (self.checkpoints - 1, true);
                out[1] = 0x10 << 16;
            }
            3 => {
                out[0] = self.answer.len() as u64;
                out[1] = (0x3 | if self.high_bandwidth { 0x80 } else { 0 }) << 16;
            }
            4 => {
                let mut word = [0; 4];
                let rest = &self.answer[self.sent..];
                let n = rest.len().min(4);
                word[..n].copy_from_slice(&rest[..n]);
                self.sent += n;
                out[0] = u32::from_le_bytes(word).into();
            }
            5 | 6 => {}
            other => panic!("unknown kind {other}"),
        }
        out
    }
}

extern "C" fn on_fault(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a ucontext; the instruction at rip is readable, since it was being
    // executed; the test's thread is stopped in it and touches HOST no more.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let get = |r: i32| registers[r as usize] as u64;
        let low = |r: i32| get(r) & 0xffff_ffff;
        let rip = get(libc::REG_RIP) as *const u8;
        let host = (*HOST.0.get()).as_mut().expect("a host");
        assert_eq!(low(libc::REG_RAX), u64::from(MAGIC));
        let port = get(libc::REG_RDX) as u16;
        match (*rip, *rip.add(1)) {
            // in eax, dx
            (0xED, _) if port == PORT => {
                let cookies = (low(libc::REG_RSI), low(libc::REG_RDI));
                let out = host.call(
                    low(libc::REG_RBX),
                    low(libc::REG_RCX),
                    low(libc::REG_RDX),
                    cookies,
                );
                let names = [
                    libc::REG_RBX,
                    libc::REG_RCX,
                    libc::REG_RDX,
                    libc::REG_RSI,
                    libc::REG_RDI,
                ];
                for (name, value) in names.into_iter().zip(out) {
                    registers[name as usize] = value as i64;
                }
                registers[libc::REG_RIP as usize] += 1;
            }
            // rep insb
            (0xF3, 0x6C) if port == PORT_HB => {
                assert_eq!(
                    (get(libc::REG_RBP), get(libc::REG_RSI)),
                    COOKIES,
                    "the cookies' places"
                );
                let count = get(libc::REG_RCX) as usize;
                assert_eq!(count, host.answer.len());
                std::ptr::copy_nonoverlapping(
                    host.answer.as_ptr(),
                    get(libc::REG_RDI) as *mut u8,
                    count,
                );
                registers[libc::REG_RBX as usize] = 1 << 16;
                registers[libc::REG_RCX as usize] = 0;
                registers[libc::REG_RIP as usize] += 2;
            }
            // A fault of another kind is one.
            _ => libc::_exit(98),
        }
    }
}

#[test]
fn a_value_comes_through_the_real_instructions() {
    // SAFETY: installs a handler with the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        assert_eq!(
            libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()),
            0
        );
    }
    let value: String = (0..9001)
        .map(|n| char::from(b'a' + (n % 26) as u8))
        .collect();
    for high_bandwidth in [false, true] {
        let host = Host {
            value: value.clone(),
            high_bandwidth,
            request: Vec::new(),
            expected: 0,
            answer: Vec::new(),
            sent: 0,
            calls: 0,
            checkpoints: 0,
            broken_off: false,
        };
        // SAFETY: no fault is under way.
        unsafe { *HOST.0.get() = Some(host) };
        let mut rpc = Rpc::new(Hypervisor);
        assert_eq!(
            rpc.get("guestinfo.there").unwrap(),
            Some(value.clone()),
            "high bandwidth: {high_bandwidth}"
        );
        assert_eq!(rpc.get("guestinfo.nothing").unwrap(), None);
        // SAFETY: as above.
        let calls = unsafe { (*HOST.0.get()).as_ref().unwrap().calls };
        // In words of four bytes, or in one bulk read.
        assert_eq!(calls > 2000, !high_bandwidth, "{calls} calls");
        // A snapshot, or a move to another host, within a request: that is begun anew, and not for ever.
        for (checkpoints, comes) in [(2, true), (3, false)] {
            // SAFETY: as above.
            unsafe { (*HOST.0.get()).as_mut().unwrap().checkpoints = checkpoints };
            let got = rpc.get("guestinfo.there");
            assert_eq!(got.is_ok(), comes, "{checkpoints} checkpoints: {got:?}");
            if comes {
                assert_eq!(got.unwrap(), Some(value.clone()));
            }
        }
    }
}
