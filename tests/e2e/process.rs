//! What a process is given: its stdin and the end of it, a terminal that outlives its client, capabilities, a user.

use crate::exec::{post, sleeper};
use crate::hosts::{BUSYBOX, Hosts, Link, equal, holds, on};
use anyhow::{Context, Result, bail};
use libtest_mimic::Trial;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tests::command::{DEADLINE, eventually};
use tests::docker::Docker;

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let vsock = |name: &str, test: fn(&Docker) -> Result<()>| on(hosts, Link::Vsock, name, test);
    vec![
        vsock("process::a_client_that_goes_ends_stdin", client_goes),
        vsock("process::a_terminal_outlives_its_client", terminal),
        vsock("process::capabilities_are_docker_s", capabilities),
        vsock("process::every_form_of_user", users),
    ]
}

/// `docker run -i` is `StdinOnce`: with the one client that attached, however it went, stdin ends.
fn client_goes(docker: &Docker) -> Result<()> {
    let name = "e2e-stdin-once";
    let _gone = docker.container(name);
    let mut client = docker.spawn(&[
        "run",
        "-i",
        "--name",
        name,
        BUSYBOX,
        "sh",
        "-c",
        "cat; echo end",
    ])?;
    let mut stdin = client.stdin.take().context("stdin")?;
    stdin.write_all(b"word\n")?;
    eventually("the word arrived", || {
        let log = docker.run(&["logs", name])?;
        Ok(log.code == 0 && log.text() == "word")
    })?;
    // Not the end of its stdin: the client itself goes.
    client.kill()?;
    client.wait()?;
    equal("exit code", docker.ok(&["wait", name])?, "0".into())?;
    equal("log", docker.ok(&["logs", name])?, "word\nend".into())
}

/// Attaches as `docker attach` does, with a terminal on our side.
/// The connection of a client that attaches with all it has.
pub fn attach(docker: &Docker, name: &str) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(docker.socket().context("a unix socket")?)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let query = "stream=1&stdin=1&stdout=1&stderr=1";
    write!(
        stream,
        "POST /v1.50/containers/{name}/attach?{query} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )?;
    let seen = read_until(&mut stream, "\r\n\r\n")?;
    holds(&seen, "101 ")?;
    Ok(stream)
}

fn read_until(stream: &mut UnixStream, text: &str) -> Result<String> {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(text.as_bytes()) {
        if stream.read(&mut byte)? == 0 {
            bail!("no {text:?} in {:?}", String::from_utf8_lossy(&seen));
        }
        seen.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&seen).into_owned())
}

/// A terminal is not closed with its client, `StdinOnce` or not: who detached attaches again and goes on.
fn terminal(docker: &Docker) -> Result<()> {
    let name = "e2e-terminal";
    let _gone = docker.container(name);
    docker.ok(&["create", "-i", "-t", "--name", name, BUSYBOX, "sh"])?;
    equal(
        "StdinOnce",
        docker.inspect(name, "{{.Config.StdinOnce}}")?,
        "true".into(),
    )?;
    docker.ok(&["start", name])?;
    let mut first = attach(docker, name)?;
    first.write_all(b"echo one-$((1+1))\n")?;
    read_until(&mut first, "one-2\r\n")?;
    // ctrl-p ctrl-q
    first.write_all(&[16, 17])?;
    first.read_to_end(&mut Vec::new())?;
    // One that just goes.
    let mut second = attach(docker, name)?;
    second.write_all(b"echo two-$((1+1))\n")?;
    read_until(&mut second, "two-2\r\n")?;
    let resize = format!("/v1.50/containers/{name}/resize?h=33&w=101");
    equal("resize", post(docker, &resize, "")?.0, 200)?;
    second.write_all(b"stty size\n")?;
    read_until(&mut second, "33 101\r\n")?;
    drop(second);
    let mut third = attach(docker, name)?;
    third.write_all(b"exit 7\n")?;
    third.read_to_end(&mut Vec::new())?;
    equal("exit code", docker.ok(&["wait", name])?, "7".into())
}

/// Docker's default set less MKNOD (linux/capability.h: bit 27), as in moby's `caps.DefaultCapabilities`.
const DEFAULT: u64 = 0xa804_25fb & !(1 << 27);
const CHOWN: u64 = 1 << 0;
const NET_ADMIN: u64 = 1 << 12;

/// The sets of a process: inheritable, permitted, effective, bounding, ambient.
fn sets(status: &str) -> Result<Vec<u64>> {
    let lines = status.lines().filter_map(|line| line.split_once(":\t"));
    lines
        .filter(|(name, _)| name.starts_with("Cap"))
        .map(|(_, value)| Ok(u64::from_str_radix(value, 16)?))
        .collect()
}

fn capabilities(docker: &Docker) -> Result<()> {
    let status = "grep Cap /proc/self/status";
    let run = |options: &[&str]| {
        let args = [&["run", "--rm"], options, &[BUSYBOX, "sh", "-c", status]].concat();
        sets(&docker.ok(&args)?)
    };
    let changed = (DEFAULT | NET_ADMIN) & !CHOWN;
    equal(
        "sets with a change",
        run(&["--cap-add", "net_admin", "--cap-drop", "CAP_CHOWN"])?,
        vec![0, changed, changed, changed, 0],
    )?;
    // A user who is not root has none in effect, but could get those of the bounding set.
    equal(
        "sets of a user",
        run(&["--cap-drop", "ALL", "--cap-add", "CHOWN", "-u", "app"])?,
        vec![0, 0, 0, CHOWN, 0],
    )?;
    for (capability, words) in [
        ("ALL", "--cap-add ALL"),
        ("MKNOD", "--cap-add MKNOD"),
        ("CAP_SYS_MODULE", "--cap-add SYS_MODULE"),
        ("sys_rawio", "--cap-add SYS_RAWIO"),
        ("PERFMON", "--cap-add PERFMON"),
        ("NO_SUCH", "unknown capability: \"CAP_NO_SUCH\""),
    ] {
        let out = docker.run(&["create", "--cap-add", capability, BUSYBOX, "true"])?;
        holds(&out.exits(1)?.errors(), words)?;
    }
    Ok(())
}

fn users(docker: &Docker) -> Result<()> {
    let c = sleeper(docker)?;
    let ids = |user: &str| {
        let show = "echo $(id -u) $(id -g) $HOME";
        docker.ok(&["exec", "-u", user, &c.name, "sh", "-c", show])
    };
    for (user, is) in [
        ("app", "1000 1000 /home"),
        ("1000", "1000 1000 /home"),
        ("app:staff", "1000 50 /home"),
        ("app:0", "1000 0 /home"),
        ("1000:4242", "1000 4242 /home"),
        ("4242", "4242 0 /"),
        ("4242:staff", "4242 50 /"),
        ("0", "0 0 /root"),
    ] {
        equal(&format!("--user {user}"), ids(user)?, is.to_owned())?;
    }
    for (user, words) in [
        (
            "ghost",
            "unable to find user ghost: no matching entries in passwd file",
        ),
        (
            "app:ghosts",
            "unable to find group ghosts: no matching entries in group file",
        ),
    ] {
        let out = docker.run(&["exec", "-u", user, &c.name, "true"])?;
        holds(&(out.text() + &out.errors()), words)?;
        anyhow::ensure!(out.code != 0, "--user {user} was taken");
    }
    Ok(())
}
