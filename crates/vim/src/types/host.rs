//! Hosts, compute resources, networks.

use crate::types::{AboutInfo, ManagedEntityStatus, ManagedObjectReference};
use crate::value::DateTime;

data_object! {
    /// A host in short.
    HostSummary = "HostListSummary" {
        /// The host.
        host: Option<ManagedObjectReference> = "host",
        /// Hardware.
        hardware: Option<HostHardwareSummary> = "hardware",
        /// What it is doing.
        runtime: Option<HostRuntimeInfo> = "runtime",
        /// Configuration.
        config: HostConfigSummary = "config",
        /// Figures.
        quick_stats: HostQuickStats = "quickStats",
        /// Health.
        overall_status: ManagedEntityStatus = "overallStatus",
        /// It has to be started anew.
        reboot_required: bool = "rebootRequired",
    }

    /// A host's hardware.
    HostHardwareSummary = "HostHardwareSummary" {
        /// Maker.
        vendor: String = "vendor",
        /// Model.
        model: String = "model",
        /// UUID.
        uuid: String = "uuid",
        /// Bytes of memory.
        memory_size: i64 = "memorySize",
        /// Model of the CPU.
        cpu_model: String = "cpuModel",
        /// MHz of one core.
        cpu_mhz: i32 = "cpuMhz",
        /// Sockets.
        num_cpu_pkgs: i16 = "numCpuPkgs",
        /// Cores.
        num_cpu_cores: i16 = "numCpuCores",
        /// Threads.
        num_cpu_threads: i16 = "numCpuThreads",
        /// Network cards.
        num_nics: i32 = "numNics",
        /// Host bus adapters.
        num_hbas: i32 = "numHBAs",
    }

    /// What a host is doing.
    HostRuntimeInfo = "HostRuntimeInfo" {
        /// `connected`, `disconnected`, `notResponding`.
        connection_state: String = "connectionState",
        /// `poweredOn`, `poweredOff`, `standBy`, `unknown`.
        power_state: String = "powerState",
        /// Maintenance mode.
        in_maintenance_mode: bool = "inMaintenanceMode",
        /// Time of its start.
        boot_time: Option<DateTime> = "bootTime",
    }

    /// A host's configuration in short.
    HostConfigSummary = "HostConfigSummary" {
        /// Name.
        name: String = "name",
        /// Port of the API.
        port: i32 = "port",
        /// Thumbprint of its certificate.
        ssl_thumbprint: Option<String> = "sslThumbprint",
        /// Product.
        product: Option<AboutInfo> = "product",
        /// vMotion is on.
        vmotion_enabled: bool = "vmotionEnabled",
    }

    /// A host's figures.
    HostQuickStats = "HostListSummaryQuickStats" {
        /// MHz used.
        overall_cpu_usage: Option<i32> = "overallCpuUsage",
        /// MiB used.
        overall_memory_usage: Option<i32> = "overallMemoryUsage",
        /// Seconds since its start.
        uptime: Option<i32> = "uptime",
    }

    /// A compute resource (a host by itself, or a cluster) in short.
    ComputeResourceSummary = "ComputeResourceSummary" {
        /// MHz in all.
        total_cpu: i32 = "totalCpu",
        /// Bytes of memory in all.
        total_memory: i64 = "totalMemory",
        /// Cores.
        num_cpu_cores: i16 = "numCpuCores",
        /// Threads.
        num_cpu_threads: i16 = "numCpuThreads",
        /// MHz for VMs.
        effective_cpu: i32 = "effectiveCpu",
        /// MiB for VMs.
        effective_memory: i64 = "effectiveMemory",
        /// Hosts.
        num_hosts: i32 = "numHosts",
        /// Hosts that can be used.
        num_effective_hosts: i32 = "numEffectiveHosts",
        /// Health.
        overall_status: ManagedEntityStatus = "overallStatus",
    }

    /// A network in short.
    NetworkSummary = "NetworkSummary" {
        /// The network.
        network: Option<ManagedObjectReference> = "network",
        /// Name.
        name: String = "name",
        /// It can be used.
        accessible: bool = "accessible",
        /// Name of its address pool.
        ip_pool_name: String = "ipPoolName",
    }
}
