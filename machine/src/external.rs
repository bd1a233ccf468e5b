//! Options of `vch up` about networks with a router of their own, passed on to the endpoint, which checks them.

use clap::Args;
use serde::{Deserialize, Serialize};

/// Port groups that containers may use beside those of the endpoint. Each is made on hostsim's switch; what is behind it
/// is an interface that the administrator puts there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerNetworks {
    /// A port group with a router and an address plan of its own, and its name as a network of Docker's; may be repeated
    #[arg(long, value_name = "PORTGROUP[:NAME]")]
    pub container_network: Vec<String>,
    /// The address of that router, with the prefix length of its subnet; may be repeated, also for IPv6
    #[arg(long, value_name = "PORTGROUP:ADDRESS/PREFIX")]
    pub container_network_gateway: Vec<String>,
    /// The addresses that containers are given: SUBNET/PREFIX or FIRST-LAST; may be repeated, also for IPv6 [default:
    /// DHCP's]
    #[arg(long, value_name = "PORTGROUP:RANGE")]
    pub container_network_ip_range: Vec<String>,
    /// A name server of that network; may be repeated [default: DHCP's, or the router]
    #[arg(long, value_name = "PORTGROUP:ADDRESS")]
    pub container_network_dns: Vec<String>,
    /// How far containers trust it: open, closed, outbound, peers or published [default: published]
    #[arg(long, value_name = "PORTGROUP:LEVEL")]
    pub container_network_firewall: Vec<String>,
    /// Bytes of its largest packets [default: the driver's, or DHCP's]
    #[arg(long, value_name = "PORTGROUP:BYTES")]
    pub container_network_mtu: Vec<String>,
}

impl ContainerNetworks {
    /// The port groups.
    pub fn port_groups(&self) -> Vec<String> {
        let texts = self.container_network.iter();
        texts
            .filter_map(|text| text.split(':').next().map(str::to_owned))
            .collect()
    }

    /// As the endpoint's arguments.
    pub fn args(&self) -> Vec<String> {
        let lists = [
            ("--container-network", &self.container_network),
            (
                "--container-network-gateway",
                &self.container_network_gateway,
            ),
            (
                "--container-network-ip-range",
                &self.container_network_ip_range,
            ),
            ("--container-network-dns", &self.container_network_dns),
            (
                "--container-network-firewall",
                &self.container_network_firewall,
            ),
            ("--container-network-mtu", &self.container_network_mtu),
        ];
        lists
            .into_iter()
            .flat_map(|(option, values)| values.iter().map(move |v| (option, v)))
            .flat_map(|(option, value)| [option.to_owned(), value.clone()])
            .collect()
    }
}
