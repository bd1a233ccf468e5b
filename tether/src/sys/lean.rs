//! What the static C library brings along, and nothing here needs.

/// In place of glibc's, which reads /proc/self/maps with sscanf(3), and with that has 60 KB of number parsing. Rust's
/// runtime asks for the main thread's stack to name an overflow as such; without an answer it is a plain SIGSEGV.
#[unsafe(no_mangle)]
extern "C" fn pthread_getattr_np(
    _thread: libc::pthread_t,
    _attributes: *mut libc::pthread_attr_t,
) -> libc::c_int {
    libc::ENOSYS
}
