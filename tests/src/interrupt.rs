//! Ctrl-C: what was started (hosts, daemons, namespaces) is ended all the same, by those that started it. A program that
//! has called [`watch`] is not ended by SIGINT or SIGTERM; what it does next asks [`check`] first and gives up.

use anyhow::{Context, Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A shell's exit code for a program that SIGINT has ended.
const INTERRUPTED: i32 = 130;

static CAME: AtomicBool = AtomicBool::new(false);

/// Takes the signals from now on. The second one ends the program at once, whatever it leaves.
///
/// # Errors
/// When no handler can be set.
pub fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("a runtime for signals")?;
    let (interrupt, terminate) = {
        let _inside = runtime.enter();
        let set = |kind| signal(kind).context("a handler of signals");
        (set(SignalKind::interrupt())?, set(SignalKind::terminate())?)
    };
    std::thread::spawn(move || runtime.block_on(take(interrupt, terminate)));
    Ok(())
}

async fn take(mut interrupt: Signal, mut terminate: Signal) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if CAME.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED);
        }
        eprintln!("interrupted: ending what runs; once more ends this at once and leaves it");
    }
}

/// Whether to go on.
///
/// # Errors
/// Once a signal has come.
pub fn check() -> Result<()> {
    ensure!(!CAME.load(Ordering::SeqCst), "interrupted");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, raise};

    #[test]
    fn a_signal_is_told_by_the_next_check() {
        watch().unwrap();
        check().unwrap();
        raise(Signal::SIGTERM).unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while check().is_ok() {
            assert!(std::time::Instant::now() < until, "not told");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
