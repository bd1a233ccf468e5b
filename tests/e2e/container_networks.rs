//! Port groups with a router of their own as networks: what their trust levels let through, in packets, and addresses by
//! DHCP. The far side is a network namespace on the port group's bridge.

use crate::hosts::{BUSYBOX, Hosts, alone, equal, holds, load};
use anyhow::{Result, anyhow, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::command::eventually;
use tests::docker::{Container, Docker};
use tests::netns::Station;
use tests::vch::{Settings, Vch};

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![
        alone(
            "container_networks::nothing_passes_that_the_trust_level_forbids",
            levels,
        ),
        alone(
            "container_networks::addresses_by_dhcp_are_told_kept_and_lost",
            dhcp,
        ),
        alone(
            "container_networks::without_its_filter_no_container_starts",
            without_filter,
        ),
    ]
}

/// VLAN of the first port group of `--container-network`.
const FIRST: u16 = 1001;
const LEVELS: [&str; 5] = ["open", "closed", "outbound", "peers", "published"];

/// The station's addresses on a network: the router's, which is no peer, and one of the network's range.
fn addresses(number: usize) -> [String; 4] {
    [
        format!("10.60.{number}.1"),
        format!("10.60.{number}.30"),
        format!("fd00:60:{number}::1"),
        format!("fd00:60:{number}::1:30"),
    ]
}

/// The options of a network with a level by number, both families.
fn options(number: usize, level: &str) -> Vec<String> {
    let group = format!("pg-{level}");
    [
        ("", format!("{group}:{level}")),
        ("-gateway", format!("{group}:10.60.{number}.1/24")),
        ("-gateway", format!("{group}:fd00:60:{number}::1/64")),
        (
            "-ip-range",
            format!("{group}:10.60.{number}.16-10.60.{number}.31"),
        ),
        ("-ip-range", format!("{group}:fd00:60:{number}::1:0/112")),
        ("-firewall", format!("{group}:{level}")),
    ]
    .into_iter()
    .flat_map(|(option, value)| [format!("--container-network{option}"), value])
    .collect()
}

fn host(link: &'static str, more: Vec<String>) -> Result<Vch> {
    let mut settings = Settings::link(link);
    settings.more = more;
    let vch = Vch::start(settings)?;
    load(&vch.docker, "busybox")?;
    Ok(vch)
}

/// Serves pages on ports 80 and 81, IPv4 and IPv6.
const SERVERS: &str =
    "mkdir /w; echo ok > /w/index.html; httpd -p 80 -h /w; httpd -p 81 -h /w; exec sleep 600";

fn server(docker: &Docker, name: &str, network: &str, more: &[&str]) -> Result<Container> {
    let gone = docker.container(name);
    let first = ["run", "-d", "--name", name, "--network", network];
    docker.ok(&[&first, more, &[BUSYBOX, "sh", "-c", SERVERS]].concat())?;
    Ok(gone)
}

/// An address of a container on a network.
fn address(docker: &Docker, name: &str, network: &str, field: &str) -> Result<String> {
    docker.inspect(
        name,
        &format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}"),
    )
}

/// What comes in and goes out, as a line for each family: pings and pages of port 80 and 81 from a peer's address and
/// from the router's, and a page from outside. All at once, since what is kept out is only seen by waiting.
fn seen(
    docker: &Docker,
    station: &Station,
    number: usize,
    name: &str,
    level: &str,
) -> Result<String> {
    let stations = addresses(number);
    let mut to = Vec::new();
    for field in ["IPAddress", "GlobalIPv6Address"] {
        to.push(address(docker, name, level, field)?);
    }
    // Not the filter's business, and so a sign that whoever says nothing is there.
    ensure!(station.finds(&to[0])?, "no ARP answer of {}", to[0]);
    let out = std::thread::scope(|scope| -> Result<Vec<String>> {
        let mut families = Vec::new();
        for (to, [router, peer]) in to
            .iter()
            .zip([[&stations[0], &stations[1]], [&stations[2], &stations[3]]])
        {
            let host = |a: &str| match a.contains(':') {
                true => format!("[{a}]"),
                false => a.to_owned(),
            };
            let mut probes = Vec::new();
            for (who, from) in [("peer", peer), ("router", router)] {
                let ping = scope.spawn(move || station.pings(from, to));
                probes.push((format!("{who}:ping"), ping));
                for port in [80, 81] {
                    let url = format!("http://{}:{port}/", host(to));
                    let get = scope.spawn(move || station.gets(from, &url));
                    probes.push((format!("{who}:{port}"), get));
                }
            }
            let url = format!("http://{}:8000/", host(router));
            let out = scope.spawn(move || {
                let fetch = ["exec", name, "timeout", "3", "wget", "-q", "-O", "-", &url];
                let got = docker.run(&fetch)?;
                Ok(got.code == 0 && got.text().contains("outside"))
            });
            probes.push(("out".to_owned(), out));
            families.push(probes);
        }
        let mut lines = Vec::new();
        for probes in families {
            let mut words = Vec::new();
            for (word, probe) in probes {
                let came = probe.join().map_err(|_| anyhow!("{word} panicked"))??;
                words.extend(came.then_some(word));
            }
            lines.push(words.join(" "));
        }
        Ok(lines)
    })?;
    ensure!(out[0] == out[1], "IPv4 and IPv6 differ: {out:?}");
    ensure!(
        station.finds(&to[0])?,
        "no ARP answer of {} afterwards",
        to[0]
    );
    Ok(out[0].clone())
}

fn levels() -> Result<()> {
    let more = LEVELS.iter().enumerate();
    let vch = host(
        "vsock",
        more.flat_map(|(n, level)| options(n, level)).collect(),
    )?;
    let docker = &vch.docker;
    let mut stations = Vec::new();
    for number in 0..LEVELS.len() {
        let own = addresses(number);
        let nets = [
            format!("{}/24", own[0]),
            format!("{}/24", own[1]),
            format!("{}/64", own[2]),
            format!("{}/64", own[3]),
        ];
        let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
        let vlan = FIRST + u16::try_from(number)?;
        let station = Station::new(&vch, vlan, &nets)?;
        for at in [&own[0], &own[2]] {
            station.serve((at.parse::<std::net::IpAddr>()?, 8000).into(), "outside")?;
        }
        stations.push(station);
    }
    refusals(docker)?;
    for (number, level, should) in [
        (
            0,
            "open",
            "peer:ping peer:80 peer:81 router:ping router:80 router:81 out",
        ),
        (1, "closed", ""),
        (2, "outbound", "out"),
        (3, "peers", "peer:ping peer:80 peer:81 router:ping out"),
        (
            4,
            "published",
            "peer:ping peer:80 router:ping router:80 out",
        ),
    ] {
        let _gone = server(docker, level, level, &["-p", "80"])?;
        // The servers may still be on their way.
        eventually("the servers are up", || {
            let get = [
                "exec",
                level,
                "wget",
                "-q",
                "-O",
                "-",
                "http://127.0.0.1:81/",
            ];
            Ok(docker.run(&get)?.code == 0)
        })?;
        let is = seen(docker, &stations[number], number, level, level)?;
        equal(level, is.as_str(), should)?;
        let caps = docker.ok(&["exec", level, "grep", "CapBnd", "/proc/self/status"])?;
        let caps = u64::from_str_radix(caps.split_whitespace().last().unwrap_or(""), 16)?;
        // CAP_NET_ADMIN and CAP_NET_RAW (linux/capability.h).
        let past = caps & (1 << 12 | 1 << 13);
        equal(
            "rights past the filter",
            past,
            if level == "open" { 1 << 13 } else { 0 },
        )?;
        if level == "published" {
            let own = address(docker, level, level, "IPAddress")?;
            let six = address(docker, level, level, "GlobalIPv6Address")?;
            equal(
                "port",
                docker.ok(&["port", level])?.as_str(),
                &format!("80/tcp -> {own}:80\n80/tcp -> [{six}]:80"),
            )?;
            let shown = docker.inspect(level, "{{json .NetworkSettings.Ports}}")?;
            let place = |ip: &str| format!(r#"{{"HostIp":"{ip}","HostPort":"80"}}"#);
            let both = format!(r#"{{"80/tcp":[{},{}]}}"#, place(&own), place(&six));
            equal("ports", shown, both)?;
        }
    }
    connected(docker, &stations[4])?;
    ten(docker)
}

/// A VM has at most ten vNICs: an eleventh network is refused, at create and by connect, and the ten stay.
fn ten(docker: &Docker) -> Result<()> {
    let mut nets = Vec::new();
    for n in 0..6 {
        nets.push(crate::networks::net(docker, &format!("ten-{n}"), &[])?);
    }
    let own = (0..6).map(|n| format!("ten-{n}"));
    let names: Vec<String> = LEVELS.map(str::to_owned).into_iter().chain(own).collect();
    let create = |count: usize| {
        let networks = names[..count].iter().flat_map(|name| ["--network", name]);
        let all: Vec<&str> = ["create", "--name", "ten"]
            .into_iter()
            .chain(networks)
            .chain([BUSYBOX, "true"])
            .collect();
        docker.run(&all)
    };
    let out = create(11)?;
    ensure!(out.code != 0, "eleven were taken");
    holds(&out.errors(), "11 networks: a VM has at most 10 vNICs")?;
    create(10)?.ok()?;
    let _gone = docker.container("ten");
    let out = docker
        .run(&["network", "connect", &names[10], "ten"])?
        .exits(1)?;
    holds(&out.errors(), "is on 10 networks")?;
    let count = "{{len .NetworkSettings.Networks}}";
    equal("networks", docker.inspect("ten", count)?.as_str(), "10")?;
    // What was refused holds no address.
    let members = docker.inspect(&names[10], "{{len .Containers}}")?;
    equal("members", members.as_str(), "0")?;
    docker.ok(&["start", "-a", "ten"]).map(drop)
}

fn refusals(docker: &Docker) -> Result<()> {
    for (args, words) in [
        (
            &["network", "rm", "closed"][..],
            "cannot be removed by a client",
        ),
        (
            &[
                "create",
                "--network",
                "peers",
                "--cap-add",
                "NET_ADMIN",
                BUSYBOX,
            ],
            "NET_ADMIN",
        ),
        (
            &[
                "create",
                "--network",
                "peers",
                "--cap-add",
                "NET_RAW",
                BUSYBOX,
            ],
            "NET_RAW",
        ),
        (
            &[
                "create",
                "--network",
                "peers",
                "--ip",
                "10.60.3.99",
                BUSYBOX,
            ],
            "10.60.3.99 is not among",
        ),
        (
            &[
                "run",
                "--network",
                "published",
                "--name",
                "local",
                "-p",
                "127.0.0.1:80:80",
                BUSYBOX,
                "true",
            ],
            "leave the address 127.0.0.1 out",
        ),
        (&["network", "create", "closed"], "already exists"),
    ] {
        let out = docker.run(args)?;
        ensure!(out.code != 0, "{args:?} was taken");
        holds(&out.errors(), words)?;
    }
    docker.ok(&["rm", "local"])?;
    docker.ok(&["network", "prune", "-f"])?;
    let listed = docker.ok(&[
        "network",
        "ls",
        "--filter",
        "driver=external",
        "--format",
        "{{.Name}}",
    ])?;
    equal("networks", listed.lines().count(), LEVELS.len())
}

/// A container that runs gets a network with a filter only if it cannot get past it, and then with its filter at once.
fn connected(docker: &Docker, station: &Station) -> Result<()> {
    let _raw = server(docker, "raw", "bridge", &[])?;
    let out = docker.run(&["network", "connect", "published", "raw"])?;
    holds(&out.errors(), "NET_RAW")?;
    let _late = server(docker, "late", "bridge", &["--cap-drop", "NET_RAW"])?;
    docker.ok(&["network", "connect", "published", "late"])?;
    let at = address(docker, "late", "published", "IPAddress")?;
    let url = format!(
        "http://{}:81/",
        address(docker, "raw", "bridge", "IPAddress")?
    );
    // What is not external is open as ever, with the filter and without.
    let neighbour = [
        "exec", "late", "timeout", "10", "wget", "-q", "-O", "-", &url,
    ];
    let own = &addresses(4)[0];
    ensure!(station.pings(own, &at)?, "no ping to {at}");
    ensure!(
        !station.gets(own, &format!("http://{at}:81/"))?,
        "a port that nobody published is open"
    );
    docker.ok(&neighbour)?;
    docker.ok(&["network", "disconnect", "published", "late"])?;
    docker.ok(&neighbour)?;
    Ok(())
}

/// The one that has its address by DHCP.
const MAC: &str = "00:50:56:00:00:07";

/// Starts a DHCP server in the station with short leases for addresses from one on, the first for [`MAC`].
fn serve_dhcp(station: &mut Station, folder: &std::path::Path, first: u8) -> Result<()> {
    let path = |name: &str| folder.join(name).display().to_string();
    let _ = std::fs::remove_file(path("leases"));
    std::fs::write(path("leases"), "")?;
    let text = format!(
        "start 10.61.0.{first}\nend 10.61.0.{}\ninterface wire\nlease_file {}\npidfile {}\nmin_lease 5\nauto_time 1\n\
         option subnet 255.255.255.0\noption router 10.61.0.1\noption dns 10.61.0.53\noption domain lab.example\n\
         static_lease {MAC} 10.61.0.{first}\n\
         option mtu 1400\noption staticroutes 10.99.0.0/16 10.61.0.9, 0.0.0.0/0 10.61.0.1\noption lease 8\n",
        first + 5,
        path("leases"),
        path("pid"),
    );
    std::fs::write(path("udhcpd.conf"), text)?;
    station.spawn(&["busybox", "udhcpd", "-f", &path("udhcpd.conf")])
}

fn dhcp() -> Result<()> {
    // Over the serial link: filter, leases and ports are told by it as by the other.
    let lab = vec!["--container-network".into(), "pg-lab:lab".into()];
    let vch = host("serial", lab)?;
    let docker = &vch.docker;
    let folder = tempfile::tempdir()?;
    let mut station = Station::new(&vch, FIRST, &["10.61.0.1/24"])?;
    let create = [
        "create",
        "--name",
        "leased",
        "--hostname",
        "asks",
        "--network",
        "lab",
        "--mac-address",
        MAC,
        "-p",
        "80",
    ];
    docker.ok(&[&create[..], &[BUSYBOX, "sh", "-c", SERVERS]].concat())?;
    let _gone = docker.container("leased");
    let out = docker.run(&["start", "leased"])?;
    holds(&out.errors(), "no server answered within 20 s")?;

    // The server gives an address that somebody has taken by hand: it is not used before he is gone.
    let squatter = Station::new(&vch, FIRST, &["10.61.0.20/24"])?;
    serve_dhcp(&mut station, folder.path(), 20)?;
    let mut starting = docker.spawn(&["start", "leased"])?;
    let id = docker.inspect("leased", "{{.Id}}")?;
    let console = vch
        .vch_folder()?
        .join("containers")
        .join(&id)
        .join("console.log");
    eventually("it declines the address", || {
        ensure!(starting.try_wait()?.is_none(), "it started, or did not");
        let said = std::fs::read(&console).unwrap_or_default();
        Ok(String::from_utf8_lossy(&said).contains("10.61.0.20 is another station's"))
    })?;
    drop(squatter);
    let started = starting.wait_with_output()?;
    ensure!(
        started.status.success(),
        "{}",
        String::from_utf8_lossy(&started.stderr)
    );
    let got = || address(docker, "leased", "lab", "IPAddress");
    let first = got()?;
    ensure!(
        first.starts_with("10.61.0.2"),
        "{first:?} is not of the server's"
    );
    equal(
        "gateway",
        address(docker, "leased", "lab", "Gateway")?.as_str(),
        "10.61.0.1",
    )?;
    equal(
        "port",
        docker.ok(&["port", "leased"])?.as_str(),
        &format!("80/tcp -> {first}:80"),
    )?;
    let inside = docker.ok(&[
        "exec",
        "leased",
        "sh",
        "-c",
        "cat /etc/resolv.conf /etc/hosts /sys/class/net/eth0/mtu; ip route",
    ])?;
    for part in [
        "nameserver 10.61.0.53",
        "search lab.example",
        &format!("{first}\tasks"),
        "1400",
        "10.99.0.0/16 via 10.61.0.9",
        "default via 10.61.0.1",
    ] {
        holds(&inside, part)?;
    }
    ensure!(station.pings("10.61.0.1", &first)?, "no ping to {first}");
    ensure!(
        !station.gets("10.61.0.1", &format!("http://{first}:81/"))?,
        "81 is open"
    );
    // Another server has other addresses and refuses to renew this one.
    station.stop();
    serve_dhcp(&mut station, folder.path(), 120)?;
    eventually("another address is told", || {
        Ok(got()?.starts_with("10.61.0.12"))
    })?;
    let second = got()?;
    ensure!(station.pings("10.61.0.1", &second)?, "no ping to {second}");
    ensure!(
        !station.pings("10.61.0.1", &first)?,
        "{first} is still there"
    );
    // And none renews it: it ends.
    station.stop();
    eventually("the loss is told", || Ok(got()?.is_empty()))?;
    let routes = docker.ok(&["exec", "leased", "ip", "-4", "address", "show", "eth0"])?;
    ensure!(!routes.contains("inet "), "the address stays: {routes}");
    let log = std::fs::read_to_string(vch.state().join("endpoint/log"))?;
    holds(&log, "its DHCP lease is lost")
}

fn without_filter() -> Result<()> {
    let mut more = options(4, "published");
    // The kernel without nf_tables.
    let ahci = "initcall_blacklist=ahci_pci_driver_init";
    let line =
        wire::config::KERNEL_CMDLINE.replacen(ahci, &format!("{ahci},nf_tables_module_init"), 1);
    more.push(format!("--endpoint-arg=--boot-cmdline={line}"));
    let vch = host("vsock", more)?;
    let out = vch
        .docker
        .run(&["run", "--rm", "--network", "published", BUSYBOX, "true"])?;
    ensure!(out.code != 0, "it ran without a packet filter");
    holds(&out.errors(), "network")?;
    holds(&out.errors(), "packet filter")?;
    vch.docker.ok(&["run", "--rm", BUSYBOX, "true"]).map(drop)
}
