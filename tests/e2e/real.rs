//! Real programs: Debian's redis and nginx out of a real registry; and every file of an image, compared with what umoci unpacks.

use crate::hosts::{Hosts, Link, equal, holds, load, on, on_both};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tests::command;
use tests::docker::Docker;

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = Vec::new();
    let h = hosts.clone();
    all.push(on(
        hosts,
        Link::Vsock,
        "real::redis_answers_and_stops_with_its_own_message",
        move |docker| {
            let reference = h.registry()?.push("debian")?;
            docker.ok(&["pull", &reference])?;
            redis(docker, &reference)
        },
    ));
    all.extend(on_both(hosts, "real::nginx_answers", nginx));
    all.push(on(
        hosts,
        Link::Vsock,
        "real::every_file_of_debian_is_as_umoci_unpacks_it",
        |d| compare(d, "debian", &[]),
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "real::every_odd_file_is_as_umoci_unpacks_it",
        odd,
    ));
    all
}

fn redis(docker: &Docker, reference: &str) -> Result<()> {
    let name = "e2e-redis";
    let _gone = docker.container(name);
    docker.ok(&["run", "-d", "--name", name, reference])?;
    command::eventually("redis answers", || {
        Ok(docker.run(&["exec", name, "redis-cli", "ping"])?.text() == "PONG")
    })?;
    equal(
        "SET",
        docker.ok(&["exec", name, "redis-cli", "set", "key", "value"])?,
        "OK".into(),
    )?;
    equal(
        "GET",
        docker.ok(&["exec", name, "redis-cli", "get", "key"])?,
        "value".into(),
    )?;
    docker.ok(&["stop", "-t", "60", name])?;
    equal(
        "exit code",
        docker.inspect(name, "{{.State.ExitCode}}")?,
        "0".into(),
    )?;
    holds(&docker.ok(&["logs", name])?, "bye bye")
}

fn nginx(docker: &Docker) -> Result<()> {
    load(docker, "debian")?;
    let id = docker.ok(&[
        "run",
        "-d",
        "mooring-test/debian",
        "nginx",
        "-g",
        "daemon off;",
    ])?;
    let _gone = docker.container(&id);
    let get = "exec 3<>/dev/tcp/127.0.0.1/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3";
    command::eventually("nginx answers", || {
        Ok(docker
            .run(&["exec", &id, "bash", "-c", get])?
            .text()
            .contains("Welcome to nginx"))
    })
}

/// One line for each file, folders too: name, type and mode, owner, size or target or device, time, number of names and
/// the first of them, xattrs, digest. A name, a target and a value are bytes, and are shown as Python writes them.
const LIST: &str = r#"
import hashlib, os, stat, sys
root = sys.argv[1].encode()
# What a container has of its own, in the way of the image's or beside it: file systems of the kernel's, and what Docker
# makes where the image has nothing.
own = {b'/proc', b'/sys', b'/dev', b'/etc/hosts', b'/etc/hostname', b'/etc/resolv.conf', b'/.dockerenv'}
# Folders into which some of that is put, at the container's start.
touched = {b'/', b'/etc'}
first = {}
def show(path):
    name = path[len(root):] or b'/'
    if name in own: return False
    s = os.lstat(path)
    kind = stat.S_IFMT(s.st_mode)
    what = s.st_size if kind == stat.S_IFREG else os.readlink(path) if kind == stat.S_IFLNK else (os.major(s.st_rdev), os.minor(s.st_rdev)) if kind in (stat.S_IFCHR, stat.S_IFBLK) else ''
    # A machine that has SELinux labels what is unpacked on it.
    xattrs = sorted((n, os.getxattr(path, n, follow_symlinks=False)) for n in os.listxattr(path, follow_symlinks=False) if n != 'security.selinux')
    digest = hashlib.sha256(open(path, 'rb').read()).hexdigest() if kind == stat.S_IFREG else ''
    # A folder's number of links is its file system's business.
    links = (s.st_nlink, first.setdefault((s.st_dev, s.st_ino), name)) if kind != stat.S_IFDIR else ''
    time = s.st_mtime_ns if name not in touched else ''
    print(repr(name), oct(s.st_mode), s.st_uid, s.st_gid, repr(what), time, links, xattrs, digest, sep='\t')
    return kind == stat.S_IFDIR
def walk(path):
    if show(path):
        for n in sorted(os.listdir(path)): walk(path + b'/' + n)
walk(root)
"#;

/// Writes an archive of GNU tar and all that it needs to run somewhere else.
const PACK: &str = r#"
set -e
tar=$(command -v tar)
exec "$tar" -chPf - --transform='s,.*/,,' "$tar" $(ldd "$tar" | grep -o '/[^ ]*')
"#;

/// Unpacks that, and with it writes an archive of all files. Names are bytes to it, whatever the image's locale is.
const TAKE: &str = "mkdir /.tar && tar -xf - -C /.tar && LC_ALL=C exec /.tar/ld-linux-x86-64.so.2 --library-path /.tar /.tar/tar \
    --xattrs --xattrs-include='*' --format=pax --numeric-owner --check-links --one-file-system \
    --exclude=./proc --exclude=./sys --exclude=./dev --exclude=./.tar -cf - -C / .";

fn list(script: &Path, root: &Path) -> Result<BTreeMap<String, String>> {
    let mut list = Command::new("python3");
    list.arg(script).arg(root);
    let out = command::run(list, b"", command::DEADLINE)?.ok()?;
    let line = |line: &str| {
        let (name, rest) = line.split_once('\t').context("a line of the list")?;
        Ok((name.to_owned(), rest.to_owned()))
    };
    String::from_utf8(out.stdout)?.lines().map(line).collect()
}

/// A value of the list that is another one than umoci's unpacking gives: name, column, value.
type Exception = (String, usize, String);

// Columns behind the name.
const TIME: usize = 4;
const LINKS: usize = 5;

fn odd(docker: &Docker) -> Result<()> {
    let mut exceptions: Vec<Exception> = Vec::new();
    // The time of folders for which the topmost layer that puts something into them has no entry. umoci leaves them that
    // of its unpacking; here they look as in the layer below (decision 11), and are of 1970 where none has them.
    exceptions.push(("b'/odd'".into(), TIME, "1700000000000000000".into()));
    let deep = format!("/{}", "d".repeat(60));
    exceptions.extend((1..12).map(|n| (format!("b'/odd{}'", deep.repeat(n)), TIME, "0".into())));
    // GNU tar makes a file for each name of one that is neither regular nor a link.
    let names = ["/odd/fifo", "/odd/hardlink-fifo"];
    exceptions.extend(names.map(|n| (format!("b'{n}'"), LINKS, format!("(1, b'{n}')"))));
    compare(docker, "odd", &exceptions)?;
    let image = "mooring-test/odd";
    let inodes = docker.ok(&[
        "run", "--rm", image, "stat", "-c", "%h %i", names[0], names[1],
    ])?;
    let (one, other) = inodes.split_once('\n').context("two inodes")?;
    equal("the inode of two names", one, other)?;
    holds(one, "2 ")
}

fn compare(docker: &Docker, image: &str, exceptions: &[Exception]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let script = dir.path().join("list.py");
    std::fs::write(&script, LIST)?;
    let mut unpack = Command::new("umoci");
    unpack
        .args(["unpack", "--image"])
        .arg(format!("{}:latest", tests::places::image(image).display()))
        .arg(dir.path().join("b"));
    command::run(unpack, b"", command::DEADLINE)?.ok()?;
    let mut should = list(&script, &dir.path().join("b/rootfs"))?;
    for (name, column, value) in exceptions {
        let line = should.get_mut(name).with_context(|| name.clone())?;
        let mut columns: Vec<&str> = line.split('\t').collect();
        columns[*column] = value;
        *line = columns.join("\t");
    }

    // Neither image has Python, and busybox's tar knows neither xattrs nor parts of a second; a listing program of our own
    // would be one more thing to trust. So the files come out as an archive that the machine's GNU tar makes inside, and
    // the same Python reads them here.
    let mut pack = Command::new("sh");
    pack.args(["-c", PACK]);
    let tar = command::run(pack, b"", command::DEADLINE)?.ok()?.stdout;
    load(docker, image)?;
    let reference = format!("mooring-test/{image}");
    let got = command::run(
        docker.command(&["run", "--rm", "-i", &reference, "sh", "-c", TAKE]),
        &tar,
        Duration::from_secs(600),
    )?;
    // It says which files changed while it read them, and which have more names than it met.
    ensure!(
        got.code == 0 && got.stderr.is_empty(),
        "tar in the VM exited with {}: {}",
        got.code,
        got.errors()
    );
    let out = dir.path().join("out");
    std::fs::create_dir(&out)?;
    let mut untar = Command::new("tar");
    untar
        .env("LC_ALL", "C")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner"])
        .args(["-xpf", "-", "-C"])
        .arg(&out);
    command::run(untar, &got.stdout, command::DEADLINE)?.ok()?;
    differences(&list(&script, &out)?, &should)
}

fn differences(is: &BTreeMap<String, String>, should: &BTreeMap<String, String>) -> Result<()> {
    let mut found = Vec::new();
    for (name, line) in should {
        match is.get(name) {
            None => found.push(format!("missing: {name}")),
            Some(other) if other != line => {
                found.push(format!("{name}:\n  is     {other}\n  should {line}"))
            }
            Some(_) => {}
        }
    }
    found.extend(
        is.keys()
            .filter(|n| !should.contains_key(*n))
            .map(|n| format!("too many: {n}")),
    );
    ensure!(
        should.len() > 1000,
        "only {} files to compare",
        should.len()
    );
    ensure!(
        found.is_empty(),
        "{} differences, the first:\n{}",
        found.len(),
        found[..found.len().min(10)].join("\n")
    );
    Ok(())
}
