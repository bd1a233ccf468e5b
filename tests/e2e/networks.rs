//! Networks: names, isolation, published ports, connect and disconnect, addresses that stay.

use crate::hosts::{BUSYBOX, Hosts, Link, alone, equal, holds, load, on};
use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tests::command::eventually;
use tests::docker::{Container, Docker};
use tests::vch::{Settings, Vch};

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let vsock = |name: &str, test: fn(&Docker) -> Result<()>| on(hosts, Link::Vsock, name, test);
    vec![
        vsock("networks::made_shown_and_removed", life),
        vsock("networks::what_is_wrong_is_said", refusals),
        vsock("networks::members_find_each_other_by_name", names),
        vsock("networks::strangers_must_not_reach_each_other", isolation),
        vsock("networks::an_internal_one_leads_nowhere", internal),
        vsock("networks::ports_are_published", ports),
        vsock(
            "networks::host_gateway_leads_to_what_is_published",
            host_gateway,
        ),
        vsock("networks::connect_and_disconnect_while_it_runs", connect),
        vsock("networks::several_at_create_addresses_and_links", several),
        alone("networks::outlive_a_kill_of_endpoint_and_hostsim", crash),
        alone("networks::a_host_without_port_groups_says_why", user_mode),
    ]
}

/// A network that is removed when it goes out of scope, behind its containers.
pub(crate) struct Net {
    docker: Docker,
    name: String,
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.docker.run(&["network", "rm", &self.name]);
    }
}

pub(crate) fn net(docker: &Docker, name: &str, more: &[&str]) -> Result<Net> {
    docker.ok(&[&["network", "create"], more, &[name]].concat())?;
    Ok(Net {
        docker: docker.clone(),
        name: name.to_owned(),
    })
}

/// A container that answers on TCP port 80 with a word, to whoever asks.
const SERVER: &str = "mkdir -p /w && echo $WORD > /w/index.html && exec httpd -f -p 80 -h /w";

pub(crate) fn server(docker: &Docker, name: &str, word: &str, more: &[&str]) -> Result<Container> {
    let gone = docker.container(name);
    let word = format!("WORD={word}");
    let first = ["run", "-d", "--name", name, "-e", &word];
    docker.ok(&[&first, more, &[BUSYBOX, "sh", "-c", SERVER]].concat())?;
    Ok(gone)
}

/// What a container gets from a URL; an error where it gets nothing in time.
fn fetch(docker: &Docker, name: &str, url: &str) -> Result<String> {
    docker.ok(&["exec", name, "timeout", "10", "wget", "-q", "-O", "-", url])
}

/// The server in it may still be on its way.
pub(crate) fn comes(docker: &Docker, name: &str, url: &str, word: &str) -> Result<()> {
    eventually(&format!("{name} gets {word} from {url}"), || {
        Ok(fetch(docker, name, url).is_ok_and(|got| got == word))
    })
}

pub(crate) fn does_not_come(docker: &Docker, name: &str, url: &str) -> Result<()> {
    let args = ["exec", name, "timeout", "2", "wget", "-q", "-O", "-", url];
    let out = docker.run(&args)?;
    ensure!(out.code != 0, "{name} got {:?} from {url}", out.text());
    Ok(())
}

/// An answer to a GET over a connection of the test's own.
pub(crate) fn get(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET / HTTP/1.0\r\n\r\n")?;
    let mut all = String::new();
    stream.read_to_string(&mut all)?;
    let body = all.split("\r\n\r\n").nth(1);
    Ok(body.context("no body")?.trim().to_owned())
}

fn life(docker: &Docker) -> Result<()> {
    let name = "e2e-life";
    let args = [
        "--subnet",
        "10.44.0.0/16",
        "--ip-range",
        "10.44.5.0/24",
        "--gateway",
        "10.44.0.7",
        "--label",
        "a=b",
        "--opt",
        "com.docker.network.driver.mtu=1400",
    ];
    let network = net(docker, name, &args)?;
    let shown = docker.ok(&[
        "network", "inspect", name, "--format",
        "{{.Driver}} {{.Internal}} {{.Labels.a}} {{range .IPAM.Config}}{{.Subnet}} {{.IPRange}} {{.Gateway}}{{end}}",
    ])?;
    equal(
        "inspect",
        shown.as_str(),
        "bridge false b 10.44.0.0/16 10.44.5.0/24 10.44.0.7",
    )?;
    let listed = docker.ok(&[
        "network",
        "ls",
        "--filter",
        "label=a=b",
        "--format",
        "{{.Name}}",
    ])?;
    equal("ls", listed.as_str(), name)?;
    let all = docker.ok(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"])?;
    for builtin in ["bridge bridge", "none null"] {
        holds(&all, builtin)?;
    }
    let member = "e2e-life-member";
    let gone = docker.container(member);
    docker.ok(&[
        "run",
        "-d",
        "--name",
        member,
        "--network",
        name,
        BUSYBOX,
        "sleep",
        "600",
    ])?;
    let inside = docker.ok(&["exec", member, "sh", "-c", "ip addr show eth0; ip route"])?;
    holds(&inside, "mtu 1400")?;
    holds(&inside, "10.44.5.")?;
    holds(&inside, "default via 10.44.0.7")?;
    holds(
        &docker.ok(&[
            "network",
            "inspect",
            name,
            "--format",
            "{{range .Containers}}{{.Name}}{{end}}",
        ])?,
        member,
    )?;
    holds(
        &docker.run(&["network", "rm", name])?.exits(1)?.errors(),
        "has active endpoints",
    )?;
    docker.ok(&["stop", "-t", "0", member])?;
    // A stopped container does not hold its network, but cannot start without it.
    docker.ok(&["network", "rm", name])?;
    drop(network);
    let id = docker.run(&["start", member])?.exits(1)?.errors();
    holds(&id, "not found")?;
    drop(gone);
    let unused = net(docker, "e2e-unused", &["--label", "e2e=prune"])?;
    let pruned = docker.ok(&["network", "prune", "-f", "--filter", "label=e2e=prune"])?;
    holds(&pruned, &unused.name)
}

fn refusals(docker: &Docker) -> Result<()> {
    let _net = net(docker, "e2e-taken", &["--subnet", "10.45.0.0/16"])?;
    for (args, want) in [
        (
            &["network", "create", "e2e-taken"][..],
            "network with name e2e-taken already exists",
        ),
        (
            &["network", "create", "--subnet", "10.45.7.0/24", "e2e-x"],
            "Pool overlaps",
        ),
        (
            &["network", "create", "-d", "macvlan", "e2e-x"],
            "plugin \"macvlan\" not found",
        ),
        (
            &["network", "create", "bridge"],
            "predefined bridge network",
        ),
        (
            &["network", "create", "--subnet", "10.46.0.0/33", "e2e-x"],
            "invalid",
        ),
        (&["network", "rm", "bridge"], "pre-defined network"),
        (
            &["network", "rm", "e2e-none-such"],
            "network e2e-none-such not found",
        ),
        (
            &["network", "inspect", "e2e-none-such"],
            "network e2e-none-such not found",
        ),
        (
            &["create", "--network", "e2e-none-such", BUSYBOX, "true"],
            "network e2e-none-such not found",
        ),
        (
            &["create", "--network", "host", BUSYBOX, "true"],
            "network stack of its own",
        ),
        (
            &["create", "--ip", "172.17.0.9", BUSYBOX, "true"],
            "user specified IP address is supported",
        ),
        (
            &[
                "create",
                "--network",
                "e2e-taken",
                "--ip",
                "10.46.0.9",
                BUSYBOX,
                "true",
            ],
            "10.46.0.9",
        ),
    ] {
        let out = docker.run(args)?;
        ensure!(out.code != 0, "{args:?} was taken");
        holds(&out.errors(), want).with_context(|| format!("{args:?}"))?;
    }
    // What was refused left nothing behind.
    let left = docker.ok(&["network", "ls", "--filter", "name=e2e-x", "-q"])?;
    equal("networks", left.as_str(), "")
}

fn names(docker: &Docker) -> Result<()> {
    let _net = net(docker, "e2e-names", &[])?;
    let _web = server(
        docker,
        "e2e-web",
        "hello",
        &[
            "--network",
            "e2e-names",
            "--network-alias",
            "front",
            "--hostname",
            "outside",
        ],
    )?;
    let asker = "e2e-asker";
    let _asker = docker.container(asker);
    docker.ok(&[
        "run",
        "-d",
        "--name",
        asker,
        "--network",
        "e2e-names",
        BUSYBOX,
        "sleep",
        "600",
    ])?;
    let id = docker.inspect("e2e-web", "{{.Id}}")?;
    for name in [
        "e2e-web",
        "front",
        "outside",
        "E2E-Web",
        "e2e-web.e2e-names",
        &id[..12],
    ] {
        comes(docker, asker, &format!("http://{name}/"), "hello")?;
    }
    let shown = docker.inspect(
        "e2e-web",
        "{{json (index .NetworkSettings.Networks \"e2e-names\").DNSNames}}",
    )?;
    for name in ["e2e-web", "front", "outside", &id[..12]] {
        holds(&shown, name)?;
    }
    let address = docker.inspect(
        "e2e-web",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
    )?;
    // Back from the address to the name.
    holds(
        &docker.ok(&["exec", asker, "nslookup", &address])?,
        "e2e-web.e2e-names",
    )?;
    // A rename counts at once, and the name of one that has ended does not.
    docker.ok(&["rename", "e2e-web", "e2e-web2"])?;
    let _renamed = docker.container("e2e-web2");
    comes(docker, asker, "http://e2e-web2/", "hello")?;
    docker.ok(&["stop", "-t", "0", "e2e-web2"])?;
    does_not_come(docker, asker, "http://front/")
}

fn isolation(docker: &Docker) -> Result<()> {
    let _a = net(docker, "e2e-a", &["--ipv6"])?;
    let _b = net(docker, "e2e-b", &["--ipv6"])?;
    let _here = server(docker, "e2e-here", "here", &["--network", "e2e-a"])?;
    let _there = server(docker, "e2e-there", "there", &["--network", "e2e-b"])?;
    let _default = server(docker, "e2e-default", "default", &[])?;
    let own = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let there = docker.inspect("e2e-there", own)?;
    let default = docker.inspect("e2e-default", own)?;
    comes(docker, "e2e-here", "http://localhost/", "here")?;
    comes(docker, "e2e-there", "http://localhost/", "there")?;
    for url in [
        "http://e2e-there/".to_owned(),
        format!("http://{there}/"),
        format!("http://{default}/"),
        "http://e2e-default/".to_owned(),
    ] {
        does_not_come(docker, "e2e-here", &url)?;
    }
    // As if it were next door: not even a question for its hardware address is answered.
    let script = format!(
        "ip addr add {there}9/8 dev eth0 2>/dev/null; ip route add {there}/32 dev eth0; ping -c 2 -W 1 {there}; ip neigh"
    );
    let args = [
        "run",
        "--rm",
        "--cap-add",
        "NET_ADMIN",
        "--network",
        "e2e-a",
        BUSYBOX,
        "sh",
        "-c",
        &script,
    ];
    let out = docker.run(&args)?;
    ensure!(
        !out.text().contains("lladdr"),
        "an answer came: {}",
        out.text()
    );
    let six = docker.inspect(
        "e2e-there",
        "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}",
    )?;
    ensure!(six.starts_with("fd"), "no IPv6 address: {six:?}");
    comes(docker, "e2e-there", &format!("http://[{six}]/"), "there")?;
    does_not_come(docker, "e2e-here", &format!("http://[{six}]/"))
}

fn internal(docker: &Docker) -> Result<()> {
    let _net = net(docker, "e2e-internal", &["--internal"])?;
    let _web = server(
        docker,
        "e2e-inside",
        "inside",
        &["--network", "e2e-internal"],
    )?;
    let script = "timeout 20 wget -q -O - http://e2e-inside/; ip route; nslookup mooring.invalid";
    let out = docker.run(&[
        "run",
        "--rm",
        "--network",
        "e2e-internal",
        BUSYBOX,
        "sh",
        "-c",
        script,
    ])?;
    holds(&out.text(), "inside")?;
    ensure!(!out.text().contains("default via"), "{}", out.text());
    // What another network publishes is at each gateway: for all but its members.
    let _shown = server(docker, "e2e-shown", "shown", &["-p", "80"])?;
    let at = host_port(docker, "e2e-shown", "80")?;
    let port = at.rsplit(':').next().context("no port")?;
    let published = |network: &str| -> Result<String> {
        let format = "{{(index .IPAM.Config 0).Gateway}}";
        let gateway = docker.ok(&["network", "inspect", "--format", format, network])?;
        Ok(format!("http://{gateway}:{port}/"))
    };
    comes(docker, "e2e-shown", &published("bridge")?, "shown")?;
    does_not_come(docker, "e2e-inside", &published("e2e-internal")?)
}

pub(crate) fn host_port(docker: &Docker, name: &str, port: &str) -> Result<String> {
    let shown = docker.ok(&["port", name, port])?;
    let first = shown.lines().next().context("no port")?;
    Ok(first.replace("0.0.0.0", "127.0.0.1"))
}

fn ports(docker: &Docker) -> Result<()> {
    let name = "e2e-published";
    let _gone = server(
        docker,
        name,
        "outside",
        &["-p", "127.0.0.1::80", "-p", "9999/udp", "--expose", "7"],
    )?;
    let at = host_port(docker, name, "80")?;
    eventually("the port answers", || {
        Ok(get(&at).is_ok_and(|word| word == "outside"))
    })?;
    let row = docker.ok(&[
        "ps",
        "--filter",
        &format!("name={name}"),
        "--format",
        "{{.Ports}}",
    ])?;
    holds(&row, &format!("{at}->80/tcp"))?;
    holds(&row, "7/tcp")?;
    // UDP: nobody listens in the image, but the guest counts what came.
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    udp.connect(host_port(docker, name, "9999/udp")?)?;
    eventually("a datagram arrives", || {
        udp.send(b"datagram")?;
        let counters = docker.ok(&["exec", name, "grep", "^Udp:", "/proc/net/snmp"])?;
        let mut lines = counters
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let (names, values) = (
            lines.next().context("names")?,
            lines.next().context("values")?,
        );
        let at = names
            .iter()
            .position(|n| *n == "NoPorts")
            .context("NoPorts")?;
        Ok(values.get(at).is_some_and(|count| *count != "0"))
    })?;
    // Somebody else's port.
    let port = at.rsplit(':').next().context("port")?;
    let second = docker.container("e2e-second");
    let args = [
        "run",
        "-d",
        "--name",
        "e2e-second",
        "-p",
        &format!("127.0.0.1:{port}:80"),
        BUSYBOX,
        "true",
    ];
    holds(
        &docker.run(&args)?.exits(125)?.errors(),
        "port is already allocated",
    )?;
    drop(second);
    // A port of the machine's own.
    let own = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken = format!("127.0.0.1:{}:80", own.local_addr()?.port());
    let third = docker.container("e2e-third");
    let args = [
        "run",
        "-d",
        "--name",
        "e2e-third",
        "-p",
        &taken,
        BUSYBOX,
        "true",
    ];
    holds(
        &docker.run(&args)?.exits(125)?.errors(),
        "address already in use",
    )?;
    drop(third);
    // Free again with its end, and the same after the next start.
    docker.ok(&["stop", "-t", "0", name])?;
    eventually(
        "the port is closed",
        || Ok(TcpStream::connect(&at).is_err()),
    )?;
    let fixed = "e2e-fixed";
    let _fixed = server(
        docker,
        fixed,
        "fixed",
        &["-p", &format!("127.0.0.1:{port}:80")],
    )?;
    eventually("the port is another's", || {
        Ok(get(&at).is_ok_and(|word| word == "fixed"))
    })?;
    docker.ok(&["restart", "-t", "0", fixed])?;
    eventually("it is there after a restart", || {
        Ok(get(&at).is_ok_and(|word| word == "fixed"))
    })
}

fn host_gateway(docker: &Docker) -> Result<()> {
    let _net = net(docker, "e2e-gateway", &[])?;
    let name = "e2e-behind";
    let _gone = server(docker, name, "behind", &["-p", "80"])?;
    let at = host_port(docker, name, "80")?;
    eventually("the port answers", || {
        Ok(get(&at).is_ok_and(|word| word == "behind"))
    })?;
    let port = at.rsplit(':').next().context("port")?;
    let url = format!("http://host.docker.internal:{port}");
    for network in ["bridge", "e2e-gateway"] {
        let client = docker.container("e2e-client");
        let gateway = ["--add-host", "host.docker.internal:host-gateway"];
        let first = ["run", "-d", "--name", "e2e-client", "--network", network];
        docker.ok(&[&first[..], &gateway, &[BUSYBOX, "sleep", "1000"]].concat())?;
        comes(docker, "e2e-client", &url, "behind")?;
        drop(client);
    }
    let nowhere = ["--network", "none", "--add-host", "gw:host-gateway"];
    let create = [&["create"], &nowhere[..], &[BUSYBOX]].concat();
    let made = docker.run(&create)?.ok()?;
    let _made = docker.container(made.text().trim());
    holds(&made.errors(), "WARNING: host-gateway is left out")
}

fn connect(docker: &Docker) -> Result<()> {
    let _first = net(docker, "e2e-first", &[])?;
    let _second = net(docker, "e2e-second-net", &["--subnet", "10.47.0.0/24"])?;
    let _web = server(docker, "e2e-far", "far", &["--network", "e2e-second-net"])?;
    let name = "e2e-mover";
    let _gone = docker.container(name);
    docker.ok(&[
        "run",
        "-d",
        "--name",
        name,
        "--network",
        "e2e-first",
        BUSYBOX,
        "sleep",
        "600",
    ])?;
    does_not_come(docker, name, "http://e2e-far/")?;
    docker.ok(&[
        "network",
        "connect",
        "--ip",
        "10.47.0.9",
        "--alias",
        "mover",
        "e2e-second-net",
        name,
    ])?;
    holds(
        &docker.ok(&["exec", name, "ip", "addr", "show", "eth1"])?,
        "10.47.0.9/24",
    )?;
    comes(docker, name, "http://e2e-far/", "far")?;
    holds(
        &docker.ok(&["exec", "e2e-far", "nslookup", "mover"])?,
        "10.47.0.9",
    )?;
    let again = docker.run(&["network", "connect", "e2e-second-net", name])?;
    holds(&again.exits(1)?.errors(), "already exists in network")?;
    // It lasts.
    docker.ok(&["restart", "-t", "0", name])?;
    holds(
        &docker.ok(&["exec", name, "ip", "addr", "show", "eth1"])?,
        "10.47.0.9/24",
    )?;
    docker.ok(&["network", "disconnect", "e2e-second-net", name])?;
    let left = docker.ok(&["exec", name, "ls", "/sys/class/net"])?;
    ensure!(!left.contains("eth1"), "eth1 is still there: {left}");
    does_not_come(docker, name, "http://e2e-far/")?;
    let not = docker.run(&["network", "disconnect", "e2e-second-net", name])?;
    holds(&not.exits(1)?.errors(), "is not connected")?;
    // One that is stopped, too.
    docker.ok(&["stop", "-t", "0", name])?;
    docker.ok(&["network", "connect", "e2e-second-net", name])?;
    docker.ok(&["network", "disconnect", "e2e-first", name])?;
    docker.ok(&["start", name])?;
    comes(docker, name, "http://e2e-far/", "far")?;
    let on = docker.inspect(
        name,
        "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}",
    )?;
    equal("networks", on.trim(), "e2e-second-net")
}

fn several(docker: &Docker) -> Result<()> {
    let _x = net(docker, "e2e-x-net", &["--subnet", "10.48.0.0/24"])?;
    let _y = net(docker, "e2e-y-net", &["--subnet", "10.49.0.0/24"])?;
    let _web = server(docker, "e2e-linked", "linked", &["--network", "e2e-x-net"])?;
    let name = "e2e-both";
    let _gone = docker.container(name);
    docker.ok(&[
        "create",
        "--name",
        name,
        "--network",
        "e2e-x-net",
        "--ip",
        "10.48.0.77",
        "--mac-address",
        "00:50:56:00:47:11",
        "--link",
        "e2e-linked:db",
        BUSYBOX,
        "sleep",
        "600",
    ])?;
    docker.ok(&["network", "connect", "e2e-y-net", name])?;
    docker.ok(&["start", name])?;
    let inside = docker.ok(&[
        "exec",
        name,
        "sh",
        "-c",
        "ip addr; ip route; cat /etc/hosts",
    ])?;
    for part in [
        "10.48.0.77/24",
        "10.49.0.",
        "00:50:56:00:47:11",
        "default via 10.48.0.1",
    ] {
        holds(&inside, part)?;
    }
    // The link's name is the linking one's alone.
    comes(docker, name, "http://db/", "linked")?;
    holds(
        &docker
            .run(&[
                "run",
                "--rm",
                "--network",
                "e2e-x-net",
                "--ip",
                "10.48.0.77",
                BUSYBOX,
                "true",
            ])?
            .errors(),
        "Address already in use",
    )?;
    // On the default network a link is a line in /etc/hosts.
    let _old = server(docker, "e2e-oldlink", "old", &[])?;
    let got = docker.ok(&[
        "run",
        "--rm",
        "--link",
        "e2e-oldlink:old",
        BUSYBOX,
        "sh",
        "-c",
        "until timeout 5 wget -q -O - http://old/; do sleep 1; done",
    ])?;
    equal("by the link", got.as_str(), "old")
}

fn crash() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    let docker = &vch.docker;
    load(docker, "busybox")?;
    let _net = net(docker, "e2e-crash", &[])?;
    let _web = server(
        docker,
        "e2e-up",
        "up",
        &["--network", "e2e-crash", "-p", "127.0.0.1::80"],
    )?;
    let asker = "e2e-up-asker";
    let _asker = docker.container(asker);
    docker.ok(&[
        "run",
        "-d",
        "--name",
        asker,
        "--network",
        "e2e-crash",
        BUSYBOX,
        "sleep",
        "6000",
    ])?;
    let at = host_port(docker, "e2e-up", "80")?;
    eventually("the port answers", || {
        Ok(get(&at).is_ok_and(|word| word == "up"))
    })?;
    let addresses = |docker: &Docker| {
        docker.inspect(
            "e2e-up",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}{{end}}",
        )
    };
    let before = addresses(docker)?;
    for part in ["endpoint", "hostsim"] {
        vch.kill(part)?;
        // While it is away, connections are made all the same.
        equal("while it is away", get(&at)?, "up".into())?;
        vch.up()?;
        equal("after it", get(&at)?, "up".into())?;
        equal("addresses", addresses(docker)?, before.clone())?;
        equal("port", host_port(docker, "e2e-up", "80")?, at.clone())?;
        comes(docker, asker, "http://e2e-up/", "up")?;
    }
    // What holds the ports is gone, and they with it, until it is brought back.
    vch.kill("ports")?;
    ensure!(get(&at).is_err(), "who answers at {at}?");
    vch.up()?;
    eventually("the port is open again", || {
        Ok(get(&at).is_ok_and(|word| word == "up"))
    })?;
    // The whole host down and up: networks and addresses are as they were.
    let id = docker.ok(&["network", "inspect", "e2e-crash", "--format", "{{.Id}}"])?;
    vch.down()?;
    vch.up()?;
    equal(
        "network",
        docker.ok(&["network", "inspect", "e2e-crash", "--format", "{{.Id}}"])?,
        id,
    )?;
    docker.ok(&["start", "e2e-up", asker])?;
    equal("addresses", addresses(docker)?, before)?;
    comes(docker, asker, "http://e2e-up/", "up")
}

fn user_mode() -> Result<()> {
    let mut settings = Settings::link("auto");
    settings.more = vec!["--network".into(), "user".into()];
    let vch = Vch::start(settings)?;
    let docker = &vch.docker;
    load(docker, "busybox")?;
    for args in [
        &["network", "create", "x"][..],
        &["run", "--rm", "-p", "80:80", BUSYBOX, "true"],
    ] {
        let out = docker.run(args)?;
        ensure!(out.code != 0, "{args:?} was taken");
        holds(&out.errors(), "only the default network")?;
    }
    let out = docker.ok(&["run", "--rm", BUSYBOX, "ip", "route"])?;
    holds(&out, "default via 172.17.0.1")?;
    match docker.ok(&["network", "ls", "-q"])?.lines().count() {
        2 => Ok(()),
        n => bail!("{n} networks"),
    }
}
