//! The command lines of the parts.

use crate::network::{Layout, PUBLIC, TRUNK};
use crate::options::{Boot, Options};
use std::path::Path;

/// Datastore folder with the boot files.
pub const BOOT_FOLDER: &str = "boot";
/// The datastore that hostsim offers.
pub const DATASTORE: &str = "datastore1";

/// Port group of the default network, where there are port groups.
pub const PORT_GROUP: &str = "mooring-bridge";

/// What `hostsim serve` says when it is ready: `https://HOST:PORT thumbprint=SHA256`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hypervisor {
    /// URL of the vSphere API's host.
    pub url: String,
    /// SHA-256 of its certificate, hex with colons.
    pub thumbprint: String,
}

impl Hypervisor {
    /// Parses hostsim's ready line.
    pub fn parse(ready: &str) -> Option<Self> {
        let (url, rest) = ready.split_once(' ')?;
        let thumbprint = rest
            .split(' ')
            .find_map(|f| f.strip_prefix("thumbprint="))?;
        url.starts_with("https://").then(|| Hypervisor {
            url: url.into(),
            thumbprint: thumbprint.into(),
        })
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        self.url
            .trim_start_matches("https://")
            .trim_end_matches('/')
    }
}

/// Words that are among the arguments of this state folder's hostsim, and of no other process.
pub fn hostsim_words(state: &Path) -> [String; 3] {
    [
        "serve".into(),
        "--state".into(),
        path(&state.join("hostsim")),
    ]
}

/// The same for its endpoint.
pub fn endpoint_words(state: &Path) -> [String; 3] {
    [
        "serve".into(),
        "--run-dir".into(),
        path(&state.join("endpoint")),
    ]
}

/// Arguments of `hostsim`. `listen` is where it listened before, so that its clients find it again.
/// `bridges`: the layout of the network, where it is on bridges.
pub fn hostsim(
    state: &Path,
    listen: &str,
    bridges: Option<&Layout>,
    options: &Options,
) -> Vec<String> {
    let mut args = vec![
        "serve".into(),
        "--state".into(),
        path(&state.join("hostsim")),
        "--listen".into(),
        listen.into(),
    ];
    if let Some(strict) = options.strict {
        args.push(format!("--strict={}", strict.as_str()));
    }
    if let Some(bridges) = bridges {
        args.extend(["--switch".into(), path(&bridges.switch())]);
        for (name, vlan) in bridges.port_groups() {
            args.extend(["--port-group".into(), format!("{name}={vlan}")]);
        }
        for (name, vlan) in bridges.external() {
            args.extend(["--port-group".into(), format!("{name}={vlan}")]);
        }
    }
    for share in &options.shares {
        args.extend(["--share".into(), share.clone()]);
    }
    args.extend(options.hostsim_args.iter().cloned());
    args
}

/// Arguments of `endpoint`. `boot` are the names of kernel, initramfs and ISO in the datastore's boot folder.
pub fn endpoint(
    state: &Path,
    vch: &str,
    hypervisor: &Hypervisor,
    boot: [&str; 3],
    bridges: Option<&Layout>,
    options: &Options,
) -> Vec<String> {
    let on_datastore = |name: &str| format!("[{DATASTORE}] {BOOT_FOLDER}/{name}");
    let mut args: Vec<String> = vec![
        "serve".into(),
        "--vsphere".into(),
        hypervisor.url.clone(),
        "--thumbprint".into(),
        hypervisor.thumbprint.clone(),
        "--credentials".into(),
        path(&state.join("hostsim/credentials.json")),
        "--vch-id".into(),
        vch.into(),
        "--run-dir".into(),
        path(&state.join("endpoint")),
        "--link".into(),
        options.link.as_str().into(),
        "--memory".into(),
        options.memory_mib.to_string(),
        "--boot-iso".into(),
        on_datastore(boot[2]),
    ];
    if options.boot_from == Boot::Auto {
        args.extend([
            "--boot-kernel".into(),
            on_datastore(boot[0]),
            "--boot-initrd".into(),
            on_datastore(boot[1]),
        ]);
    }
    for docker in &options.docker {
        args.extend(["--docker".into(), docker.clone()]);
    }
    if let Some(tls) = &options.tls {
        let files = [
            ("--tls-cert", &tls.cert),
            ("--tls-key", &tls.key),
            ("--tls-ca", &tls.ca),
        ];
        for (option, file) in files {
            args.extend([option.into(), path(file)]);
        }
    }
    if let Some(bridges) = bridges {
        args.extend(endpoint_network(bridges));
    }
    args.extend(options.container_networks.args());
    for store in &options.volume_stores {
        args.extend(["--volume-store".into(), store.clone()]);
    }
    args.extend(options.registries.args());
    args.extend(options.endpoint_args.iter().cloned());
    args
}

/// What the endpoint is told of a network on bridges.
fn endpoint_network(bridges: &Layout) -> Vec<String> {
    let groups = bridges.port_groups();
    let pool: Vec<String> = groups.into_iter().skip(1).map(|(name, _)| name).collect();
    [
        ("--port-group", PORT_GROUP.to_owned()),
        ("--network-pool", pool.join(",")),
        ("--router", path(&bridges.router())),
        ("--trunk", TRUNK.to_owned()),
        ("--public", PUBLIC.to_owned()),
        ("--publish-api", path(&bridges.publish_api())),
    ]
    .into_iter()
    .flat_map(|(option, value)| [option.to_owned(), value])
    .collect()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostsim_s_ready_line() {
        let h = Hypervisor::parse("https://127.0.0.1:8443 thumbprint=AA:BB").unwrap();
        assert_eq!(
            (h.address(), h.thumbprint.as_str()),
            ("127.0.0.1:8443", "AA:BB")
        );
        for bad in [
            "",
            "https://x",
            "http://x thumbprint=AA",
            "https://x print=AA",
        ] {
            assert!(Hypervisor::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn booting_from_the_iso_names_no_kernel() {
        let h = Hypervisor {
            url: "https://h".into(),
            thumbprint: "AA".into(),
        };
        let iso = Options {
            boot_from: Boot::Iso,
            ..Options::default()
        };
        let args = endpoint(Path::new("/s"), "v", &h, ["k", "i", "b.iso"], None, &iso);
        assert!(
            args.contains(&"[datastore1] boot/b.iso".into())
                && !args.iter().any(|a| a == "--boot-kernel")
        );
        let auto = Options::default();
        assert!(
            endpoint(Path::new("/s"), "v", &h, ["k", "i", "b.iso"], None, &auto)
                .contains(&"[datastore1] boot/k".into())
        );
    }

    #[test]
    fn port_groups_and_the_router_are_passed_as_agreed() {
        let layout = Layout::new(Path::new("/s"), 2, false);
        let args = hostsim(Path::new("/s"), "h:1", Some(&layout), &Options::default()).join(" ");
        let switch = layout.switch().display().to_string();
        let groups = "--port-group mooring-bridge=100 --port-group mooring-net-01=101 --port-group mooring-net-02=102";
        assert!(
            args.ends_with(&format!("--switch {switch} {groups}")),
            "{args}"
        );
        let router = layout.router().display().to_string();
        assert_eq!(
            endpoint_network(&layout).join(" "),
            format!(
                "--port-group mooring-bridge --network-pool mooring-net-01,mooring-net-02 --router {router} \
                 --trunk trunk --public public --publish-api /s/ports/api.sock"
            )
        );
    }
}
