//! The command line of the program `endpoint`.

use crate::images::registry::RegistrySettings;
use crate::networks::{choose::AddressPool, external::ContainerNetworks};
use crate::volumes::stores::Store;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf};

/// Docker's API in front, vSphere behind, a VM for each container.
#[derive(Debug, Parser)]
#[command(name = "endpoint", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The program's commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the Docker API for one virtual container host until SIGTERM or SIGINT. VMs keep
    /// running when it ends.
    Serve(Box<Serve>),
}

/// Which link the containers' VMs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LinkChoice {
    /// vsock; an error where the host does not announce it.
    Vsock,
    /// The serial port, through the concentrator (vSPC).
    Serial,
    /// vsock where it is announced, else serial.
    Auto,
}

/// Options of `endpoint serve`.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// The vSphere API: `https://host:port` (ESXi, vCenter or hostsim).
    #[arg(long, value_name = "URL")]
    pub vsphere: String,
    /// SHA-256 of the vSphere server's certificate, hex with or without colons. Without it, the
    /// certificate must be signed by a known authority.
    #[arg(long, value_name = "SHA256")]
    pub thumbprint: Option<String>,
    /// File with the account: JSON `{"user": …, "password": …}`, or two lines.
    #[arg(long, value_name = "FILE")]
    pub credentials: PathBuf,
    /// ID of the virtual container host: letters, digits, `-` and `_`; names its folder on the datastore.
    #[arg(long, value_name = "ID")]
    pub vch_id: String,
    /// Name of the virtual container host, for `docker info`. Default: its ID.
    #[arg(long)]
    pub name: Option<String>,
    /// Folder for sockets and the concentrator's certificate; nothing in it is a record.
    #[arg(long, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Where the Docker API is served: `unix://PATH` or `tcp://HOST:PORT`. Repeatable.
    #[arg(long, value_name = "URL", required = true)]
    pub docker: Vec<String>,
    /// Certificate (PEM) for `--docker tcp://…`.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) for `--docker tcp://…`.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Authority (PEM) that client certificates must be signed by.
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Inventory path of the datacenter, such as `Main` or `Europe/Main`. Default: the only one.
    #[arg(long, value_name = "PATH")]
    pub datacenter: Option<String>,
    /// Resource pool of the containers' VMs, by its inventory path below the datacenter's hosts and clusters: `CLUSTER/Resources`
    /// for all of one, `CLUSTER/Resources/POOL`. Default: that of the only host or cluster.
    #[arg(long, value_name = "PATH")]
    pub resource_pool: Option<String>,
    /// Datastore for images and containers. Default: the first accessible one.
    #[arg(long, value_name = "NAME")]
    pub datastore: Option<String>,
    /// Port group of the containers' default network.
    #[arg(long, value_name = "NAME", default_value = "VM Network")]
    pub port_group: String,
    /// Port groups that networks of users get, each of them one, with a VLAN of its own. Repeatable, or with commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "trunk")]
    pub network_pool: Vec<String>,
    /// The endpoint's interface on the port group with all VLANs: it is the networks' gateway there. Without it there is
    /// only the default network.
    #[arg(long, value_name = "INTERFACE", requires = "public")]
    pub trunk: Option<String>,
    /// The endpoint's interface to the world outside.
    #[arg(long, value_name = "INTERFACE", requires = "trunk")]
    pub public: Option<String>,
    /// The network namespace that both are in.
    #[arg(long, value_name = "FILE", default_value = "/proc/self/ns/net")]
    pub router: PathBuf,
    /// Socket of what holds ports of the machine (`vch up` starts it), where `--public` has no address of its own in the
    /// world: published ports are asked of it.
    #[arg(long, value_name = "SOCKET", requires = "public")]
    pub publish_api: Option<PathBuf>,
    /// Where subnets of networks come from that name none: BASE/PREFIX,SIZE. Repeatable. Default: Docker's.
    #[arg(long, value_name = "POOL")]
    pub address_pool: Vec<AddressPool>,
    /// Networks that are not the endpoint's own.
    #[command(flatten, next_help_heading = "Container networks")]
    pub container_networks: ContainerNetworks,
    /// Boot ISO on the datastore: `[datastore1] mooring/boot.iso`.
    #[arg(long, value_name = "PATH", required_unless_present = "boot_kernel")]
    pub boot_iso: Option<String>,
    /// Kernel on the datastore, booted directly; only where the host announces it.
    #[arg(long, value_name = "PATH", requires = "boot_initrd")]
    pub boot_kernel: Option<String>,
    /// Initial RAM file system that goes with the kernel.
    #[arg(long, value_name = "PATH", requires = "boot_kernel")]
    pub boot_initrd: Option<String>,
    /// Kernel command line that goes with the kernel.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = wire::config::KERNEL_CMDLINE
    )]
    pub boot_cmdline: String,
    /// Which link the containers' VMs use.
    #[arg(long, value_enum, default_value = "auto")]
    pub link: LinkChoice,
    /// Where the virtual serial port concentrator listens. Port 0: one that is free at the first
    /// start and kept from then on, since running VMs dial it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub vspc_listen: SocketAddr,
    /// Address of the concentrator as the host reaches it. Default: where it listens.
    #[arg(long, value_name = "HOST")]
    pub vspc_advertise: Option<String>,
    /// Memory of a container VM in MiB, where the container asks for none.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub memory: u32,
    /// Capacity of a volume that names none, such as 10G. Its disk takes room as it is written to.
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = volume_capacity)]
    pub volume_capacity: u64,
    /// A folder on an NFS server in which volumes may be (`docker volume create --opt VolumeStore=NAME`), as
    /// nfs://SERVER/PATH[?OPTIONS]:NAME. Options, parted by &: uid and gid, as whom the endpoint makes folders there [default:
    /// 0], and those of nfs(5), for the containers' VMs. The name `default` takes the datastore's place. Repeatable.
    #[arg(long, value_name = "URL:NAME")]
    pub volume_store: Vec<Store>,
    /// CPUs of a container VM, where the container asks for none.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub cpus: u32,
    /// A further key of every container VM's extraConfig, `NAME=VALUE`: for what a site adds to all
    /// of its VMs, and for tests. Repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = vm_key)]
    pub vm_key: Vec<(String, String)>,
    /// Where names are asked for that are not containers'. Repeatable. Default: those of /etc/resolv.conf. Without
    /// --trunk: name server of the containers where they name none, 172.17.255.253 (hostsim's) by default.
    #[arg(long, value_name = "IP")]
    pub dns: Vec<std::net::IpAddr>,
    /// Registries.
    #[command(flatten, next_help_heading = "Registries")]
    pub registries: RegistrySettings,
}

fn volume_capacity(text: &str) -> Result<u64, String> {
    crate::volumes::request::read_capacity(text).map_err(|e| e.message)
}

/// Reads `NAME=VALUE`; the names that the endpoint itself uses are refused.
fn vm_key(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if name.is_empty() || name.starts_with("mooring.") || name.starts_with("guestinfo.mooring.") {
        return Err(format!("{name:?} is not a name that can be set here"));
    }
    Ok((name.to_owned(), value.to_owned()))
}
