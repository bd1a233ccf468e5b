//! Paths of /proc and /sys that a container does not get, or not to write to: set up by the tether, shown by the endpoint.

/// What is hidden, Docker's paths and a few more: a file by /dev/null, a folder by an empty read-only one. /sys/firmware holds
/// the fw_cfg files and with them the link's secret.
pub const MASKED: [&str; 14] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
];

/// What Docker makes read-only.
pub const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
