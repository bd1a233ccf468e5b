//! The endpoint as on ESXi: in a VM, as the gateway of VLANs on one trunk vNIC, over the serial link.

use crate::hosts::{BUSYBOX, Hosts, alone, equal, load};
use crate::networks::{comes, does_not_come, get, net, server};
use crate::remote::{Authority, authority, certificate};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rcgen::ExtendedKeyUsagePurpose;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use tests::appliance::{Appliance, Splitter};
use tests::docker::Docker;
use tests::vch::{Settings, Vch};
use time::{Duration, OffsetDateTime};

/// In a soak, or where it is asked for by name: a VM more boots, under emulation.
pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    let asked = std::env::args().any(|a| a.contains("appliance"));
    if !asked && std::env::var_os("MOORING_SOAK").is_none() {
        return Vec::new();
    }
    vec![alone(
        "appliance::one_trunk_carries_every_network_s_vlan",
        trunk,
    )]
}

/// Port groups of the appliance, with their VLANs; the router beside hostsim has no part in these.
const GROUPS: [(&str, u16); 3] = [("app-bridge", 201), ("app-1", 202), ("app-2", 203)];

/// Ports that are free.
fn ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    let mut out = [0; N];
    for port in &mut out {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(out)
}

/// The arguments of the host's own endpoint, as the appliance's needs them.
fn arguments(vch: &Vch, api: u16, vspc: u16) -> Result<Vec<String>> {
    let line = std::fs::read(format!("/proc/{}/cmdline", vch.pid("endpoint")?))?;
    let line = String::from_utf8(line)?;
    let mut words = line.split('\0').skip(2).filter(|word| !word.is_empty());
    let mut out = vec!["serve".to_owned()];
    let kept = [
        "--thumbprint",
        "--memory",
        "--boot-iso",
        "--boot-kernel",
        "--boot-initrd",
    ];
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        match option {
            // The machine's loopback, as QEMU's network has it.
            "--vsphere" => out.extend([option.into(), value.replace("127.0.0.1", "10.0.2.2")]),
            _ if kept.contains(&option) => out.extend([option.into(), value.into()]),
            _ => {}
        }
    }
    let pool: Vec<&str> = GROUPS[1..].iter().map(|(name, _)| *name).collect();
    for (option, value) in [
        ("--credentials", "/credentials.json".to_owned()),
        ("--vch-id", "appliance".to_owned()),
        ("--run-dir", "/run/endpoint".to_owned()),
        ("--docker", format!("tcp://0.0.0.0:{api}")),
        ("--tls-cert", "/server.pem".to_owned()),
        ("--tls-key", "/server.key".to_owned()),
        ("--tls-ca", "/ca.pem".to_owned()),
        ("--link", "serial".to_owned()),
        ("--vspc-listen", format!("0.0.0.0:{vspc}")),
        ("--vspc-advertise", "127.0.0.1".to_owned()),
        ("--port-group", GROUPS[0].0.to_owned()),
        ("--network-pool", pool.join(",")),
        ("--trunk", "trunk".to_owned()),
        ("--public", "public".to_owned()),
    ] {
        out.extend([option.to_owned(), value]);
    }
    Ok(out)
}

fn certificates(folder: &Path) -> Result<()> {
    let ours: Authority = authority(folder, "ca")?;
    let later = OffsetDateTime::now_utc() + Duration::days(9);
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    certificate(folder, "server", &ours, server, later)?;
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    certificate(folder, "client", &ours, client, later)
}

/// A page of the machine's own, to which the way out leads.
fn outside() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\noutside");
        }
    });
    Ok(port)
}

fn trunk() -> Result<()> {
    let made = tempfile::Builder::new().prefix("mooring-app-").tempdir()?;
    let folder = made.path();
    certificates(folder)?;
    let mut settings = Settings::link("serial");
    for (name, vlan) in GROUPS {
        let groups = [
            "--hostsim-arg=--port-group",
            &format!("--hostsim-arg={name}={vlan}"),
        ]
        .map(str::to_owned);
        settings.more.extend(groups);
    }
    let vch = Vch::start(settings)?;
    let [api, vspc, page] = ports()?;
    let (own, other) = (folder.join("trunk"), folder.join("splitter"));
    let vlans = GROUPS.map(|(_, vlan)| vlan);
    let splitter = Splitter::start(&vch, folder, [&own, &other], &vlans)?;
    let mut files = ["server.pem", "server.key", "ca.pem"]
        .map(|name| folder.join(name))
        .to_vec();
    files.push(vch.state().join("hostsim/credentials.json"));
    let appliance = Appliance::start(
        folder,
        &arguments(&vch, api, vspc)?,
        &files,
        &[api, vspc, page],
        [&own, &other],
    )?;
    let file = |name: &str| folder.join(name).display().to_string();
    let docker = Docker::with_tls(
        format!("tcp://127.0.0.1:{api}"),
        vch.docker.config(),
        [&file("ca.pem"), &file("client.pem"), &file("client.key")],
    );
    let done = members(&docker, &splitter, api, page);
    done.with_context(|| format!("the appliance said: {}", appliance.console()))
}

/// Two networks on one trunk: names, isolation, the way out, published ports, and in the end no frame without a tag that
/// got anywhere.
fn members(docker: &Docker, splitter: &Splitter, api: u16, page: u16) -> Result<()> {
    load(docker, "busybox")?;
    let _one = net(docker, "one", &["--ipv6"])?;
    let _two = net(docker, "two", &[])?;
    let publish = format!("{page}:80");
    let on_one = ["--network", "one", "-p", &publish];
    let web = server(docker, "web", "on-one", &on_one)?;
    let both = ["--network", "two"];
    let _other = server(docker, "other", "on-two", &both)?;
    // A third one, beside the first: what it asks for by name goes over the trunk, its answer comes back on its VLAN.
    let _near = server(docker, "near", "near", &["--network", "one"])?;
    comes(docker, "near", "http://web/", "on-one")?;
    let address = docker.inspect("web", "{{.NetworkSettings.Networks.one.IPAddress}}")?;
    does_not_come(docker, "other", &format!("http://{address}/"))?;
    does_not_come(docker, "other", "http://web/")?;
    for name in ["near", "other"] {
        let url = format!("http://10.0.2.2:{}/", outside()?);
        comes(docker, name, &url, "outside")?;
        // The endpoint's own API is nothing that a member reaches, by whatever address of it.
        does_not_come(docker, name, &format!("http://10.0.2.15:{api}/"))?;
    }
    equal(
        "page",
        get(&format!("127.0.0.1:{page}"))?.as_str(),
        "on-one",
    )?;
    // Published, the API's port would be the container's.
    let taken = format!("{api}:80");
    let out = docker.run(&["run", "--rm", "-p", &taken, BUSYBOX, "true"])?;
    crate::hosts::holds(&out.errors(), "address already in use")?;
    let counts = splitter.counts();
    for (_, vlan) in &GROUPS[1..] {
        let [from, to] = counts.get(vlan).copied().unwrap_or_default();
        ensure!(from > 0 && to > 0, "VLAN {vlan}: {counts:?}");
    }
    let strange = |vlan: &&u16| **vlan != 0 && GROUPS.iter().all(|(_, own)| own != *vlan);
    ensure!(counts.keys().find(strange).is_none(), "{counts:?}");
    // The next network gets a port group that was in use, with another subnet, on the same trunk.
    drop(web);
    docker.ok(&["rm", "-f", "near"])?;
    docker.ok(&["network", "rm", "one"])?;
    let _three = net(docker, "three", &["--subnet", "10.77.0.0/24"])?;
    docker.ok(&["network", "connect", "three", "other"])?;
    let ping = ["exec", "other", "ping", "-c", "1", "-W", "5", "10.77.0.1"];
    docker.ok(&ping).map(drop)
}
