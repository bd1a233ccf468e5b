//! The host's switch and port groups as the API shows them.

use crate::host::{Host, Network};
use crate::inventory;
use vim::types::*;

/// Name of the one switch.
const SWITCH: &str = "vSwitch0";
/// Ports of a switch, as ESXi counts them by itself.
const PORTS: i32 = 2560;
/// Largest payload of a frame, in bytes.
const MTU: i32 = 1500;

fn switch_key() -> String {
    format!("key-vim.host.VirtualSwitch-{SWITCH}")
}

fn port_group_key(name: &str) -> String {
    format!("key-vim.host.PortGroup-{name}")
}

/// As the switch does it: a bridge takes every sender's address and shows nobody what is not for them.
fn policy() -> HostNetworkPolicy {
    HostNetworkPolicy {
        security: Some(HostNetworkSecurityPolicy {
            allow_promiscuous: Some(false),
            mac_changes: Some(true),
            forged_transmits: Some(true),
        }),
    }
}

fn port_group(name: &str, network: Network) -> HostPortGroup {
    HostPortGroup {
        key: Some(port_group_key(name)),
        vswitch: Some(switch_key()),
        computed_policy: policy(),
        spec: HostPortGroupSpec {
            name: name.to_owned(),
            vlan_id: network.vlan().into(),
            vswitch_name: SWITCH.into(),
            policy: HostNetworkPolicy::default(),
        },
    }
}

/// The host's networks.
pub fn info(host: &Host) -> HostNetworkInfo {
    let networks = &host.settings.networks;
    HostNetworkInfo {
        vswitch: vec![HostVirtualSwitch {
            name: SWITCH.into(),
            key: switch_key(),
            num_ports: PORTS,
            num_ports_available: PORTS,
            mtu: Some(MTU),
            portgroup: networks.keys().map(|name| port_group_key(name)).collect(),
            pnic: Vec::new(),
            spec: HostVirtualSwitchSpec {
                num_ports: 128,
                policy: Some(policy()),
                mtu: Some(MTU),
            },
        }],
        portgroup: networks
            .iter()
            .map(|(name, network)| port_group(name, *network))
            .collect(),
    }
}

/// The host's configuration.
pub fn config(host: &Host) -> HostConfigInfo {
    HostConfigInfo {
        host: inventory::host(),
        product: inventory::about(),
        network: Some(info(host)),
    }
}

/// The host's managers.
pub fn managers() -> HostConfigManager {
    HostConfigManager {
        network_system: Some(inventory::network_system()),
    }
}
