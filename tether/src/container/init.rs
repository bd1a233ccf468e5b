//! The small init of `docker run --init`: the first process in the container's pid namespace.
//!
//! The tether executes itself afresh for it, so its memory holds nothing of the tether's. It starts
//! the program, forwards every signal to it, reaps every orphan at once, and ends as the program does.
//! With a mark in the path's place it is what starts an exec in a container that may trace.

use super::sibling;
use crate::sys::process::{self, Ended};
use std::ffi::CString;

/// The name (argv[0]) by which the tether's binary is told to be this init.
pub const NAME: &str = "/sbin/docker-init";

/// Runs `args` (the resolved path first, then argv) and returns the exit code of this init.
#[must_use]
pub fn run(mut args: Vec<CString>, env: &[CString]) -> i32 {
    if args
        .first()
        .is_some_and(|first| first.as_bytes() == sibling::MARK.as_bytes())
    {
        args.remove(0);
        return sibling::run(args);
    }
    let Some((path, argv)) = args.split_first() else {
        return 127;
    };
    process::block_all_signals();
    let child = match process::fork(|| {
        // Its own group and the terminal's foreground, so that Ctrl-C reaches it and not this init twice.
        let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0));
        let _ = nix::unistd::tcsetpgrp(std::io::stdin(), nix::unistd::getpid());
        process::reset_signals();
        let error = process::exec(path, argv, env);
        eprintln!("exec {}: {}", path.to_string_lossy(), super::reason(&error));
        if error.raw_os_error() == Some(libc::ENOENT) {
            127
        } else {
            126
        }
    }) {
        Ok(child) => child,
        Err(error) => {
            eprintln!(
                "docker-init: cannot start {}: {}",
                path.to_string_lossy(),
                super::reason(&error)
            );
            return 126;
        }
    };
    loop {
        match process::wait_signal() {
            Ok(libc::SIGCHLD) => {
                let mut ended: Option<Ended> = None;
                while let Ok(Some((pid, how))) = process::reap(false) {
                    if pid == child {
                        ended = Some(how);
                    }
                }
                if let Some(how) = ended {
                    return how.code();
                }
            }
            Ok(signal) => drop(process::kill(child, signal)),
            Err(_) => {}
        }
    }
}
