//! `hostsim serve`: from arguments to a host that answers.

use crate::datastore::{Datastore, Disks, remove_parts, write_durably};
use crate::host::{DestroyRule, Host, Network, Settings};
use crate::log::InventoryLog;
use crate::server::{self, Identity};
use crate::session::{Credentials, Sessions};
use crate::shares::SharedFolder;
use crate::vmx::host::HostFacts;
use crate::vmx::switch::{Switch, VLANS};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Name of the datastore.
pub const DATASTORE: &str = "datastore1";

/// What `--strict` withholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Strict {
    /// Everything that ESXi cannot do: link, boot and disk upload.
    All,
    /// The link and the boot (mooring.link.vsock, mooring.boot.kernel); mooring.disk.upload stays announced.
    Link,
}

/// Arguments of `hostsim serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Folder that keeps everything: datastore, inventory, certificate, credentials
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Address to listen at; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
    /// Announce nothing that ESXi cannot do
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "all", require_equals = true)]
    pub strict: Option<Strict>,
    /// Run no QEMU: VMs only have a state
    #[arg(long)]
    pub state_only: bool,
    /// JSON file with `user` and `password`, copied into DIR/credentials.json [default: generated at the first start]
    #[arg(long, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// What Destroy_Task does with attached disks: `chain` deletes their parents too, as vCenter does
    #[arg(long, value_name = "RULE", default_value = "chain")]
    pub destroy: DestroyRule,
    /// Seconds without a call after which a session ends
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub session_idle: u64,
    /// Bytes that the datastore pretends to have [default: what the file system has]
    #[arg(long, value_name = "BYTES")]
    pub datastore_size: Option<u64>,
    /// Close the connection of an upload for which there is no room, in place of answering it
    #[arg(long)]
    pub cut_off_uploads: bool,
    /// A port group with the subnet of its user-mode network; may be repeated [default: VM Network=172.17.0.0/16]
    #[arg(long, value_name = "NAME=ADDRESS/PREFIX", value_parser = user_network, conflicts_with = "switch")]
    pub network: Vec<(String, Network)>,
    /// Folder of this machine of which VMs may have parts; may be repeated, `:ro` behind it forbids writing
    #[arg(long, value_name = "PATH[:ro]", conflicts_with = "strict")]
    pub share: Vec<String>,
    /// Network namespace to be the virtual switch, in place of user-mode networks; takes root. An interface upVLAN in it
    /// becomes the uplink of that VLAN
    #[arg(long, value_name = "PATH", requires = "port_group")]
    pub switch: Option<PathBuf>,
    /// A port group of the switch with its VLAN; may be repeated
    #[arg(long, value_name = "NAME=VLAN", value_parser = port_group, requires = "switch")]
    pub port_group: Vec<(String, Network)>,
}

fn user_network(text: &str) -> Result<(String, Network), String> {
    let wrong = || format!("{text:?}: a network looks like `VM Network=172.17.0.0/16`");
    let (name, subnet) = text.split_once('=').ok_or_else(wrong)?;
    let (address, prefix) = subnet.split_once('/').ok_or_else(wrong)?;
    let address = address.parse().map_err(|_| wrong())?;
    let prefix = prefix
        .parse()
        .ok()
        .filter(|p| (8..=29).contains(p))
        .ok_or_else(wrong)?;
    if name.is_empty() {
        return Err(wrong());
    }
    Ok((name.to_owned(), Network::User { address, prefix }))
}

fn port_group(text: &str) -> Result<(String, Network), String> {
    let wrong = || {
        let (first, last) = (VLANS.start(), VLANS.end());
        format!(
            "{text:?}: a port group looks like `VM Network=100`, with a VLAN from {first} to {last}"
        )
    };
    let (name, vlan) = text.rsplit_once('=').ok_or_else(wrong)?;
    let vlan = vlan.parse().ok().filter(|v| VLANS.contains(v));
    if name.is_empty() {
        return Err(wrong());
    }
    Ok((name.to_owned(), Network::Vlan(vlan.ok_or_else(wrong)?)))
}

/// The port groups that the arguments ask for.
fn networks(args: &ServeArgs) -> BTreeMap<String, Network> {
    let mut networks: BTreeMap<_, _> = args
        .network
        .iter()
        .chain(&args.port_group)
        .cloned()
        .collect();
    if networks.is_empty() {
        let network = Network::User {
            address: Ipv4Addr::new(172, 17, 0, 0),
            prefix: 16,
        };
        networks.insert("VM Network".into(), network);
    }
    networks
}

/// Why hostsim cannot serve.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct ServeError {
    what: String,
    source: io::Error,
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> ServeError {
    let what = what.into();
    move |source| ServeError { what, source }
}

/// A host that is served.
#[derive(Debug)]
pub struct Serving {
    /// The host.
    pub host: Arc<Host>,
    /// Where it is served.
    pub address: SocketAddr,
    /// SHA-256 of its certificate.
    pub thumbprint: vim::Thumbprint,
    /// Its account.
    pub credentials: Credentials,
    stop: CancellationToken,
    work: tokio::task::JoinHandle<()>,
    _lock: File,
}

impl Serving {
    /// Starts to serve.
    ///
    /// # Errors
    /// The state folder cannot be used (another hostsim has it, say), or the address cannot be listened at.
    pub async fn start(args: &ServeArgs, shim: Option<PathBuf>) -> Result<Serving, ServeError> {
        let name = args.state.display().to_string();
        fs::create_dir_all(&args.state).map_err(failed(format!("make the state folder {name}")))?;
        let state = args
            .state
            .canonicalize()
            .map_err(failed(format!("resolve the state folder {name}")))?;
        let lock = lock(&state)?;
        let settings = Settings {
            state: state.clone(),
            state_only: args.state_only,
            disk_upload: args.strict != Some(Strict::All),
            link_and_boot: args.strict.is_none(),
            kernel_vsock: crate::options::kernel_vsock(),
            destroy: args.destroy,
            session_idle: Duration::from_secs(args.session_idle),
            datastore_size: args.datastore_size,
            cut_off_uploads: args.cut_off_uploads,
            networks: networks(args),
            switch: args.switch.as_ref().map(Switch::new),
            shares: args
                .share
                .iter()
                .map(|text| SharedFolder::resolve(text).map_err(failed(format!("share {text}"))))
                .collect::<Result<_, _>>()?,
            shim,
        };
        if let Some(switch) = settings.switch.as_ref().filter(|_| !args.state_only) {
            let vlans = settings.networks.values().map(|network| network.vlan());
            switch
                .prepare(vlans)
                .map_err(io::Error::other)
                .map_err(failed("set up the port groups"))?;
        }
        let identity = Identity::open(&state).map_err(failed("open the host's certificate"))?;
        let credentials = credentials(&state, args.credentials.as_deref())?;
        let store = Datastore::open(
            DATASTORE,
            &state.join("datastores").join(DATASTORE),
            args.datastore_size,
        )
        .map_err(failed("open the datastore"))?;
        remove_parts(store.root());
        let (log, inventory) = InventoryLog::open(&state.join("inventory.log"), &store)
            .map_err(failed("open the inventory"))?;
        let disks = Disks::scan(&store);
        let facts = if args.state_only {
            None
        } else {
            Some(
                HostFacts::detect(&state)
                    .await
                    .map_err(failed("find out what this machine can run"))?,
            )
        };
        let sessions = Sessions::new(credentials.clone(), settings.session_idle);
        let host = Host::new(settings, store, disks, sessions, log, facts);
        if let Some(folder) = crate::options::link_folder(&host) {
            // The endpoint makes its sockets in it.
            std::fs::create_dir_all(&folder)
                .map_err(failed("make the folder of the VMs' links"))?;
        }
        crate::vm::run::restore(&host, inventory).await;
        let listener = TcpListener::bind(args.listen)
            .await
            .map_err(failed(format!("listen at {}", args.listen)))?;
        let address = listener
            .local_addr()
            .map_err(failed("find out the address"))?;
        let stop = CancellationToken::new();
        let thumbprint = identity.thumbprint;
        let work = {
            let (host, stop) = (host.clone(), stop.clone());
            tokio::spawn(async move { server::serve(host, listener, &identity, stop).await })
        };
        Ok(Serving {
            host,
            address,
            thumbprint,
            credentials,
            stop,
            work,
            _lock: lock,
        })
    }

    /// URL of the API's host.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Stops serving. VMs go on.
    pub async fn stop(self) {
        self.stop.cancel();
        // It only fails by a panic, which was reported where it happened.
        let _ = self.work.await;
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// See [`Serving::start`].
pub async fn run(args: &ServeArgs) -> Result<(), ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("wait for signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("wait for signals"))?;
    let serving = Serving::start(args, None).await?;
    {
        use io::Write as _;
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "ready: {} thumbprint={}",
            serving.url(),
            serving.thumbprint
        )
        .and_then(|()| out.flush())
        .map_err(failed("say that it is ready"))?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    serving.stop().await;
    Ok(())
}

/// How long a hostsim that was killed may take to be gone: its last thread may still be in a write, and holds the lock.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// Takes the state folder; one hostsim at a time.
fn lock(state: &Path) -> Result<File, ServeError> {
    let path = state.join("lock");
    let file = File::create(&path).map_err(failed(format!("open {}", path.display())))?;
    let taken = match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(fs::TryLockError::Error(e)) => Err(e),
        Err(fs::TryLockError::WouldBlock) => wait_for(file, LOCK_LIMIT),
    };
    taken.map_err(failed(format!("use the state folder {}", state.display())))
}

/// Takes a lock that somebody has, if it becomes free in time. The call that waits cannot be told to stop: its thread
/// ends with this process, or gives the lock back.
fn wait_for(file: File, limit: Duration) -> io::Result<File> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let locked = file.lock().map(|()| file);
        // Nobody waits any more: nothing to tell.
        let _ = tell.send(locked);
    });
    told.recv_timeout(limit)
        .unwrap_or_else(|_| Err(io::Error::other("another hostsim serves it")))
}

fn credentials(state: &Path, given: Option<&Path>) -> Result<Credentials, ServeError> {
    let kept = state.join("credentials.json");
    let from = given.unwrap_or(&kept);
    let credentials = match fs::read(from) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(io::Error::from)
            .map_err(failed(format!(
                "read {} (JSON with `user` and `password`)",
                from.display()
            )))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound && given.is_none() => {
            let password = crate::session::random_hex()
                .map_err(io::Error::other)
                .map_err(failed("make a password"))?;
            Credentials {
                user: "root".into(),
                password,
            }
        }
        Err(e) => return Err(failed(format!("read {}", from.display()))(e)),
    };
    let text = serde_json::to_vec(&credentials)
        .map_err(io::Error::from)
        .map_err(failed("write the credentials"))?;
    write_durably(&kept, &text, 0o600).map_err(failed(format!("write {}", kept.display())))?;
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_groups_have_a_vlan_that_exists() {
        let parsed = port_group("a=b=4094").unwrap();
        assert_eq!(parsed, ("a=b".to_owned(), Network::Vlan(4094)));
        for bad in ["", "a", "=5", "a=0", "a=4095", "a=x", "a=-1", "a=65636"] {
            assert!(port_group(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lock_that_becomes_free_is_taken_and_one_that_does_not_is_another_hostsim_s() {
        let state = tempfile::tempdir().unwrap();
        let former = lock(state.path()).unwrap();
        let open = || File::create(state.path().join("lock")).unwrap();
        let refused = wait_for(open(), Duration::from_millis(10)).unwrap_err();
        assert!(refused.to_string().contains("another hostsim"), "{refused}");
        // The one whose time was up still stands in line: it takes the lock, and gives it back.
        let file = open();
        let waiting = std::thread::spawn(|| wait_for(file, Duration::from_secs(60)));
        drop(former);
        waiting.join().unwrap().unwrap();
    }
}
