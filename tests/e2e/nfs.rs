//! Volumes on an NFS server, which a container's VM mounts over the container's own network.

use crate::hosts::{BUSYBOX, Hosts, Link, equal, holds, on};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::docker::Docker;
use tests::nfs::NfsServer;

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    // One server, one after the other.
    vec![on(
        hosts,
        Link::Vsock,
        "volumes::on_an_nfs_server",
        |docker| {
            let mut server = NfsServer::start()?;
            both_versions(docker, &server)?;
            filled(docker, &server)?;
            unreachable(docker, &server)?;
            killed(docker, &mut server)
        },
    )]
}

fn create(docker: &Docker, server: &NfsServer, name: &str, o: &str, below: &str) -> Result<()> {
    let path = server.export().join(below);
    std::fs::create_dir_all(&path)?;
    let o = format!("o=addr={},{o}", server.address);
    let device = format!("device=:{}", path.display());
    let args = ["volume", "create", "--opt", "type=nfs", "--opt", &o];
    docker
        .ok(&[&args[..], &["--opt", &device, name]].concat())
        .map(drop)
}

fn both_versions(docker: &Docker, server: &NfsServer) -> Result<()> {
    create(docker, server, "four", "vers=4,rw", "a")?;
    create(docker, server, "three", "vers=3,noatime", "b")?;
    create(docker, server, "read", "vers=4.1,ro", "a")?;
    let place = docker.ok(&["volume", "inspect", "--format", "{{.Mountpoint}}", "four"])?;
    let export = server.export();
    equal(
        "place",
        place,
        format!("{}:{}/a", server.address, export.display()),
    )?;
    // Each of two containers waits for what the other writes: both have the volume at once.
    let script = "set -e; grep -E ' /(four|three) ' /proc/mounts; \
        echo one > /four/1; chown 7:8 /four/1; mkdir /three/d; echo x > /three/d/f; \
        touch /again/no 2>&1 && exit 1; touch /read/no 2>&1 && exit 1; \
        timeout 60 sh -c 'until [ -e /four/2 ]; do sleep 0.2; done'; cat /four/2";
    let one = docker.ok(&[
        "run",
        "-d",
        "-v",
        "four:/four",
        "-v",
        "four:/again:ro",
        "-v",
        "three:/three:nocopy",
        "-v",
        "read:/read",
        BUSYBOX,
        "sh",
        "-c",
        script,
    ])?;
    let gone = docker.container(&one);
    let other =
        "timeout 60 sh -c 'until [ -s /v/1 ]; do sleep 0.2; done'; cat /v/1; echo two > /v/2";
    // An address that is a name to the endpoint, and a part of the volume.
    let seen = docker.ok(&["run", "--rm", "-v", "four:/v", BUSYBOX, "sh", "-c", other])?;
    equal("what the first wrote", seen, "one".into())?;
    equal("exit", docker.ok(&["wait", &one])?, "0".into())?;
    let told = docker.ok(&["logs", &one])?;
    for part in [
        "nfs4 rw,",
        "vers=4.2",
        "nfs rw,",
        "vers=3",
        "noatime",
        "local_lock=all",
        "two",
    ] {
        holds(&told, part)?;
    }
    equal("refusals", told.matches("Read-only file system").count(), 2)?;
    let file = std::fs::metadata(export.join("a/1"))?;
    equal("owner", (file.uid(), file.gid()), (7, 8))?;
    equal(
        "the server's file",
        std::fs::read_to_string(export.join("b/d/f"))?,
        "x\n".into(),
    )?;
    // Away from its server a file is not found, but refused.
    let error = docker
        .run(&["cp", &format!("{one}:/four/1"), "-"])?
        .errors();
    holds(&error, "is on an NFS server")?;
    let in_use = docker.run(&["volume", "rm", "four"])?.errors();
    holds(&in_use, "volume is in use")?;
    drop(gone);
    docker.ok(&["volume", "rm", "four", "three", "read"])?;
    ensure!(
        export.join("a/1").exists(),
        "the server's files went with the volume"
    );
    Ok(())
}

/// An empty folder gets what the image has there, and only an empty one.
fn filled(docker: &Docker, server: &NfsServer) -> Result<()> {
    create(docker, server, "fill", "vers=4", "c")?;
    let script = "ls /etc; echo more > /etc/more";
    let listed = docker.ok(&[
        "run",
        "--rm",
        "-v",
        "fill:/etc",
        BUSYBOX,
        "sh",
        "-c",
        script,
    ])?;
    holds(&listed, "passwd")?;
    ensure!(server.export().join("c/passwd").exists());
    std::fs::remove_file(server.export().join("c/passwd"))?;
    let script = "ls /x; ls /part";
    let part = "type=volume,source=fill,target=/part,volume-subpath=sub";
    std::fs::create_dir(server.export().join("c/sub"))?;
    std::fs::write(server.export().join("c/sub/inner"), "")?;
    let args = [
        "run", "--rm", "-v", "fill:/x", "--mount", part, BUSYBOX, "sh", "-c", script,
    ];
    let listed = docker.ok(&args)?;
    holds(&listed, "more")?;
    holds(&listed, "inner")?;
    ensure!(!listed.contains("passwd"), "filled again: {listed}");
    docker.ok(&["volume", "rm", "fill"]).map(drop)
}

/// What cannot be reached is an error that says where it was to be, and why not.
fn unreachable(docker: &Docker, server: &NfsServer) -> Result<()> {
    create(docker, server, "there", "vers=4", "d")?;
    let run = |network: &str| -> Result<String> {
        let out = docker.run(&[
            "run",
            "--rm",
            "--network",
            network,
            "-v",
            "there:/v",
            BUSYBOX,
            "true",
        ])?;
        ensure!(out.code != 0, "it started");
        Ok(out.errors())
    };
    holds(&run("none")?, "the container has no network")?;
    docker.ok(&["network", "create", "--internal", "nfsin"])?;
    let internal = run("nfsin");
    docker.ok(&["network", "rm", "nfsin"])?;
    let internal = internal?;
    holds(&internal, "networks are internal")?;
    holds(
        &internal,
        &format!("{}:{}", server.address, server.export().display()),
    )?;
    // The server has no such folder.
    std::fs::remove_dir(server.export().join("d"))?;
    holds(&run("bridge")?, "no such file or directory")?;
    docker.ok(&["volume", "rm", "there"]).map(drop)
}

/// A server that goes takes nobody along: not the end of a container that writes to it, not the start of the next.
fn killed(docker: &Docker, server: &mut NfsServer) -> Result<()> {
    create(docker, server, "lost", "vers=4.1", "e")?;
    let script = "trap 'exit 3' TERM; echo ready; while true; do dd if=/dev/zero of=/v/f bs=64k count=16 2>/dev/null; done";
    let id = docker.ok(&["run", "-d", "-v", "lost:/v", BUSYBOX, "sh", "-c", script])?;
    let gone = docker.container(&id);
    tests::command::eventually("it writes", || Ok(server.export().join("e/f").exists()))?;
    server.kill();
    let begin = Instant::now();
    docker.ok(&["stop", "--time", "1", &id])?;
    ensure!(
        begin.elapsed() < Duration::from_secs(30),
        "docker stop took {:?}",
        begin.elapsed()
    );
    let out = docker.run(&["start", &id])?;
    ensure!(out.code != 0, "it started without its server");
    let error = out.errors();
    holds(
        &error,
        &format!("mount {}:{}/e: ", server.address, server.export().display()),
    )?;
    holds(&error, "refused")?;
    ensure!(
        begin.elapsed() < Duration::from_secs(90),
        "both took {:?}",
        begin.elapsed()
    );
    drop(gone);
    docker.ok(&["volume", "rm", "lost"]).map(drop)
}
