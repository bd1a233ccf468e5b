//! /etc/hosts, /etc/hostname and /etc/resolv.conf, generated as Docker does, and the VM's host name.

use super::Fault;
use std::fmt::Write;
use std::fs;
use wire::config::GuestConfig;

const STEP: &str = "files";

/// What the files say of the networks as they are now.
#[derive(Debug, Default)]
pub struct Networks {
    /// The container's addresses, with prefix length.
    pub addresses: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
}

/// Sets the host name and writes the files, which the container's root gets bound over the image's.
///
/// # Errors
/// The fault of the step `files`.
pub fn write(config: &GuestConfig, now: &Networks) -> Result<(), Fault> {
    nix::unistd::sethostname(&config.hostname).map_err(Fault::at(
        STEP,
        format!("setting the host name {:?}", config.hostname),
    ))?;
    if !config.domainname.is_empty() {
        fs::write("/proc/sys/kernel/domainname", &config.domainname).map_err(Fault::at(
            STEP,
            format!("setting the domain name {:?}", config.domainname),
        ))?;
    }
    put("/f/hostname", format!("{}\n", config.hostname))?;
    write_network(config, now)
}

/// Writes the files that name the container's networks, in place: the container has them bound over its own.
///
/// # Errors
/// The fault of the step `files`.
pub fn write_network(config: &GuestConfig, now: &Networks) -> Result<(), Fault> {
    put("/f/hosts", hosts(config, &now.addresses))?;
    put("/f/resolv.conf", resolv_conf(config, now))
}

fn put(path: &str, text: String) -> Result<(), Fault> {
    fs::write(path, text).map_err(Fault::at(STEP, format!("writing {path}")))
}

/// Contents of /etc/hosts.
#[must_use]
pub fn hosts(config: &GuestConfig, addresses: &[String]) -> String {
    let mut out = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n".to_owned();
    for (address, names) in &config.hosts {
        let _ = writeln!(out, "{address}\t{}", names.join(" "));
    }
    let own = if config.domainname.is_empty() {
        config.hostname.clone()
    } else {
        format!("{0}.{1} {0}", config.hostname, config.domainname)
    };
    for address in addresses {
        let _ = writeln!(
            out,
            "{}\t{own}",
            address.split('/').next().unwrap_or_default()
        );
    }
    out
}

/// Contents of /etc/resolv.conf.
#[must_use]
pub fn resolv_conf(config: &GuestConfig, now: &Networks) -> String {
    let mut out = String::new();
    for server in &now.dns {
        let _ = writeln!(out, "nameserver {server}");
    }
    if !now.search.is_empty() {
        let _ = writeln!(out, "search {}", now.search.join(" "));
    }
    if !config.dns_options.is_empty() {
        let _ = writeln!(out, "options {}", config.dns_options.join(" "));
    }
    out
}
