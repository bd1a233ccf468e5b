//! Real VMs under real shims. Needs qemu-system-x86, gcc and a kernel (see `guest::boot`).
// A test that cannot go on should say where it stopped; helpers of tests are tests, too.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod boot;
mod guest;
mod life;
#[allow(dead_code, reason = "a part of it is for the switch's own tests")]
mod netns;
mod nics;
mod serial;
mod vsock;
