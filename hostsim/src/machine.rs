//! The machine that hostsim runs on, as a host's hardware.

use crate::host::Host;
use crate::inventory::{self, HOST_NAME, about};
use std::sync::OnceLock;
use vim::types::*;

struct Facts {
    cpus: i16,
    mhz: i32,
    model: String,
    memory: i64,
}

fn facts() -> &'static Facts {
    static FACTS: OnceLock<Facts> = OnceLock::new();
    FACTS.get_or_init(|| {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|l| l.starts_with(name));
            line.and_then(|l| l.split_once(':'))
                .map(|(_, v)| v.trim().to_owned())
        };
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib: i64 = meminfo
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        let mhz: f64 = field("cpu MHz")
            .and_then(|m| m.parse().ok())
            .unwrap_or(2000.0);
        Facts {
            cpus: std::thread::available_parallelism()
                .map_or(1, |n| i16::try_from(n.get()).unwrap_or(i16::MAX)),
            mhz: mhz as i32,
            model: field("model name").unwrap_or_else(|| "unknown".into()),
            memory: kib * 1024,
        }
    })
}

fn all_mhz() -> i32 {
    i32::from(facts().cpus).saturating_mul(facts().mhz)
}

/// The compute resource in short.
pub fn compute_summary() -> ComputeResourceSummary {
    ComputeResourceSummary {
        total_cpu: all_mhz(),
        total_memory: facts().memory,
        num_cpu_cores: facts().cpus,
        num_cpu_threads: facts().cpus,
        effective_cpu: all_mhz(),
        effective_memory: facts().memory >> 20,
        num_hosts: 1,
        num_effective_hosts: 1,
        overall_status: ManagedEntityStatus::Green,
    }
}

/// The root pool in short.
pub fn pool_summary() -> ResourcePoolSummary {
    let all = |limit: i64| ResourceAllocationInfo {
        reservation: Some(limit),
        expandable_reservation: Some(false),
        limit: Some(limit),
        shares: Some(SharesInfo::default()),
    };
    ResourcePoolSummary {
        name: "Resources".into(),
        config: ResourceConfigSpec {
            entity: Some(inventory::resource_pool()),
            cpu_allocation: all(all_mhz().into()),
            memory_allocation: all(facts().memory >> 20),
        },
    }
}

/// What the host is doing.
pub fn host_runtime(host: &Host) -> HostRuntimeInfo {
    HostRuntimeInfo {
        connection_state: "connected".into(),
        power_state: "poweredOn".into(),
        in_maintenance_mode: false,
        boot_time: Some(host.started),
    }
}

/// The host in short.
pub fn host_summary(host: &Host) -> HostSummary {
    HostSummary {
        host: Some(inventory::host()),
        hardware: Some(HostHardwareSummary {
            vendor: "Mooring".into(),
            model: "hostsim".into(),
            uuid: "00000000-0000-0000-0000-000000000000".into(),
            memory_size: facts().memory,
            cpu_model: facts().model.clone(),
            cpu_mhz: facts().mhz,
            num_cpu_pkgs: 1,
            num_cpu_cores: facts().cpus,
            num_cpu_threads: facts().cpus,
            num_nics: 1,
            num_hbas: 1,
        }),
        runtime: Some(host_runtime(host)),
        config: HostConfigSummary {
            name: HOST_NAME.into(),
            port: 443,
            ssl_thumbprint: None,
            product: Some(about()),
            vmotion_enabled: false,
        },
        quick_stats: HostQuickStats {
            uptime: i32::try_from((vim::DateTime::now().0 - host.started.0).whole_seconds()).ok(),
            ..HostQuickStats::default()
        },
        overall_status: ManagedEntityStatus::Green,
        reboot_required: false,
    }
}

fn url(host: &Host) -> String {
    format!("ds:///vmfs/volumes/{}/", host.store.name())
}

fn bytes(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The datastore in short.
pub fn datastore_summary(host: &Host) -> DatastoreSummary {
    let (capacity, free) = host.store.space();
    DatastoreSummary {
        datastore: Some(inventory::datastore()),
        name: host.store.name().to_owned(),
        url: url(host),
        capacity: bytes(capacity),
        free_space: bytes(free),
        uncommitted: None,
        accessible: true,
        multiple_host_access: Some(false),
        kind: "VMFS".into(),
        maintenance_mode: Some("normal".into()),
    }
}

/// Details of the datastore.
pub fn datastore_info(host: &Host) -> DatastoreInfo {
    DatastoreInfo {
        name: host.store.name().to_owned(),
        url: url(host),
        free_space: bytes(host.store.space().1),
        max_file_size: 62 << 40,
        timestamp: Some(vim::DateTime::now()),
    }
}

/// What the datastore can do.
pub fn datastore_capability() -> DatastoreCapability {
    DatastoreCapability {
        directory_hierarchy_supported: true,
        raw_disk_mappings_supported: false,
        per_file_thin_provisioning_supported: true,
        top_level_directory_create_supported: Some(true),
    }
}

/// The host's mount of it.
pub fn datastore_mount(host: &Host) -> DatastoreHostMount {
    DatastoreHostMount {
        key: inventory::host(),
        mount_info: HostMountInfo {
            path: Some(format!("/vmfs/volumes/{}", host.store.name())),
            access_mode: "readWrite".into(),
            mounted: Some(true),
            accessible: Some(true),
        },
    }
}
