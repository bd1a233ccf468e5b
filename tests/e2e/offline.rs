//! Files of containers whose VMs are off, read from their disks: no VM is started for them.

use crate::files::{ready, refused, text};
use crate::hosts::{BUSYBOX, Hosts, alone, holds, load};
use anyhow::{Context, Result, ensure};
use layers::ReadAt;
use layers::gpt::Table;
use layers::vmdk::Chain;
use libtest_mimic::Trial;
use std::fs;
use std::io::Read;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tests::admin;
use tests::command::{DEADLINE, eventually, finish};
use tests::docker::Docker;
use tests::vch::{Settings, Vch, kill_process};

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![
        alone("offline::disks_tell_what_their_vms_did", || {
            let vch = Vch::start(Settings::link("vsock"))?;
            load(&vch.docker, "busybox")?;
            load(&vch.docker, "odd")?;
            cut_off(&vch)?;
            volumes(&vch)
        }),
        alone("offline::readers_and_vms_do_not_meet", readers),
    ]
}

/// Readers at a time; the next one takes a VM (endpoint, `READERS`).
const READERS: usize = 8;

/// `docker export` that has begun and waits for its client.
fn slow_export(docker: &Docker, id: &str) -> Result<Child> {
    let mut export = docker.spawn(&["export", id])?;
    let out = export.stdout.as_mut().context("its output")?;
    out.read_exact(&mut [0; 512])?;
    Ok(export)
}

/// A start waits for those who read the disk; more than a few at once do not read it; and a VM that is powered on by
/// another way is no quiet fault.
fn readers() -> Result<()> {
    let vch = Vch::start(Settings::link("vsock"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let fill =
        "dd if=/dev/urandom of=/large bs=1M count=24 2>/dev/null; touch /done; exec sleep 100000";
    let id = docker.ok(&["run", "-d", BUSYBOX, "sh", "-c", fill])?;
    let _gone = docker.container(&id);
    eventually("the file is written", || {
        Ok(docker.run(&["exec", &id, "test", "-e", "/done"])?.code == 0)
    })?;
    docker.ok(&["stop", "--time", "1", &id])?;

    let export = slow_export(docker, &id)?;
    let start = docker.spawn(&["start", &id])?;
    // Longer than a VM takes to be powered on. What waits does not show.
    std::thread::sleep(Duration::from_secs(2));
    ensure!(
        vch.qemu(&id).is_err(),
        "the VM is on while its disk is read"
    );
    let read = finish(export, "docker export".to_owned(), b"", DEADLINE)?;
    ensure!(
        read.code == 0 && read.stdout.len() > 24 << 20,
        "an export of {} bytes ended with {}",
        read.stdout.len(),
        read.code
    );
    finish(start, "docker start".to_owned(), b"", DEADLINE)?.ok()?;
    ensure!(vch.qemu(&id).is_ok(), "the VM is off after a start");
    docker.ok(&["stop", "--time", "1", &id])?;

    let other = docker.ok(&["create", BUSYBOX, "true"])?;
    let _other = docker.container(&other);
    let busy: Vec<Child> = (0..READERS)
        .map(|_| slow_export(docker, &id))
        .collect::<Result<_>>()?;
    docker.ok(&["cp", &format!("{other}:/bin/sh"), "-"])?;
    ensure!(
        vch.qemu(&other).is_ok(),
        "one more reader than there may be"
    );
    for export in busy {
        finish(export, "docker export".to_owned(), b"", DEADLINE)?.ok()?;
    }
    ensure!(vch.qemu(&id).is_err(), "a VM was started");

    let export = slow_export(docker, &id)?;
    admin::power_on(&vch, &id)?;
    let read = finish(export, "docker export".to_owned(), b"", DEADLINE)?;
    ensure!(read.code != 0, "a disk that changed was told as whole");
    // That is a start like any other.
    eventually("the container runs", || {
        Ok(docker.inspect(&id, "{{.State.Running}}")? == "true")
    })
}

/// What a container does to its image's files; all of it is on the disk in the end.
const WORK: &str = "
mkdir -p /d/e /d/gone /links; echo inside > /d/e/f; ln /d/e/f /d/hard; chown 3:4 /d/hard; chmod 4711 /d/e/f
echo x > /d/gone/x; rm -r /d/gone; touch -d @1000000000 /d/e; mkfifo /d/fifo
dd if=/dev/zero of=/d/sparse bs=1 count=1 seek=4000000 2>/dev/null; dd if=/dev/urandom of=/d/large bs=64k count=60 2>/dev/null
touch \"/d/a name
of two lines\"; i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i > /d/e/many$i; done
for f in /etc/*; do test -f $f && echo more >> $f && break; done
rm -r /var; mkdir /var; echo new > /var/only; rm /bin/vi
ln -s / /links/abs; ln -s ../../../../../.. /links/up; ln -s /../../e/upper /links/out; ln -s round /links/round
ln -s /d/e/f /links/file; ln -s ../d /links/folder";

/// What docker puts out when it is run like this, one after another.
fn outputs(docker: &Docker, commands: &[&[&str]]) -> Result<Vec<Vec<u8>>> {
    let run = |args: &&[&str]| without_mark_s_time(docker.run(args)?.ok()?.stdout);
    commands.iter().map(run).collect()
}

fn same(read: &[Vec<u8>], told: &[Vec<u8>]) -> Result<()> {
    let other = read.iter().zip(told).position(|(read, told)| read != told);
    ensure!(
        other.is_none(),
        "command {other:?}: another one is read than the VM told"
    );
    Ok(())
}

fn cut_off(vch: &Vch) -> Result<()> {
    let docker = &vch.docker;
    let (id, _gone) = ready(docker, &[], WORK)?;
    docker.ok(&["exec", &id, "sync"])?;
    let at = |path: &str| format!("{id}:{path}");
    let places = ["/d", "/links", "/links/folder/", "/links/file"].map(at);
    let commands: [&[&str]; 6] = [
        &["export", &id],
        &["diff", &id],
        &["cp", &places[0], "-"],
        &["cp", &places[1], "-"],
        &["cp", &places[2], "-"],
        &["cp", "-L", &places[3], "-"],
    ];
    let told = outputs(docker, &commands)?;
    holds(&String::from_utf8_lossy(&told[1]), "A /d/e/many400")?;
    holds(&String::from_utf8_lossy(&told[1]), "D /bin/vi")?;
    kill_process(vch.qemu(&id)?)?;
    eventually("the container is seen to be off", || {
        Ok(docker.inspect(&id, "{{.State.Running}}")? == "false")
    })?;
    ensure!(needs_recovery(vch, &id)?, "its journal has nothing in it");

    let no_vm = || {
        ensure!(vch.qemu(&id).is_err(), "a VM was started");
        Ok(())
    };
    same(&outputs(docker, &commands)?, &told)?;
    let image = docker.ok(&["commit", &id])?;
    for (path, words) in [
        ("/nope", "Could not find the file"),
        ("/links/out", "link"),
        ("/links/out/", "Could not find the file"),
        ("/links/abs/e/upper", "Could not find the file"),
        ("/links/up/l", "Could not find the file"),
        ("/links/round/", "too many levels of symbolic links"),
        ("/d/e/f/", "not a directory"),
    ] {
        if words == "link" {
            docker.run(&["cp", &at(path), "-"])?.ok()?;
        } else {
            holds(&refused(docker, &["cp", &at(path), "-"])?, words)?;
        }
    }
    no_vm()?;
    let look = "cat /d/hard /var/only; stat -c '%a %h %u' /d/e/f; ls /var /bin/vi /d/gone 2>&1 | grep -c o";
    let out = docker.ok(&["run", "--rm", &image, "sh", "-c", look])?;
    docker.ok(&["rmi", &image])?;
    holds(&out, "inside\nnew\n4711 2 3")?;

    // A copy that its client does not take up: a start would wait for it, a removal ends it.
    let slow = docker.spawn(&["export", &id])?;
    // Writing takes the VM, which waits for nobody here: what it writes is read by the next one.
    let dir = TempDir::new()?;
    let file = dir.path().join("in");
    fs::write(&file, "from outside\n")?;
    let other = docker.ok(&["create", "mooring-test/odd", "true"])?;
    let whole = docker.run(&["export", &other])?.ok()?.stdout;
    docker.ok(&["cp", text(&file)?, &format!("{other}:/in")])?;
    let told = outputs(docker, &[&["export", &other]])?;
    eventually("that VM is off again", || Ok(vch.qemu(&other).is_err()))?;
    same(&outputs(docker, &[&["export", &other]])?, &told)?;
    ensure!(vch.qemu(&other).is_err(), "a VM was started");
    ensure!(whole.len() > 1 << 20, "an image of {} bytes", whole.len());
    docker.ok(&["rm", &other])?;
    no_vm()?;
    docker.ok(&["rm", &id])?;
    let outcome = finish(slow, "docker export".to_owned(), b"", DEADLINE)?;
    ensure!(outcome.code != 0, "a copy outlived its container");
    Ok(())
}

fn volumes(vch: &Vch) -> Result<()> {
    let docker = &vch.docker;
    let mounts = [
        "-v",
        "off-data:/to-data",
        "-v",
        "off-part:/mnt/x",
        "-v",
        "/empty",
    ];
    // The volume's path is a link to one that is made by the first boot.
    let image = docker.ok(&["create", "mooring-test/busybox", "sh"])?;
    let dir = TempDir::new()?;
    std::os::unix::fs::symlink("/srv/data", dir.path().join("to-data"))?;
    docker.ok(&[
        "cp",
        text(&dir.path().join("to-data"))?,
        &format!("{image}:/"),
    ])?;
    docker.ok(&["commit", &image, "off-image"])?;
    docker.ok(&["rm", &image])?;
    let script = "echo v > /srv/data/f; ln /srv/data/f /srv/data/g; ln -s /srv/data/f /link; echo x > /mnt/x/y; touch /ready; exec sleep 100000";
    let run = [
        &["run", "-d"],
        &mounts[..],
        &["off-image", "sh", "-c", script],
    ]
    .concat();
    let id = docker.ok(&run)?;
    let _gone = docker.container(&id);
    eventually("the container's script is done", || {
        Ok(docker.run(&["exec", &id, "test", "-e", "/ready"])?.code == 0)
    })?;
    docker.ok(&["exec", &id, "sync"])?;
    let at = |path: &str| format!("{id}:{path}");
    let places = ["/srv", "/to-data/", "/link", "/mnt", "/empty"].map(at);
    let commands: [&[&str]; 7] = [
        &["cp", &places[0], "-"],
        &["cp", &places[1], "-"],
        &["cp", &places[2], "-"],
        &["cp", "-L", &places[2], "-"],
        &["cp", &places[3], "-"],
        &["cp", &places[4], "-"],
        &["export", &id],
    ];
    let told = outputs(docker, &commands)?;
    kill_process(vch.qemu(&id)?)?;
    eventually("the container is seen to be off", || {
        Ok(docker.inspect(&id, "{{.State.Running}}")? == "false")
    })?;
    same(&outputs(docker, &commands)?, &told)?;
    ensure!(vch.qemu(&id).is_err(), "a VM was started");
    // Another container writes to one of them: what is not on that one is read all the same.
    let writer = [
        "run",
        "-d",
        "-v",
        "off-data:/d",
        "mooring-test/busybox",
        "sleep",
        "100000",
    ];
    let writer = docker.ok(&writer)?;
    holds(
        &refused(docker, &["cp", &at("/srv/data/f"), "-"])?,
        "volume off-data is in use by container",
    )?;
    docker.run(&["cp", &at("/bin/sh"), "-"])?.ok()?;
    ensure!(vch.qemu(&id).is_err(), "a VM was started");
    docker.ok(&["rm", "-f", &writer]).map(drop)
}

/// The mark that Docker has in each container is made anew at each boot: with the time of that.
fn without_mark_s_time(mut tar: Vec<u8>) -> Result<Vec<u8>> {
    for header in tar.chunks_exact_mut(512) {
        if header.starts_with(b".dockerenv\0") {
            header[136..156].fill(0);
        }
    }
    Ok(tar)
}

/// Whether the file system that a container writes to was cut off: `needs_recovery` of the superblock's incompatible features.
fn needs_recovery(vch: &Vch, id: &str) -> Result<bool> {
    let leaf = vch
        .vch_folder()?
        .join("containers")
        .join(id)
        .join("leaf.vmdk");
    let chain = Chain::open_files(&vch.datastore(), leaf.strip_prefix(vch.datastore())?)?;
    let partitions = Table::read(&chain)?.partitions;
    let ephemeral = &partitions[partitions.len().checked_sub(2).context("partitions")?];
    let mut features = [0; 4];
    chain.read_exact_at(ephemeral.start + 1024 + 0x60, &mut features)?;
    Ok(u32::from_le_bytes(features) & 4 != 0)
}
