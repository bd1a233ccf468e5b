//! The host's options, and with them what it can do beyond ESXi (docs/decisions/0001-boundaries.md).

use crate::host::{Host, Network};
use vim::Any;
use vim::types::OptionValue;
use vim::{Fault, FaultKind};

/// All options.
pub fn all(host: &Host) -> Vec<OptionValue> {
    let settings = &host.settings;
    let mut options = vec![OptionValue::text(
        "Config.HostAgent.plugins.solo.webServer.enableWebAccess",
        "false",
    )];
    if settings.disk_upload {
        options.push(OptionValue {
            key: "mooring.disk.upload".into(),
            value: Any::of(&true),
        });
    }
    if settings.link_and_boot {
        options.push(OptionValue {
            key: "mooring.boot.kernel".into(),
            value: Any::of(&true),
        });
        let link = match link_folder(host) {
            Some(folder) => format!("uds:{}", folder.display()),
            None => "kernel".to_owned(),
        };
        options.push(OptionValue::text("mooring.link.vsock", link));
    }
    for (n, share) in settings.shares.iter().enumerate() {
        options.push(OptionValue::text(
            format!("mooring.share.{n}"),
            share.to_string(),
        ));
    }
    for (name, network) in &settings.networks {
        // Who is in a VLAN of the switch brings its own addresses.
        if let Network::User { address, prefix } = network {
            options.push(OptionValue::text(
                format!("mooring.network.{name}"),
                format!("{address}/{prefix}"),
            ));
        }
    }
    options
}

/// Where guests' vsock connections arrive; `None`: at the kernel's AF_VSOCK.
pub fn link_folder(host: &Host) -> Option<std::path::PathBuf> {
    (!host.settings.kernel_vsock).then(|| host.settings.state.join("vsock"))
}

/// Whether this process may use the kernel's vsock device: whether it opens, since the node may be there for others only,
/// or without its module.
pub fn kernel_vsock() -> bool {
    let mut open = std::fs::OpenOptions::new();
    open.read(true).write(true).open("/dev/vhost-vsock").is_ok()
}

/// Options of a name, or of a prefix that ends in a dot; without a name all.
///
/// # Errors
/// `InvalidName` where there is none, as ESXi has it.
pub fn query(host: &Host, name: Option<&str>) -> Result<Vec<OptionValue>, Fault> {
    let name = name.unwrap_or_default();
    let mut options = all(host);
    if name.is_empty() {
        return Ok(options);
    }
    options.retain(|o| o.key == name || (name.ends_with('.') && o.key.starts_with(name)));
    if options.is_empty() {
        let kind = FaultKind::InvalidName {
            name: name.to_owned(),
        };
        return Err(Fault::new(kind, format!("There is no option '{name}'")));
    }
    Ok(options)
}
