//! Real programs: Debian's redis and nginx out of a real registry; and every file of an image, compared with what umoci unpacks.

use crate::hosts::{Hosts, Link, equal, holds, load, on, on_both};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
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
        |d| compare(d, "debian"),
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "real::every_odd_file_is_as_umoci_unpacks_it",
        |d| compare(d, "odd"),
    ));
    all
}

fn redis(docker: &Docker, reference: &str) -> Result<()> {
    let name = "e2e-redis";
    let _gone = docker.container(name);
    docker.ok(&["run", "-d", "--name", name, reference])?;
    tests::command::eventually("redis answers", || {
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
    tests::command::eventually("nginx answers", || {
        Ok(docker
            .run(&["exec", &id, "bash", "-c", get])?
            .text()
            .contains("Welcome to nginx"))
    })
}

/// One line for each file: path, type, mode, owner, size or target, time, links, xattrs, hash.
const LIST: &str = r#"
import hashlib, os, stat, sys
root = sys.argv[1].encode()
skip = {b'/proc', b'/sys', b'/dev', b'/etc/hosts', b'/etc/hostname', b'/etc/resolv.conf', b'/.dockerenv'}
def show(path):
    name = path[len(root):] or b'/'
    if name in skip: return False
    s = os.lstat(path)
    kind = stat.S_IFMT(s.st_mode)
    what = s.st_size if kind == stat.S_IFREG else os.readlink(path) if kind == stat.S_IFLNK else (os.major(s.st_rdev), os.minor(s.st_rdev)) if kind in (stat.S_IFCHR, stat.S_IFBLK) else ''
    xattrs = sorted((n, os.getxattr(path, n, follow_symlinks=False)) for n in os.listxattr(path, follow_symlinks=False) if not n.startswith('trusted.overlay') and not n.startswith('user.rootlesscontainers') and n != 'security.selinux')
    digest = hashlib.sha256(open(path, 'rb').read()).hexdigest()[:16] if kind == stat.S_IFREG else ''
    links = s.st_nlink if kind != stat.S_IFDIR else 0
    time = s.st_mtime_ns if name != b'/' and name != b'/etc' else 0
    print(repr(name), oct(s.st_mode), s.st_uid, s.st_gid, repr(what), time, links, xattrs, digest, sep='\t')
    return kind == stat.S_IFDIR
def walk(path):
    if show(path):
        for n in sorted(os.listdir(path)): walk(path + b'/' + n)
walk(root)
"#;

fn lines(text: &[u8]) -> BTreeMap<String, String> {
    String::from_utf8_lossy(text)
        .lines()
        .filter_map(|l| l.split_once('\t'))
        .map(|(n, rest)| (n.into(), rest.into()))
        .collect()
}

fn compare(docker: &Docker, image: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut unpack = Command::new("umoci");
    unpack
        .args(["unpack", "--image"])
        .arg(format!("{}:latest", tests::places::image(image).display()))
        .arg(dir.path().join("b"));
    tests::command::run(unpack, b"", tests::command::DEADLINE)?.ok()?;
    let script = dir.path().join("list.py");
    std::fs::write(&script, LIST)?;
    let mut list = Command::new("python3");
    list.arg(&script).arg(dir.path().join("b/rootfs"));
    let should = tests::command::run(list, b"", tests::command::DEADLINE)?
        .ok()?
        .stdout;

    // Neither image has Python; a static listing program would be one more thing to trust. So the files go out as a
    // tar that busybox or GNU tar makes inside, and the same Python reads them here.
    load(docker, image)?;
    let out = dir.path().join("out");
    std::fs::create_dir(&out)?;
    let reference = format!("mooring-test/{image}");
    let tar = if image == "debian" {
        "tar --xattrs --xattrs-include='*' --format=pax --numeric-owner --one-file-system --exclude=./proc --exclude=./sys --exclude=./dev -cf - -C / ."
    } else {
        // Busybox tar knows neither xattrs nor nanoseconds nor long names with newlines: use stat for what it can tell.
        return compare_by_stat(docker, &reference, &should);
    };
    let got = docker.run_within(
        &["run", "--rm", &reference, "sh", "-c", tar],
        std::time::Duration::from_secs(600),
    )?;
    ensure!(
        got.code == 0 || got.errors().contains("file changed"),
        "tar in the VM: {}",
        got.errors()
    );
    let mut untar = Command::new("tar");
    untar
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "-xpf",
            "-",
            "-C",
        ])
        .arg(&out);
    tests::command::run(untar, &got.stdout, tests::command::DEADLINE)?.ok()?;
    let mut list = Command::new("python3");
    list.arg(&script).arg(&out);
    let is = tests::command::run(list, b"", tests::command::DEADLINE)?
        .ok()?
        .stdout;
    differences(&lines(&is), &lines(&should))
}

fn compare_by_stat(docker: &Docker, reference: &str, should: &[u8]) -> Result<()> {
    // name, mode in hex, uid, gid, size, mtime in seconds, links; NUL-separated names keep odd ones whole.
    let script = "find /odd ! -type d -print0 | xargs -0 stat -c '%f %u %g %s %Y %h %t %T %n'; find /odd -type f -print0 | sort -z | xargs -0 sha256sum";
    let got = docker
        .run(&["run", "--rm", reference, "sh", "-c", script])?
        .ok()?;
    let text = String::from_utf8_lossy(&got.stdout).into_owned();
    let should_lines = lines(should);
    let mut seen = 0;
    for line in text.lines() {
        let f: Vec<&str> = line.splitn(9, ' ').collect();
        let [mode, uid, gid, size, time, links, major, minor, name] = f[..] else {
            continue;
        };
        if !name.starts_with("/odd") || name.contains('\u{fffd}') {
            continue;
        }
        let Some(expected) = should_lines.get(&format!("b'{name}'")) else {
            continue;
        };
        let e: Vec<&str> = expected.split('\t').collect();
        let mode = u32::from_str_radix(mode, 16)?;
        equal(
            &format!("mode of {name}"),
            format!("0o{mode:o}"),
            e[0].to_owned(),
        )?;
        equal(&format!("owner of {name}"), (uid, gid), (e[1], e[2]))?;
        match mode & 0o170_000 {
            0o100_000 => equal(&format!("size of {name}"), size, e[3])?,
            0o020_000 => equal(
                &format!("device {name}"),
                format!("({major}, {minor})"),
                e[3].to_owned(),
            )?,
            _ => {}
        }
        let nanos: i128 = e[4].parse()?;
        equal(
            &format!("time of {name}"),
            time.parse::<i128>()?,
            nanos.div_euclid(1_000_000_000),
        )?;
        equal(&format!("links of {name}"), links, e[5])?;
        seen += 1;
    }
    ensure!(seen > 3000, "only {seen} files were compared");
    for line in text.lines() {
        if let Some((hash, name)) = line.split_once("  ")
            && let Some(expected) = should_lines.get(&format!("b'{name}'"))
        {
            equal(
                &format!("content of {name}"),
                Some(&hash[..16]),
                expected.rsplit('\t').next(),
            )?;
        }
    }
    Ok(())
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
