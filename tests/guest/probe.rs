//! What a hostile container tries, one attempt an argument. Prints `NAME refused ERRNO` or
//! `NAME done`. Compiled by the harness with rustc alone, static, so that it runs in any image.

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_void};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mount(a: *const c_char, b: *const c_char, c: *const c_char, flags: u64, data: *const c_void) -> c_int;
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn mknod(path: *const c_char, mode: c_uint, device: u64) -> c_int;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn setns(fd: c_int, kind: c_int) -> c_int;
}

fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL in a literal")
}

fn attempt(name: &str) -> i64 {
    let (none, mnt) = (c("none"), c("/mnt"));
    let null = std::ptr::null::<c_void>();
    // SAFETY: every pointer is a live NUL-terminated string, null where the call allows it, or a plain number.
    unsafe {
        match name {
            "vsock" => socket(40, 1, 0).into(),
            // IORING_OP_SOCKET would pass by a filter on socket(2).
            "io_uring" => syscall(425, 8, [0u8; 120].as_mut_ptr()),
            "finit_module" => syscall(313, 0, c("").as_ptr(), 0),
            "init_module" => syscall(175, c("").as_ptr(), 0, c("").as_ptr()),
            "reboot" => syscall(169, 0xfee1_dead_u32, 672_274_793, 0x4321_fedc, 0),
            "kexec" => syscall(246, 0, 0, null, 0),
            "mknod_disk" => mknod(c("/tmp/disk").as_ptr(), 0o060_600, 8 << 8).into(),
            "mknod_serial" => mknod(c("/dev/serial").as_ptr(), 0o020_600, 4 << 8 | 65).into(),
            "mount_proc" => mount(c("proc").as_ptr(), c("/tmp").as_ptr(), c("proc").as_ptr(), 0, null).into(),
            "mount_devtmpfs" => mount(c("devtmpfs").as_ptr(), c("/tmp").as_ptr(), c("devtmpfs").as_ptr(), 0, null).into(),
            "remount_proc_sys" => mount(none.as_ptr(), c("/proc/sys").as_ptr(), none.as_ptr(), 32 | 4096, null).into(),
            "remount_sys" => mount(none.as_ptr(), c("/sys").as_ptr(), none.as_ptr(), 32, null).into(),
            "umount_mask" => syscall(166, c("/sys/firmware").as_ptr(), 2),
            "pivot_root" => syscall(155, mnt.as_ptr(), mnt.as_ptr()),
            "new_user_namespace" => unshare(0x1000_0000).into(),
            "new_mount_namespace" => unshare(0x2_0000).into(),
            "setns" => setns(open(c("/proc/self/ns/net").as_ptr(), 0), 0).into(),
            "iopl" => syscall(172, 3),
            "ioperm" => syscall(173, 0x5658, 2, 1),
            "bpf" => syscall(321, 0, null, 0),
            "settime" => syscall(227, 0, [1i64, 0].as_ptr()),
            "sethostname" => syscall(170, c("x").as_ptr(), 1),
            "open_by_handle" => syscall(304, -100, [0u8; 144].as_ptr(), 0),
            "clone3" => syscall(435, null, 0),
            "write_sysctl" => i64::from(open(c("/proc/sys/kernel/core_pattern").as_ptr(), 1)),
            "write_sysrq" => i64::from(open(c("/proc/sysrq-trigger").as_ptr(), 1)),
            "write_cgroup" => i64::from(open(c("/sys/fs/cgroup/cgroup.procs").as_ptr(), 1)),
            "chroot_escape" => {
                // The classic way: a root below the working directory, then up and up.
                let outside = open(c("/").as_ptr(), 0);
                syscall(83, c("/tmp/jail").as_ptr(), 0o700);
                syscall(161, c("/tmp/jail").as_ptr());
                syscall(81, outside);
                for _ in 0..64 {
                    syscall(80, c("..").as_ptr());
                }
                syscall(161, c(".").as_ptr());
                // In the tether's root as in the initramfs below it, and in no container's.
                i64::from(open(c("/modules").as_ptr(), 0))
            }
            other => panic!("no attempt is called {other}"),
        }
    }
}

fn main() {
    for name in std::env::args().skip(1) {
        let result = attempt(&name);
        let error = std::io::Error::last_os_error();
        if result < 0 {
            println!("{name} refused {}", error.raw_os_error().unwrap_or(0));
        } else {
            println!("{name} done");
        }
    }
}
