//! A VM as it stands.

use crate::types::ManagedObjectReference;
use crate::value::DateTime;

data_object! {
    /// What a VM is doing.
    VirtualMachineRuntimeInfo = "VirtualMachineRuntimeInfo" {
        /// Host that it is on.
        host: Option<ManagedObjectReference> = "host",
        /// Whether the server can reach it.
        connection_state: ConnectionState = "connectionState",
        /// On or off.
        power_state: PowerState = "powerState",
        /// Tools' installer is mounted.
        tools_installer_mounted: bool = "toolsInstallerMounted",
        /// Time of the power-on.
        boot_time: Option<DateTime> = "bootTime",
        /// MHz at most.
        max_cpu_usage: Option<i32> = "maxCpuUsage",
        /// MiB at most.
        max_memory_usage: Option<i32> = "maxMemoryUsage",
        /// Consoles that are open.
        num_mks_connections: i32 = "numMksConnections",
        /// The last power-off was an orderly one.
        clean_power_off: Option<bool> = "cleanPowerOff",
        /// Disks need consolidation.
        consolidation_needed: Option<bool> = "consolidationNeeded",
    }

    /// A VM in short.
    VirtualMachineSummary = "VirtualMachineSummary" {
        /// The VM.
        vm: Option<ManagedObjectReference> = "vm",
        /// What it is doing.
        runtime: VirtualMachineRuntimeInfo = "runtime",
        /// Its guest.
        guest: Option<VirtualMachineGuestSummary> = "guest",
        /// Its configuration.
        config: VirtualMachineConfigSummary = "config",
        /// Space used.
        storage: Option<VirtualMachineStorageSummary> = "storage",
        /// Figures.
        quick_stats: VirtualMachineQuickStats = "quickStats",
        /// Health.
        overall_status: ManagedEntityStatus = "overallStatus",
    }

    /// A VM's configuration in short.
    VirtualMachineConfigSummary = "VirtualMachineConfigSummary" {
        /// Display name.
        name: String = "name",
        /// It is a template.
        template: bool = "template",
        /// Datastore path of its .vmx.
        vm_path_name: String = "vmPathName",
        /// MiB.
        memory_size_mb: Option<i32> = "memorySizeMB",
        /// CPUs.
        num_cpu: Option<i32> = "numCpu",
        /// Network cards.
        num_ethernet_cards: Option<i32> = "numEthernetCards",
        /// Disks.
        num_virtual_disks: Option<i32> = "numVirtualDisks",
        /// BIOS UUID.
        uuid: Option<String> = "uuid",
        /// UUID of the instance.
        instance_uuid: Option<String> = "instanceUuid",
        /// Guest system.
        guest_id: Option<String> = "guestId",
        /// Name of the guest system.
        guest_full_name: Option<String> = "guestFullName",
        /// Notes.
        annotation: Option<String> = "annotation",
    }

    /// A guest in short.
    VirtualMachineGuestSummary = "VirtualMachineGuestSummary" {
        /// Guest system as Tools report it.
        guest_id: Option<String> = "guestId",
        /// State of Tools.
        tools_status: Option<ToolsStatus> = "toolsStatus",
        /// `guestToolsRunning` or `guestToolsNotRunning`.
        tools_running_status: Option<String> = "toolsRunningStatus",
        /// Host name.
        host_name: Option<String> = "hostName",
        /// First address.
        ip_address: Option<String> = "ipAddress",
    }

    /// A guest.
    GuestInfo = "GuestInfo" {
        /// State of Tools.
        tools_status: Option<ToolsStatus> = "toolsStatus",
        /// `guestToolsRunning` or `guestToolsNotRunning`.
        tools_running_status: Option<String> = "toolsRunningStatus",
        /// Guest system as Tools report it.
        guest_id: Option<String> = "guestId",
        /// Host name.
        host_name: Option<String> = "hostName",
        /// First address.
        ip_address: Option<String> = "ipAddress",
        /// `running` or `notRunning`.
        guest_state: String = "guestState",
    }

    /// Space that a VM uses.
    VirtualMachineStorageSummary = "VirtualMachineStorageSummary" {
        /// Bytes used.
        committed: i64 = "committed",
        /// Bytes that it may still take.
        uncommitted: i64 = "uncommitted",
        /// Bytes that it shares with no other.
        unshared: i64 = "unshared",
        /// When this was found out.
        timestamp: DateTime = "timestamp",
    }

    /// Figures of a VM.
    VirtualMachineQuickStats = "VirtualMachineQuickStats" {
        /// MHz used.
        overall_cpu_usage: Option<i32> = "overallCpuUsage",
        /// MiB in use by the guest.
        guest_memory_usage: Option<i32> = "guestMemoryUsage",
        /// MiB of the host's memory.
        host_memory_usage: Option<i32> = "hostMemoryUsage",
        /// Heartbeat.
        guest_heartbeat_status: ManagedEntityStatus = "guestHeartbeatStatus",
        /// Seconds since power-on.
        uptime_seconds: Option<i32> = "uptimeSeconds",
    }
}

string_enum! {
    /// Power state of a VM.
    PowerState = "VirtualMachinePowerState" {
        /// Off.
        PoweredOff = "poweredOff",
        /// On.
        PoweredOn = "poweredOn",
        /// Suspended to disk.
        Suspended = "suspended",
    }

    /// Whether the server can reach a VM.
    ConnectionState = "VirtualMachineConnectionState" {
        /// It can.
        Connected = "connected",
        /// Its host is away.
        Disconnected = "disconnected",
        /// Its host does not know it any more.
        Orphaned = "orphaned",
        /// Its files cannot be read.
        Inaccessible = "inaccessible",
        /// Its configuration cannot be read.
        Invalid = "invalid",
    }

    /// State of VMware Tools.
    ToolsStatus = "VirtualMachineToolsStatus" {
        /// Not there.
        NotInstalled = "toolsNotInstalled",
        /// There, not running.
        NotRunning = "toolsNotRunning",
        /// Running, out of date.
        Old = "toolsOld",
        /// Running.
        Ok = "toolsOk",
    }

    /// Health of an entity.
    ManagedEntityStatus = "ManagedEntityStatus" {
        /// Not known.
        Gray = "gray",
        /// Good.
        Green = "green",
        /// Attention.
        Yellow = "yellow",
        /// Bad.
        Red = "red",
    }
}
