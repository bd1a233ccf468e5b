//! `docker stats`: figures out of the container's cgroup and the tether's /proc.

use super::cgroup::CONTAINER;
use super::notices::value;
use std::fs;
use wire::message::{Io, NetworkStats, Stats};

/// Devices and interfaces at most.
const MOST: usize = 64;
/// What is told of memory.stat.
const MEMORY: [&str; 12] = [
    "anon",
    "file",
    "kernel_stack",
    "slab",
    "sock",
    "shmem",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "pgfault",
    "pgmajfault",
];

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn of_cgroup(file: &str) -> String {
    read(&format!("{CONTAINER}/{file}"))
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// Reads all of them. What a kernel has not is 0.
#[must_use]
pub fn read_all() -> Stats {
    let cpu = of_cgroup("cpu.stat");
    let micros = |key: &str| value(&cpu, key).saturating_mul(1000);
    let memory = of_cgroup("memory.stat");
    let cpus = processors(&read("/proc/stat"));
    Stats {
        at: crate::io::now(),
        cpu: micros("usage_usec"),
        cpu_user: micros("user_usec"),
        cpu_kernel: micros("system_usec"),
        periods: value(&cpu, "nr_periods"),
        throttled: value(&cpu, "nr_throttled"),
        throttled_for: micros("throttled_usec"),
        // Not by /proc/stat as dockerd does: its ticks get lost in a VM that has to wait for its
        // processor, and the container's share would come out above what there is.
        system: crate::vm::uptime_ns().saturating_mul(cpus.into()),
        cpus,
        memory: number(&of_cgroup("memory.current")),
        memory_stat: MEMORY
            .iter()
            .map(|key| ((*key).to_owned(), value(&memory, key)))
            .collect(),
        pids: number(&of_cgroup("pids.current")),
        pids_limit: number(&of_cgroup("pids.max")),
        io: io(&of_cgroup("io.stat")),
        networks: networks(&read("/proc/net/dev")),
    }
}

/// How many processors there are.
fn processors(stat: &str) -> u32 {
    let lines = stat.lines().take_while(|line| line.starts_with("cpu"));
    // The first one is of all together.
    lines.skip(1).count() as u32
}

/// `8:0 rbytes=1 wbytes=2 …`, a line a device.
fn io(stat: &str) -> Vec<Io> {
    let device = |line: &str| {
        let (numbers, rest) = line.split_once(' ')?;
        let (major, minor) = numbers.split_once(':')?;
        let of = |key: &str| {
            rest.split_whitespace()
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
                .map_or(0, number)
        };
        Some(Io {
            major: number(major) as u32,
            minor: number(minor) as u32,
            read: of("rbytes"),
            written: of("wbytes"),
        })
    };
    stat.lines().filter_map(device).take(MOST).collect()
}

/// /proc/net/dev: 8 figures received, 8 sent, behind each name.
fn networks(dev: &str) -> Vec<NetworkStats> {
    let interface = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let figures: Vec<u64> = rest.split_whitespace().map(number).collect();
        let of = |from: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(figures.get(from..from + 4)?);
            Some(four)
        };
        let name = name.trim();
        (name != "lo").then_some(NetworkStats {
            name: name.to_owned(),
            received: of(0)?,
            sent: of(8)?,
        })
    };
    dev.lines()
        .skip(2)
        .filter_map(interface)
        .take(MOST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_tables_are_read() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 0\ncpu1 0 1\nintr 5\n";
        assert_eq!(processors(stat), 2);
        let found = io("8:0 rbytes=17 wbytes=4 rios=25\nnonsense\n");
        assert_eq!((found.len(), found[0].read, found[0].written), (1, 17, 4));
        let dev = "Inter-|\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:90 1 2 3 0 0 0 0 80 4 5 6 0 0 0 0\n";
        let found = networks(dev);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].received, found[0].sent),
            ([90, 1, 2, 3], [80, 4, 5, 6])
        );
    }
}
