//! The tether: PID 1 of a container VM. It mounts the image, brings up the networks, runs the
//! container's processes, keeps their output, and tells the endpoint.
//!
//! Read top-down: [`life`] is one VM's life; [`boot`] how it comes up; [`vm`] what the endpoint may
//! ask of it; [`session`] a process;
//! [`restart`] what follows its end; [`health`] its checks; [`pause`]
//! what concerns all its processes; [`container`] what a process sees; [`files`] its files;
//! [`io`] where its bytes go.
//!
//! One thread runs an event loop; a second one, which makes system calls only, writes and syncs the journal.
#![deny(unsafe_code)]

pub mod boot;
pub mod container;
pub mod files;
pub mod health;
pub mod io;
pub mod life;
pub mod net;
pub mod pause;
pub mod reaper;
pub mod restart;
pub mod session;
pub mod sys;
pub mod vm;

/// Writes a line to the VM's console.
pub fn console(line: &str) {
    eprintln!("tether: {line}");
}
