//! Real VMs under real shims. Needs qemu-system-x86, gcc and a kernel (see `guest::boot`).

mod guest;
mod life;
mod vsock;
