//! `vch`: makes, shows and ends a virtual container host.
#![forbid(unsafe_code)]

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use machine::external::ContainerNetworks;
use machine::network::{NETWORKS_MAX, holder};
use machine::options::{self, Boot, Link, Network, Options, Strict, Tls};
use machine::registries::Registries;
use machine::{down, ports, status, up};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Virtual container hosts: a Docker endpoint whose containers are virtual machines.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a virtual container host on this machine (a simulated ESXi host and an endpoint), or what is missing of it
    Up(Box<Up>),
    /// Show the parts of a virtual container host with their process IDs
    Status {
        #[command(flatten)]
        state: State,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End a virtual container host: its containers' VMs, the endpoint, its registry, the simulated host. Images, containers
    /// and what is in the registry stay
    Down {
        #[command(flatten)]
        state: State,
        /// Seconds that containers get to end by themselves
        #[arg(long, default_value_t = 10, value_name = "SECONDS")]
        time: u64,
    },
    /// Keep an ordinary user's network namespaces; `up` starts it
    #[command(name = holder::COMMAND, hide = true)]
    Hold {
        /// Folder of the links to them
        links: PathBuf,
    },
    /// Hold published ports; `up` starts it
    #[command(name = ports::COMMAND, hide = true)]
    HoldPorts {
        /// Where requests are taken
        socket: PathBuf,
        /// The router's network namespace
        router: PathBuf,
    },
}

#[derive(Args)]
struct State {
    /// Folder with everything that belongs to this virtual container host
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

#[derive(Args)]
struct Up {
    #[command(flatten)]
    state: State,
    /// Where the Docker API listens, unix://PATH or tcp://HOST:PORT; may be repeated [default: unix://DIR/docker.sock]
    #[arg(long, value_name = "ADDRESS")]
    docker: Vec<String>,
    /// Return when it serves, and leave it running
    #[arg(long)]
    detach: bool,
    /// What joins the VMs to the endpoint
    #[arg(long, value_enum, default_value_t)]
    link: Link,
    /// How container VMs boot
    #[arg(long, value_enum, default_value_t)]
    boot_from: Boot,
    /// Memory of a container VM without --memory of its own
    #[arg(long, default_value = "256m", value_name = "SIZE")]
    memory: String,
    /// Folder with the boot files, as `bootimage build --iso` makes it [default: $MOORING_BOOT, else `boot` beside the programs' folder]
    #[arg(long, value_name = "DIR", env = "MOORING_BOOT")]
    boot: Option<PathBuf>,
    /// Folder with the programs hostsim, endpoint and registry [default: where vch is]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// The simulated host announces nothing that ESXi lacks: serial link, boot from the ISO, and no upload of images (so that
    /// none can be pulled or loaded yet). `--strict=link` leaves the upload
    #[arg(long, value_enum, value_name = "WHAT", num_args = 0..=1, default_missing_value = "all", require_equals = true)]
    strict: Option<Strict>,
    /// Which network the containers have: bridges (iproute2, nftables and slirp4netns are needed, and root
    /// or a kernel that lets ordinary users make user namespaces), or a user-mode network
    /// for each container by itself
    #[arg(long, value_enum, default_value_t)]
    network: Network,
    /// Networks that can be created beside the default one, on bridges
    #[arg(long, default_value_t = options::NETWORKS, value_name = "N",
          value_parser = clap::value_parser!(u16).range(0..=i64::from(NETWORKS_MAX)))]
    networks: u16,
    /// Folder of this machine of which containers may mount parts (`docker run -v /path/of/it:…`), as relative paths are
    /// from here; may be repeated, `:ro` behind it forbids writing
    #[arg(long, value_name = "PATH[:ro]", conflicts_with = "strict")]
    share: Vec<String>,
    /// A folder on an NFS server in which volumes may be made (`docker volume create --opt VolumeStore=NAME`). Options are
    /// parted by &: uid and gid, as whom the endpoint makes folders there, and those of nfs(5). The name `default` takes the
    /// datastore's place; may be repeated
    #[arg(long, value_name = "nfs://SERVER/PATH[?OPTIONS]:NAME")]
    volume_store: Vec<String>,
    /// Certificate (PEM) of the Docker API at --docker tcp://…
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,
    /// Key (PEM) of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authority (PEM) of the certificates of those clients that are let in
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Container networks")]
    container_networks: ContainerNetworks,
    /// Start a registry of its own beside it, that the endpoint trusts, on this port of loopback (0: a free one, the same
    /// from then on). Made at the first time, with a CA and an administrator; what is in it stays with the state folder
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "5443", require_equals = true,
          help_heading = "Registries")]
    registry: Option<u16>,
    #[command(flatten, next_help_heading = "Registries")]
    registries: Registries,
    /// A further argument for hostsim; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    hostsim_arg: Vec<String>,
    /// A further argument for the endpoint; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    endpoint_arg: Vec<String>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        // Before there is a second thread.
        Command::Hold { links } => holder::hold(&links)
            .map(|never| match never {})
            .map_err(Into::into),
        Command::HoldPorts { socket, router } => ports::hold(&socket, &router)
            .map(|never| match never {})
            .map_err(Into::into),
        command => tokio::runtime::Runtime::new()
            .context("start the runtime")
            .and_then(|runtime| runtime.block_on(run(command))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The path from the root, for an endpoint that is started again from elsewhere.
fn whole(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::canonicalize(path).with_context(|| path.display().to_string())
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => {
            let args = *args;
            let exe = std::env::current_exe().context("find this program's own folder")?;
            let beside = exe
                .parent()
                .context("this program has no folder")?
                .to_owned();
            let programs = args.programs.unwrap_or(beside);
            let boot = args.boot.unwrap_or_else(|| programs.join("../boot"));
            let docker = if args.docker.is_empty() {
                vec![format!(
                    "unix://{}",
                    args.state.state.join("docker.sock").display()
                )]
            } else {
                args.docker
            };
            let tls = match (args.tls_cert, args.tls_key, args.tls_ca) {
                (Some(cert), Some(key), Some(ca)) => Some(Tls {
                    cert: whole(&cert)?,
                    key: whole(&key)?,
                    ca: whole(&ca)?,
                }),
                _ => None,
            };
            let options = Options {
                docker,
                tls,
                link: args.link,
                boot_from: args.boot_from,
                memory_mib: options::memory_mib(&args.memory)?,
                boot,
                programs,
                strict: args.strict,
                network: args.network,
                networks: args.networks,
                container_networks: args.container_networks,
                shares: args
                    .share
                    .iter()
                    .map(|s| share(s))
                    .collect::<Result<_, _>>()?,
                registry: args.registry,
                volume_stores: args.volume_store,
                registries: args.registries.whole()?,
                hostsim_args: args.hostsim_arg,
                endpoint_args: args.endpoint_arg,
            };
            Ok(up::run(&args.state.state, options, args.detach).await?)
        }
        Command::Status { state, json } => Ok(status::run(&state.state, json)?),
        Command::Down { state, time } => Ok(down::run(&state.state, time).await?),
        Command::Hold { .. } | Command::HoldPorts { .. } => anyhow::bail!("it is run by itself"),
    }
}

/// A folder to be shared, by its whole path: hostsim starts elsewhere.
fn share(text: &str) -> anyhow::Result<String> {
    let (path, mode) = match text.strip_suffix(":ro") {
        Some(path) => (path, ":ro"),
        None => (text, ""),
    };
    let whole = std::fs::canonicalize(path).with_context(|| format!("--share {text}"))?;
    anyhow::ensure!(whole.is_dir(), "--share {text}: it is no folder");
    Ok(format!("{}{mode}", whole.display()))
}
