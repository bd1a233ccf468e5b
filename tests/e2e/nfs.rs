//! Volumes on an NFS server, which a container's VM mounts over the container's own network.

use crate::hosts::{BUSYBOX, Hosts, alone, equal, holds, load};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::command::eventually;
use tests::docker::Docker;
use tests::nfs::NfsServer;
use tests::vch::{Settings, Vch};

pub fn tests(_hosts: &Arc<Hosts>) -> Vec<Trial> {
    vec![alone("volumes::on_an_nfs_server", || {
        let mut server = NfsServer::start()?;
        // A host of its own: it has stores on this server.
        let mut settings = Settings::link("vsock");
        for (name, options) in [("nas", ""), ("old", "?vers=3&uid=0&gid=0")] {
            std::fs::create_dir(server.export().join(name))?;
            let (address, export) = (&server.address, server.export());
            let store = format!("nfs://{address}{}/{name}{options}:{name}", export.display());
            settings.more.extend(["--volume-store".into(), store]);
        }
        let vch = Vch::start(settings)?;
        let docker = &vch.docker;
        load(docker, "busybox")?;
        stores(docker, &server)?;
        swept(&vch, &server)?;
        both_versions(docker, &server)?;
        filled(docker, &server)?;
        unreachable(docker, &server)?;
        killed(docker, &mut server)
    })]
}

/// The one folder of the host's in a store.
fn folder(server: &NfsServer, store: &str) -> Result<PathBuf> {
    let mut all = std::fs::read_dir(server.export().join(store))?;
    let first = all.next().context("nothing is in the store")??.path();
    ensure!(all.next().is_none(), "more than one folder is in {store}");
    Ok(first)
}

/// Many files, a deep folder, and a link that leads out.
fn litter(folder: &Path, outside: &Path) -> Result<()> {
    std::fs::create_dir_all(folder.join("a/b/c/d/e/f/g/h/i/j/k"))?;
    std::fs::create_dir_all(folder.join("z/y"))?;
    // More than a page of each protocol's.
    for n in 0..1200 {
        let name = format!("a file with a name that takes some room, number {n}");
        std::fs::write(folder.join(name), "")?;
    }
    std::fs::write(folder.join("a/b/file"), "x")?;
    Ok(symlink(outside, folder.join("out"))?)
}

/// A volume in a store is a folder that the endpoint makes and deletes, and nothing beside it.
fn stores(docker: &Docker, server: &NfsServer) -> Result<()> {
    let outside = server.export().join("outside");
    std::fs::create_dir(&outside)?;
    std::fs::write(outside.join("kept"), "")?;
    let create = |store: &str, more: &[&str], name: &str| {
        let store = format!("VolumeStore={store}");
        docker.run(&[&["volume", "create", "--opt", &store], more, &[name]].concat())
    };
    for (store, more, why) in [
        ("no", &[][..], "this host has default, nas, old"),
        (
            "nas",
            &["--opt", "Capacity=1G"],
            "has the room that there is",
        ),
    ] {
        let out = create(store, more, "refused")?;
        ensure!(out.code != 0, "it was created");
        holds(&out.errors(), why)?;
    }
    for store in ["nas", "old"] {
        create(store, &[], "first")?.ok()?;
        let at = folder(server, store)?;
        let place = docker.ok(&["volume", "inspect", "--format", "{{.Mountpoint}}", "first"])?;
        let want = format!("{}:{}/first", server.address, at.display());
        equal("place", place, want)?;
        litter(&at.join("first"), &outside)?;
        docker.ok(&["volume", "rm", "first"])?;
        equal("what is left", std::fs::read_dir(&at)?.count(), 0)?;
        // What an endpoint that was killed has left is not the next one's.
        litter(&at.join("again"), &outside)?;
        create(store, &[], "again")?.ok()?;
        equal("new", std::fs::read_dir(at.join("again"))?.count(), 0)?;
        docker.ok(&["volume", "rm", "again"])?;
    }
    ensure!(outside.join("kept").exists(), "a link was followed");
    Ok(())
}

/// What is there without a record when the endpoint starts goes; what has one stays.
fn swept(vch: &Vch, server: &NfsServer) -> Result<()> {
    let docker = &vch.docker;
    for store in ["nas", "old"] {
        let option = format!("VolumeStore={store}");
        docker.ok(&["volume", "create", "--opt", &option, store])?;
        let at = folder(server, store)?;
        std::fs::write(at.join(store).join("kept"), "")?;
        std::fs::create_dir_all(at.join("left/deep"))?;
        std::fs::write(at.join("left/deep/file"), "x")?;
    }
    vch.kill("endpoint")?;
    vch.up()?;
    for store in ["nas", "old"] {
        let at = folder(server, store)?;
        eventually("what was left is deleted", || Ok(!at.join("left").exists()))?;
        ensure!(at.join(store).join("kept").exists(), "a volume is gone");
        docker.ok(&["volume", "rm", store])?;
    }
    Ok(())
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
    // Linux takes what it knows of a folder for true for up to a minute: too long for those who wait for a file in it.
    create(docker, server, "four", "vers=4,rw,actimeo=1", "a")?;
    create(docker, server, "three", "vers=3,noatime", "b")?;
    create(docker, server, "read", "vers=4.1,ro", "a")?;
    docker.ok(&["volume", "create", "--opt", "VolumeStore=nas", "stored"])?;
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
        echo stored > /etc/one; \
        timeout 60 sh -c 'until [ -e /four/2 ]; do sleep 0.2; done'; cat /four/2; cat /etc/two";
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
        "-v",
        "stored:/etc",
        BUSYBOX,
        "sh",
        "-c",
        script,
    ])?;
    let gone = docker.container(&one);
    let other = "timeout 60 sh -c 'until [ -s /v/1 ]; do sleep 0.2; done'; cat /v/1; ls /s; cat /s/one; \
         echo too > /s/two; echo two > /v/2";
    let args = ["run", "--rm", "-v", "four:/v", "-v", "stored:/s", BUSYBOX];
    let seen = docker.ok(&[&args[..], &["sh", "-c", other]].concat())?;
    // The store's volume was filled from the first one's image.
    for part in ["one\n", "passwd\n", "\nstored"] {
        holds(&seen, part)?;
    }
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
        "too",
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
    docker.ok(&["volume", "rm", "four", "three", "read", "stored"])?;
    let left = std::fs::read_dir(folder(server, "nas")?)?.count();
    equal("what is left in the store", left, 0)?;
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
    docker.ok(&["volume", "rm", "lost"])?;
    let args = ["volume", "create", "--opt", "VolumeStore=nas", "none"];
    let out = docker.run(&args)?;
    ensure!(out.code != 0, "created without the server");
    holds(&out.errors(), "cannot reach the volume store \"nas\" at ")
}
