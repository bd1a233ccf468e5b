//! A host's switches and port groups.

use crate::types::{AboutInfo, ManagedObjectReference};

data_object! {
    /// A host's configuration; of it what is about networks.
    HostConfigInfo = "HostConfigInfo" {
        /// The host.
        host: ManagedObjectReference = "host",
        /// Product.
        product: AboutInfo = "product",
        /// Switches and port groups.
        network: Option<HostNetworkInfo> = "network",
    }

    /// Where a host's managers are; of them what is about networks.
    HostConfigManager = "HostConfigManager" {
        /// The manager of switches and port groups.
        network_system: Option<ManagedObjectReference> = "networkSystem",
    }

    /// A host's networks.
    HostNetworkInfo = "HostNetworkInfo" {
        /// Standard switches.
        vswitch: Vec<HostVirtualSwitch> = "vswitch",
        /// Port groups of the standard switches.
        portgroup: Vec<HostPortGroup> = "portgroup",
    }

    /// A standard switch.
    HostVirtualSwitch = "HostVirtualSwitch" {
        /// Name.
        name: String = "name",
        /// Key that others refer to it by.
        key: String = "key",
        /// Ports.
        num_ports: i32 = "numPorts",
        /// Ports that are free.
        num_ports_available: i32 = "numPortsAvailable",
        /// Largest frame's payload in bytes.
        mtu: Option<i32> = "mtu",
        /// Keys of its port groups.
        portgroup: Vec<String> = "portgroup",
        /// Keys of its physical network cards.
        pnic: Vec<String> = "pnic",
        /// How it was asked for.
        spec: HostVirtualSwitchSpec = "spec",
    }

    /// How a standard switch is asked for.
    HostVirtualSwitchSpec = "HostVirtualSwitchSpec" {
        /// Ports.
        num_ports: i32 = "numPorts",
        /// Policies.
        policy: Option<HostNetworkPolicy> = "policy",
        /// Largest frame's payload in bytes.
        mtu: Option<i32> = "mtu",
    }

    /// A port group.
    HostPortGroup = "HostPortGroup" {
        /// Key that others refer to it by.
        key: Option<String> = "key",
        /// Key of its switch.
        vswitch: Option<String> = "vswitch",
        /// Policies that hold, the switch's included.
        computed_policy: HostNetworkPolicy = "computedPolicy",
        /// How it was asked for.
        spec: HostPortGroupSpec = "spec",
    }

    /// How a port group is asked for.
    HostPortGroupSpec = "HostPortGroupSpec" {
        /// Name.
        name: String = "name",
        /// VLAN: 1 to 4094; 0: none; 4095: all of them, tagged (a trunk).
        vlan_id: i32 = "vlanId",
        /// Name of its switch.
        vswitch_name: String = "vswitchName",
        /// Policies of its own.
        policy: HostNetworkPolicy = "policy",
    }

    /// Policies of a switch or port group.
    HostNetworkPolicy = "HostNetworkPolicy" {
        /// What vNICs may do.
        security: Option<HostNetworkSecurityPolicy> = "security",
    }

    /// What vNICs may do.
    HostNetworkSecurityPolicy = "HostNetworkSecurityPolicy" {
        /// See all frames.
        allow_promiscuous: Option<bool> = "allowPromiscuous",
        /// Change their MAC address.
        mac_changes: Option<bool> = "macChanges",
        /// Send with another MAC address than their own.
        forged_transmits: Option<bool> = "forgedTransmits",
    }
}
