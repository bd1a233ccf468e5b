//! An exec in a container that may trace (`CAP_SYS_PTRACE`).
//!
//! Elsewhere a child of the tether is in the container's pid namespace from its clone on, and becomes its program there.
//! Until then it has the tether's memory, with the link's keys, and every capability: whoever may trace in the container
//! could take both. Here the child stays outside of that namespace, where nobody in the container has a number for it. It
//! joins all else, gives up what the program shall not have, and then executes the tether's binary afresh (as `--init`
//! does), by which its memory is gone, too. What runs then is this: it clones the process that becomes the program, and
//! only that one is in the container's pid namespace. With CLONE_PARENT it is the tether's child nevertheless.
//!
//! It tells the tether its child's pidfd, over the pipe of the child's reports: what is told there may by then be the
//! container's. So the tether takes that descriptor from this process, which is out of the container's reach, and which
//! has no other pidfd: a lie gets nothing but an error.

use super::init::NAME;
use super::{StartError, lookup};
use crate::sys::process as sys;
use crate::sys::tty;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// The first argument that tells the binary to be this and not an init, which has its program's path there.
pub const MARK: &str = "";

/// What this is to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Orders {
    /// Descriptor of the pipe for reports.
    pub status: RawFd,
    /// Descriptor of the pipe of which one byte lets the program begin.
    pub go: RawFd,
    /// Standard input is the terminal that controls the program.
    pub tty: bool,
    /// The program's environment. This program itself has none: what the image says is not for it.
    pub env: Vec<CString>,
    /// The program's path, where it was found.
    pub path: CString,
    /// Its arguments, its name first.
    pub args: Vec<CString>,
}

impl Orders {
    /// As arguments of this program.
    #[must_use]
    pub fn to_args(&self) -> Vec<CString> {
        let numbers = [
            self.status,
            self.go,
            i32::from(self.tty),
            // Bounded by what execve(2) takes.
            self.env.len() as i32,
        ];
        let texts = [NAME.to_owned(), MARK.to_owned()].into_iter();
        let texts = texts.chain(numbers.map(|number| number.to_string()));
        // None has a NUL.
        let texts = texts.map(|text| CString::new(text).unwrap_or_default());
        let mut all: Vec<CString> = texts.collect();
        all.extend_from_slice(&self.env);
        all.push(self.path.clone());
        all.extend_from_slice(&self.args);
        all
    }

    /// Out of the arguments behind [`MARK`].
    fn of(args: Vec<CString>) -> Option<Orders> {
        let mut args = args.into_iter();
        let mut number = || args.next()?.to_str().ok()?.parse::<i32>().ok();
        let (status, go, tty) = (number()?, number()?, number()? != 0);
        let count = usize::try_from(number()?).ok()?;
        let env: Vec<CString> = args.by_ref().take(count).collect();
        Some(Orders {
            status,
            go,
            tty,
            env,
            path: args.next()?,
            args: args.collect(),
        })
    }
}

/// Runs with the arguments behind [`MARK`]; gives the exit code, which nobody asks for.
#[must_use]
pub fn run(args: Vec<CString>) -> i32 {
    let Some(orders) = Orders::of(args) else {
        return 125;
    };
    let (Ok(status), Ok(go)) = (sys::inherited(orders.status), sys::inherited(orders.go)) else {
        return 125;
    };
    let (mut status, mut go) = (File::from(status), File::from(go));
    let child = sys::fork_sibling(|| {
        let error = start(&orders, &mut go);
        // Nobody left to tell if this fails; the exit code says it, too.
        let _ = status.write_all(&error.report());
        error.code
    });
    let report = match &child {
        Ok(pidfd) => announcement(pidfd.as_raw_fd()),
        Err(e) => StartError::system("start", "a process", e).report(),
    };
    // The end of the reports is that the program has begun: it must not wait for this process.
    let told = status.write_all(&report);
    drop(status);
    if child.is_ok() && told.is_ok() {
        until_let_go(&go);
    }
    0
}

/// In the container, with no more rights than the program will have. Returns only if that cannot begin.
fn start(orders: &Orders, go: &mut File) -> StartError {
    let what = |what: &'static str| move |e: io::Error| StartError::system(what, "the process", &e);
    let mut begin = || -> Result<(), StartError> {
        if go.read(&mut [0]).map_err(what("wait in"))? == 0 {
            return Err(StartError::other("the tether went away"));
        }
        nix::unistd::setsid()
            .map_err(io::Error::from)
            .map_err(what("make a session for"))?;
        if orders.tty {
            tty::make_controlling(io::stdin().as_fd()).map_err(what("give the terminal to"))?;
        }
        Ok(())
    };
    if let Err(error) = begin() {
        return error;
    }
    // Rust's runtime has changed what is done on SIGPIPE.
    sys::reset_signals();
    let error = sys::exec(&orders.path, &orders.args, &orders.env);
    let name = orders.args.first().map(|name| name.to_string_lossy());
    lookup::failure(&name.unwrap_or_default(), &error, false)
}

/// Waits until the tether has closed its end of the pipe: it has the pidfd, or wants nothing any more.
fn until_let_go(go: &File) {
    loop {
        let mut fds = [PollFd::new(go.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => {}
            _ => return,
        }
    }
}

/// What is told of the process that becomes the program: the number that its pidfd has in this process.
fn announcement(pidfd: RawFd) -> Vec<u8> {
    let mut out = vec![b'P'];
    out.extend(pidfd.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<CString> {
        list.iter().map(|s| CString::new(*s).unwrap()).collect()
    }

    #[test]
    fn orders_come_through_arguments_as_they_were_given() {
        let orders = Orders {
            status: 7,
            go: 12,
            tty: true,
            env: strings(&["A=b", "", "PATH=/bin"]),
            path: c"/bin/sh".into(),
            args: strings(&["sh", "-c", ""]),
        };
        let mut args = orders.to_args();
        // What main() and the init take off.
        assert_eq!(args.remove(0).to_str(), Ok(NAME));
        assert_eq!(args.remove(0).to_str(), Ok(MARK));
        assert_eq!(Orders::of(args), Some(orders));
    }

    #[test]
    fn arguments_that_are_no_orders_start_nothing() {
        for args in [
            &[][..],
            &["7"],
            &["7", "12", "1"],
            &["7", "12", "1", "0"],
            &["7", "12", "1", "2", "A=b", "/bin/sh"],
            &["7", "x", "1", "0", "/bin/sh", "sh"],
            &["7", "12", "1", "-1", "/bin/sh", "sh"],
        ] {
            assert_eq!(Orders::of(strings(args)), None, "{args:?}");
        }
        // Stdio is no pipe of the tether's.
        assert_eq!(run(strings(&["1", "2", "0", "0", "/bin/sh", "sh"])), 125);
    }
}
