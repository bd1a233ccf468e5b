//! A container's files: `docker cp`, `diff` and `export`, of running containers and of others.

use crate::faults::damage;
use crate::hosts::{BUSYBOX, Hosts, Link, actions, alone, equal, holds, load, on, on_both};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;
use tests::admin;
use tests::command::{DEADLINE, eventually, finish};
use tests::docker::{Container, Docker};
use tests::vch::{Settings, Vch};

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = Vec::new();
    for (name, test) in [
        ("copies_go_out_and_in", copies as fn(&Docker) -> Result<()>),
        ("of_one_that_does_not_run", stopped),
    ] {
        all.extend(on_both(hosts, &format!("files::{name}"), test));
    }
    let mut one = |name: &str, test: fn(&Docker) -> Result<()>| {
        all.push(on(hosts, Link::Vsock, &format!("files::{name}"), test));
    };
    one("slashes_mean_what_they_do_under_docker", slashes);
    one("owners_and_times_are_kept", owners);
    one("a_link_in_the_container_must_not_lead_out", links);
    one("a_link_that_is_swapped_must_not_lead_out", swapped);
    one("an_archive_must_not_lead_out", archives);
    one("what_cannot_be_copied_is_named", refusals);
    one("a_hundred_megabytes_both_ways", large);
    one("diff_and_export_show_what_changed", changes);
    one("a_copy_whose_vm_goes_ends_with_an_error", broken);
    one("volumes_in_use_are_not_touched", volumes);
    all.push(alone(
        "files::an_endpoint_that_goes_leaves_no_maintenance",
        left_behind,
    ));
    all.push(alone(
        "files::a_vm_that_does_not_come_up_for_them_says_why",
        not_up,
    ));
    all
}

/// A busybox container that has run this script and sleeps.
fn ready(docker: &Docker, options: &[&str], script: &str) -> Result<(String, Container)> {
    let script = format!("{script}\ntouch /ready; exec sleep 100000");
    let command = [&["run", "-d"], options, &[BUSYBOX, "sh", "-c", &script]].concat();
    let id = docker.ok(&command)?;
    let gone = docker.container(&id);
    eventually("the container's script is done", || {
        Ok(docker.run(&["exec", &id, "test", "-e", "/ready"])?.code == 0)
    })?;
    Ok((id, gone))
}

fn sh(docker: &Docker, id: &str, script: &str) -> Result<String> {
    docker.ok(&["exec", id, "sh", "-c", script])
}

fn refused(docker: &Docker, args: &[&str]) -> Result<String> {
    let out = docker.run(args)?;
    ensure!(out.code != 0, "docker {args:?} was taken");
    Ok(out.errors())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

/// One tar entry, whose name and link no well-meaning writer would take.
fn entry(kind: u8, name: &str, link: &str, body: &[u8]) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\x000000000\x000000000\0");
    put(124, format!("{:011o}\0", body.len()).as_bytes());
    put(136, b"00000000000\0        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().copied().map(u32::from).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block.extend_from_slice(body);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

/// `docker cp - ID:PATH` with these entries.
fn put(
    docker: &Docker,
    id: &str,
    path: &str,
    entries: &[Vec<u8>],
) -> Result<tests::command::Outcome> {
    let mut tar = entries.concat();
    tar.resize(tar.len() + 1024, 0);
    docker.run_with_input(&["cp", "-", &format!("{id}:{path}")], &tar)
}

fn copies(docker: &Docker) -> Result<()> {
    let (id, _gone) = ready(
        docker,
        &["-v", "/data"],
        "mkdir -p /d/e; echo inside > /d/e/f; ln /d/e/f /d/hard; ln -s e/f /d/soft; chmod 4711 /d/e/f; echo v > /data/v; mkfifo /d/fifo",
    )?;
    let at = |path: &str| format!("{id}:{path}");
    let dir = TempDir::new()?;
    let local = |name: &str| dir.path().join(name);
    docker.ok(&["cp", &at("/d"), text(&local("d"))?])?;
    equal(
        "file",
        fs::read_to_string(local("d/e/f"))?,
        "inside\n".into(),
    )?;
    let found = fs::metadata(local("d/e/f"))?;
    equal("mode", found.mode() & 0o7777, 0o4711)?;
    equal(
        "one inode",
        found.ino(),
        fs::metadata(local("d/hard"))?.ino(),
    )?;
    equal(
        "link",
        fs::read_link(local("d/soft"))?,
        Path::new("e/f").into(),
    )?;
    docker.ok(&["cp", &at("/data/v"), text(&local("v"))?])?;
    equal("volume", fs::read_to_string(local("v"))?, "v\n".into())?;
    let hosts = docker.run(&["cp", &at("/etc/hostname"), "-"])?.ok()?;
    holds(&String::from_utf8_lossy(&hosts.stdout), &id[..12])?;

    fs::write(local("new"), "outside\n")?;
    fs::set_permissions(local("new"), fs::Permissions::from_mode(0o751))?;
    for (to, path) in [
        ("/d/", "/d/new"),
        ("/d/other", "/d/other"),
        ("/data/in", "/data/in"),
    ] {
        docker.ok(&["cp", text(&local("new"))?, &at(to)])?;
        let shown = sh(docker, &id, &format!("cat {path}; stat -c %a {path}"))?;
        equal(path, shown, "outside\n751".into())?;
    }
    docker.ok(&["cp", text(&local("d"))?, &at("/tmp")])?;
    equal(
        "tree",
        sh(
            docker,
            &id,
            "cat /tmp/d/soft; stat -c '%a %h' /tmp/d/e/f; test -p /tmp/d/fifo && echo pipe",
        )?,
        "inside\n4711 2\npipe".into(),
    )?;
    // A file of the container's own way of seeing it is not the tether's.
    holds(
        &refused(docker, &["cp", &at("/proc/version"), "-"])?,
        "Could not find the file",
    )?;
    // The client asks for whole seconds only.
    eventually("both ways are told as events", || {
        let told = actions(docker, &format!("container={id}"))?;
        let has = |action: &str| told.iter().any(|a| a == action);
        Ok(has("archive-path") && has("extract-to-dir"))
    })
}

fn slashes(docker: &Docker) -> Result<()> {
    let (id, _gone) = ready(
        docker,
        &[],
        "mkdir -p /d/sub /there; echo x > /d/f; echo y > /file; ln -s /d /to-d; ln -s /file /to-file; ln -s /nowhere /broken",
    )?;
    let at = |path: &str| format!("{id}:{path}");
    let dir = TempDir::new()?;
    let local = |name: &str| dir.path().join(name);
    // A folder to a name that is not there takes that name; to one that is there goes into it.
    docker.ok(&["cp", &at("/d"), text(&local("one"))?])?;
    ensure!(local("one/f").exists());
    docker.ok(&["cp", &at("/d"), text(&local("one"))?])?;
    ensure!(local("one/d/f").exists());
    // What is in it, with `/.`.
    fs::create_dir(local("two"))?;
    docker.ok(&["cp", &at("/d/."), text(&local("two"))?])?;
    ensure!(local("two/f").exists() && local("two/sub").is_dir());
    // A link itself; with a slash what it leads to; with -L, too.
    docker.ok(&["cp", &at("/to-d"), text(&local("link"))?])?;
    ensure!(local("link").is_symlink());
    docker.ok(&["cp", &at("/to-d/"), text(&local("followed"))?])?;
    ensure!(local("followed/f").exists());
    docker.ok(&["cp", "-L", &at("/to-file"), text(&local("content"))?])?;
    equal(
        "content",
        fs::read_to_string(local("content"))?,
        "y\n".into(),
    )?;
    // Into the container: through a link to a folder, and over a link to a file.
    fs::write(local("in"), "in\n")?;
    let from = local("in");
    let from = text(&from)?;
    docker.ok(&["cp", from, &at("/to-d")])?;
    docker.ok(&["cp", from, &at("/to-file")])?;
    equal(
        "through links",
        sh(docker, &id, "cat /d/in /file")?,
        "in\nin".into(),
    )?;
    holds(
        &refused(docker, &["cp", from, &at("/nothing/")])?,
        "no such directory",
    )?;
    holds(
        &refused(docker, &["cp", from, &at("/file/")])?,
        "no such directory",
    )?;
    holds(
        &refused(docker, &["cp", text(&local("one"))?, &at("/file")])?,
        "cannot copy directory",
    )?;
    docker.ok(&["cp", text(&local("one"))?, &at("/fresh")])?;
    docker.ok(&["cp", text(&local("one"))?, &at("/there")])?;
    docker.ok(&["cp", &format!("{}/.", text(&local("one"))?), &at("/there")])?;
    sh(
        docker,
        &id,
        "test -f /fresh/f && test -f /there/one/f && test -f /there/f",
    )
    .map(drop)
}

fn owners(docker: &Docker) -> Result<()> {
    let (id, _gone) = ready(
        docker,
        &[],
        "echo a > /a; chown 12:34 /a; touch -d @1000000000 /a; mkdir /d; chown 5:6 /d; touch -d @1100000000 /d",
    )?;
    let at = |path: &str| format!("{id}:{path}");
    let dir = TempDir::new()?;
    let local = |name: &str| dir.path().join(name);
    // The client itself gives nothing away; what it is sent says whose it is.
    docker.ok(&["cp", "-a", &at("/a"), text(&local("a"))?])?;
    equal("time", fs::metadata(local("a"))?.mtime(), 1_000_000_000)?;
    let tar = docker.run(&["cp", &at("/a"), "-"])?.ok()?.stdout;
    equal("owner", &tar[108..124], &b"0000014\x000000042\0"[..])?;
    fs::create_dir(local("t"))?;
    fs::write(local("t/f"), "x")?;
    for (path, uid, time) in [("t/f", 1234, 1_200_000_000u64), ("t", 77, 1_300_000_000)] {
        chown(local(path), Some(uid), Some(uid + 1))?;
        let time = UNIX_EPOCH + Duration::from_secs(time);
        fs::File::open(local(path))?.set_modified(time)?;
    }
    docker.ok(&["cp", "-a", text(&local("t"))?, &at("/t")])?;
    equal(
        "in",
        sh(docker, &id, "stat -c '%u %g %Y' /t /t/f")?,
        "77 78 1300000000\n1234 1235 1200000000".into(),
    )?;
    // As Docker: where the container has a user of its own, `-a` gives all to that one.
    let id = docker.ok(&["run", "-d", "--user", "9:10", BUSYBOX, "sleep", "100000"])?;
    let _gone = docker.container(&id);
    docker.ok(&["cp", "-a", text(&local("t"))?, &format!("{id}:/t")])?;
    let owner = sh(docker, &id, "stat -c '%u %g' /t/f")?;
    equal("its user's", owner, "9 10".into())
}

/// What the tether has and the container must not see.
const OUTSIDE: [&str; 4] = ["f/hosts", "e/upper", "c/bin", "v"];

fn links(docker: &Docker) -> Result<()> {
    let (id, _gone) = ready(
        docker,
        &["-v", "/vol"],
        "ln -s / /abs; ln -s ../../../../../.. /up; mkdir -p /w; ln -s /../../../../ /w/deep; ln -s ../../../../../ /vol/out; echo own > /own",
    )?;
    let dir = TempDir::new()?;
    fs::write(dir.path().join("x"), "x")?;
    let file = dir.path().join("x");
    for link in ["/abs", "/up", "/w/deep", "/vol/out"] {
        for outside in OUTSIDE {
            let from = format!("{id}:{link}/{outside}");
            let error = refused(docker, &["cp", &from, "-"])?;
            holds(&error, "Could not find the file")?;
        }
        // It leads to the container's own root.
        let own = docker
            .run(&["cp", &format!("{id}:{link}/own"), "-"])?
            .ok()?;
        holds(&String::from_utf8_lossy(&own.stdout), "own\n")?;
        docker.ok(&["cp", text(&file)?, &format!("{id}:{link}/tmp/x")])?;
        sh(docker, &id, "rm /tmp/x")?;
    }
    Ok(())
}

fn swapped(docker: &Docker) -> Result<()> {
    // A folder that is a link to the tether's own folders every other moment.
    let (id, _gone) = ready(
        docker,
        &[],
        "mkdir -p /w/d /w/real; for i in 1 2 3 4 5 6 7 8 9; do echo inside > /w/real/f$i; echo inside > /w/d/f$i; done
(while :; do mv /w/d /w/x; ln -s ../../../../f /w/d; rm /w/d; mv /w/x /w/d; done) &",
    )?;
    for round in 0..12 {
        let out = docker.run(&["cp", &format!("{id}:/w"), "-"])?;
        // What changes meanwhile may be missing, or end the copy; what is outside is never in it.
        let tar = String::from_utf8_lossy(&out.stdout);
        ensure!(
            !tar.contains("localhost"),
            "round {round}: the tether's hosts file got out"
        );
        let body = vec![b'n'; 100];
        let entries: Vec<_> = (0..20)
            .map(|n| entry(b'0', &format!("d/in{n}"), "", &body))
            .collect();
        put(docker, &id, "/w", &entries)?;
    }
    // The files that the tether binds over the container's are as they were.
    let hosts = sh(docker, &id, "cat /etc/hosts; ls /f 2>&1; true")?;
    holds(&hosts, "localhost")?;
    ensure!(!hosts.contains("in0"), "{hosts}");
    let shown = docker
        .run(&["cp", &format!("{id}:/etc/hosts"), "-"])?
        .ok()?;
    holds(&String::from_utf8_lossy(&shown.stdout), "localhost")
}

fn archives(docker: &Docker) -> Result<()> {
    let (id, _gone) = ready(
        docker,
        &[],
        "mkdir -p /in/sub /out; echo safe > /out/file; ln -s /out /in/door; echo secret > /secret",
    )?;
    for (entries, words) in [
        (
            vec![entry(b'0', "../out/file", "", b"evil")],
            "is outside of",
        ),
        (
            vec![entry(b'0', "sub/../../out/file", "", b"evil")],
            "is outside of",
        ),
        (
            vec![entry(b'1', "hard", "../secret", b"")],
            "invalid hardlink",
        ),
        (vec![entry(b'2', "soft", "../out", b"")], "invalid symlink"),
    ] {
        let out = put(docker, &id, "/in", &entries)?;
        ensure!(out.code != 0, "{words}");
        holds(&out.errors(), words)?;
    }
    // A hard link's target counts from the folder, however it is written.
    let out = put(docker, &id, "/in", &[entry(b'1', "hard", "/secret", b"")])?;
    holds(&out.errors(), "Could not find the file /in")?;
    // A link in the archive, then what would go through it: inside the container all the same.
    put(
        docker,
        &id,
        "/in",
        &[
            entry(b'2', "way", "/f", b""),
            entry(b'0', "way/hosts", "", b"evil"),
        ],
    )?;
    // A folder takes the place of a link only where the client says so, which this one does not.
    let folder = [
        entry(b'5', "door/", "", b""),
        entry(b'0', "door/file", "", b"new"),
    ];
    let out = put(docker, &id, "/in", &folder)?;
    holds(&out.errors(), "cannot overwrite non-directory \"/in/door\"")?;
    let look = "cat /out/file; test -L /in/door && echo link; ls /in | grep -c hard; \
                grep -c evil /etc/hosts; true";
    equal("files", sh(docker, &id, look)?, "safe\nlink\n0\n0".into())
}

fn refusals(docker: &Docker) -> Result<()> {
    let id = docker.ok(&[
        "run",
        "-d",
        "--read-only",
        "-v",
        "/rw",
        "-v",
        "ro-files:/ro:ro",
        BUSYBOX,
        "sleep",
        "100000",
    ])?;
    let _gone = docker.container(&id);
    let dir = TempDir::new()?;
    fs::write(dir.path().join("x"), "x")?;
    let file = dir.path().join("x");
    let file = text(&file)?;
    let at = |path: &str| format!("{id}:{path}");
    for (args, words) in [
        (
            ["cp", &at("/nope"), "-"],
            format!("Could not find the file /nope in container {id}"),
        ),
        (
            ["cp", file, &at("/etc/x")],
            "container rootfs is marked read-only".to_owned(),
        ),
        (
            ["cp", file, &at("/ro/x")],
            "mounted volume is marked read-only".to_owned(),
        ),
        (
            ["cp", "no-such-container:/x", "-"],
            "No such container: no-such-container".to_owned(),
        ),
        (
            ["diff", "no-such-container", ""],
            "No such container: no-such-container".to_owned(),
        ),
    ] {
        let args: Vec<&str> = args.into_iter().filter(|a| !a.is_empty()).collect();
        holds(&refused(docker, &args)?, &words)?;
    }
    docker.ok(&["cp", file, &at("/rw/x")])?;
    let out = put(docker, &id, "/etc/passwd", &[entry(b'0', "x", "", b"x")])?;
    holds(&out.errors(), "must be a directory")?;
    let out = put(docker, &id, "/rw", &[vec![7; 512]])?;
    holds(&out.errors(), "archive cannot be unpacked")?;
    let gone = docker.ok(&["exec", &id, "ls", "/rw"])?;
    equal("volume", gone, "x".into())
}

fn large(docker: &Docker) -> Result<()> {
    let (id, _gone) = ready(docker, &["-m", "96m"], ":")?;
    let dir = TempDir::new()?;
    let (there, back) = (dir.path().join("there"), dir.path().join("back"));
    let mut content = vec![0u8; 100 << 20];
    let mut state = 1u64;
    for chunk in content.chunks_mut(8) {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    fs::write(&there, &content)?;
    let limit = Duration::from_secs(300);
    docker
        .run_within(&["cp", text(&there)?, &format!("{id}:/big")], limit)?
        .ok()?;
    docker
        .run_within(&["cp", &format!("{id}:/big"), text(&back)?], limit)?
        .ok()?;
    ensure!(fs::read(&back)? == content, "100 MiB came back changed");
    equal(
        "alive",
        docker.ok(&["exec", &id, "echo", "alive"])?,
        "alive".into(),
    )
}

fn changes(docker: &Docker) -> Result<()> {
    let (id, _gone) = ready(
        docker,
        &["-v", "/vol", "--tmpfs", "/mem"],
        "mkdir /new; echo x > /new/file; rm /bin/wc; echo y >> /etc/passwd; echo z > /vol/z; echo m > /mem/m",
    )?;
    let diff = docker.ok(&["diff", &id])?;
    let lines: Vec<&str> = diff.lines().collect();
    for line in [
        "A /new",
        "A /new/file",
        "C /bin",
        "D /bin/wc",
        "C /etc",
        "C /etc/passwd",
    ] {
        // Only what was written to in place leaves its folder as it was.
        ensure!(
            lines.contains(&line) || line == "C /etc",
            "no {line:?} in\n{diff}"
        );
    }
    for line in ["/vol/z", "/mem/m", "/proc", "/etc/hosts", "/dev"] {
        ensure!(!diff.contains(line), "{line:?} in\n{diff}");
    }
    let dir = TempDir::new()?;
    let tar = dir.path().join("all.tar");
    docker.ok(&["export", "-o", text(&tar)?, &id])?;
    let list = std::process::Command::new("tar")
        .arg("tf")
        .arg(&tar)
        .output()?;
    ensure!(
        list.status.success(),
        "{}",
        String::from_utf8_lossy(&list.stderr)
    );
    let list = String::from_utf8(list.stdout)?;
    let names: Vec<&str> = list.lines().collect();
    for name in ["new/file", "bin/busybox", "etc/passwd", "vol/", "mem/"] {
        ensure!(names.contains(&name), "no {name} in the export");
    }
    for name in ["bin/wc", "vol/z", "mem/m"] {
        ensure!(!names.contains(&name), "{name} in the export");
    }
    // One that is paused is looked at as it stands.
    docker.ok(&["pause", &id])?;
    let out = docker.run(&["cp", &format!("{id}:/new/file"), "-"])?.ok()?;
    holds(&String::from_utf8_lossy(&out.stdout), "x\n")?;
    docker.ok(&["unpause", &id])?;
    // An unchanged one has no changes.
    let (id, _gone) = {
        let id = docker.ok(&["run", "-d", BUSYBOX, "sleep", "100000"])?;
        let gone = docker.container(&id);
        (id, gone)
    };
    equal("diff of nothing", docker.ok(&["diff", &id])?, String::new())
}

fn broken(docker: &Docker) -> Result<()> {
    let (id, _gone) = ready(
        docker,
        &[],
        "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null",
    )?;
    let mut copy = docker.spawn(&["cp", &format!("{id}:/big"), "-"])?;
    let mut out = copy.stdout.take().context("its output")?;
    // It has begun, and waits for its reader.
    let mut first = [0u8; 4096];
    out.read_exact(&mut first)?;
    docker.ok(&["rm", "-f", &id])?;
    let mut rest = Vec::new();
    out.read_to_end(&mut rest)?;
    let outcome = finish(copy, "docker cp".to_owned(), b"", DEADLINE)?;
    ensure!(
        outcome.code != 0 && rest.len() < 64 << 20,
        "a copy of {} bytes from a VM that is gone ended with {}",
        rest.len(),
        outcome.code
    );
    Ok(())
}

fn stopped(docker: &Docker) -> Result<()> {
    let id = docker.ok(&[
        "create",
        "-v",
        "/vol",
        BUSYBOX,
        "sh",
        "-c",
        "cat /in /vol/v 2>/dev/null; echo ran > /ran; echo w > /vol/w; ip route | grep -c default",
    ])?;
    let _gone = docker.container(&id);
    let at = |path: &str| format!("{id}:{path}");
    let dir = TempDir::new()?;
    let local = |name: &str| dir.path().join(name);
    fs::write(local("in"), "from outside\n")?;
    // Created, never run.
    equal("nothing changed", docker.ok(&["diff", &id])?, String::new())?;
    docker.ok(&["cp", text(&local("in"))?, &at("/in")])?;
    fs::write(local("v"), "in a volume\n")?;
    docker.ok(&["cp", text(&local("v"))?, &at("/vol/v")])?;
    equal(
        "state",
        docker.inspect(&id, "{{.State.Status}} {{.State.Running}}")?,
        "created false".into(),
    )?;
    // A start waits for the VM, and finds what was copied; its network is there.
    let out = docker.ok(&["start", "-a", &id])?;
    equal(
        "the process saw",
        out,
        "from outside\nin a volume\n1".into(),
    )?;
    let before = docker.inspect(&id, "{{json .State}}")?;
    let since = docker.ok(&["info", "--format", "{{.SystemTime}}"])?;
    docker.ok(&["cp", &at("/ran"), text(&local("ran"))?])?;
    equal("ran", fs::read_to_string(local("ran"))?, "ran\n".into())?;
    let status = docker.ok(&[
        "ps",
        "-a",
        "--filter",
        &format!("id={id}"),
        "--format",
        "{{.Status}}",
    ])?;
    holds(&status, "Exited (0)")?;
    docker.ok(&["cp", &at("/vol/w"), text(&local("w"))?])?;
    let diff = docker.ok(&["diff", &id])?;
    for line in ["A /ran", "A /in"] {
        ensure!(diff.lines().any(|l| l == line), "no {line:?} in\n{diff}");
    }
    let tar = docker.run(&["export", &id])?.ok()?.stdout;
    holds(&String::from_utf8_lossy(&tar), "from outside\n")?;
    equal("state", docker.inspect(&id, "{{json .State}}")?, before)?;
    let told = docker.ok(&[
        "events",
        "--since",
        &since,
        "--until",
        "0s",
        "--filter",
        &format!("container={id}"),
        "--format",
        "{{.Action}}",
    ])?;
    for action in ["start", "die", "kill", "stop"] {
        ensure!(!told.lines().any(|l| l == action), "{action} in\n{told}");
    }
    let missing = refused(docker, &["cp", &at("/nope"), "-"])?;
    holds(&missing, "Could not find the file /nope")?;
    // In the middle of it, and a start right behind.
    docker.ok(&["start", "-a", &id])?;
    equal("log", docker.ok(&["logs", "--tail", "1", &id])?, "1".into())
}

fn volumes(docker: &Docker) -> Result<()> {
    let (writer, _gone) = ready(
        docker,
        &["--name", "files-writer", "-v", "files-shared:/data"],
        "echo 1 > /data/f",
    )?;
    let other = docker.ok(&["create", "-v", "files-shared:/data", BUSYBOX])?;
    let _other = docker.container(&other);
    let error = refused(docker, &["cp", &format!("{other}:/data/f"), "-"])?;
    holds(
        &error,
        "volume files-shared is in use by container \"/files-writer\"",
    )?;
    docker.ok(&["rm", "-f", &writer])?;
    let out = docker
        .run(&["cp", &format!("{other}:/data/f"), "-"])?
        .ok()?;
    holds(&String::from_utf8_lossy(&out.stdout), "1\n")
}

fn left_behind() -> Result<()> {
    let vch = Vch::start(Settings::link("vsock"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let id = docker.ok(&["create", BUSYBOX, "sh", "-c", "ip route | grep -c default"])?;
    let copy = docker.spawn(&["cp", &format!("{id}:/bin"), "-"])?;
    // Its VM is up, for its files.
    eventually("the VM is on", || Ok(vch.qemu(&id).is_ok()))?;
    vch.kill("endpoint")?;
    let outcome = finish(copy, "docker cp".to_owned(), b"", DEADLINE)?;
    ensure!(outcome.code != 0, "a copy outlived its endpoint");
    vch.up()?;
    equal(
        "state",
        docker.inspect(&id, "{{.State.Status}}")?,
        "created".into(),
    )?;
    eventually("the VM is off", || Ok(vch.qemu(&id).is_err()))?;
    equal("it starts", docker.ok(&["start", "-a", &id])?, "1".into())?;
    docker.ok(&["cp", &format!("{id}:/etc/passwd"), "-"])?;
    // Nobody comes back: it ends by itself.
    let copy = docker.spawn(&["cp", &format!("{id}:/bin"), "-"])?;
    eventually("the VM is on again", || Ok(vch.qemu(&id).is_ok()))?;
    vch.kill("endpoint")?;
    finish(copy, "docker cp".to_owned(), b"", DEADLINE)?;
    eventually("the VM is off by itself", || Ok(vch.qemu(&id).is_err()))
}

fn not_up() -> Result<()> {
    let vch = Vch::start(Settings::link("vsock"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let id = docker.ok(&["create", BUSYBOX, "echo", "started"])?;
    let from = format!("{id}:/etc/passwd");
    // The partition for what the container writes.
    let folder = vch.vch_folder()?.join("containers").join(&id);
    let leaf = folder.join("leaf.vmdk");
    let whole = fs::read(&leaf)?;
    damage(&vch, &leaf, 2)?;
    let error = refused(docker, &["cp", &from, "-"])?;
    holds(&error, "could not be brought up: ephemeral: mounting")?;
    equal(
        "state",
        docker.inspect(&id, "{{.State.Status}}{{.State.Error}}")?,
        "created".into(),
    )?;
    eventually("the VM is off", || Ok(vch.qemu(&id).is_err()))?;
    fs::write(&leaf, whole)?;
    docker.ok(&["cp", &from, "-"])?;
    eventually("the endpoint is done with the VM", || {
        let looked = admin::set_keys(&vch, &id, |keys| {
            let mark = keys.get("mooring.maintenance");
            ensure!(mark.is_none_or(String::is_empty), "the mark is there");
            Ok(BTreeMap::new())
        });
        Ok(looked.is_ok())
    })?;
    // Powered on by hand, with a request that is too old: it ends at once, and nothing has happened.
    admin::set_guest(&vch, &id, |config| {
        if let Some(maintenance) = &mut config.maintenance {
            maintenance.until = 1;
        }
    })?;
    admin::power_on(&vch, &id)?;
    let console = folder.join("console.log");
    eventually("the tether has refused", || {
        let told = fs::read(&console).unwrap_or_default();
        Ok(String::from_utf8_lossy(&told).contains("files is too old"))
    })?;
    eventually("the VM is off", || Ok(vch.qemu(&id).is_err()))?;
    equal(
        "state",
        docker.inspect(&id, "{{.State.Status}}")?,
        "created".into(),
    )?;
    equal(
        "it starts",
        docker.ok(&["start", "-a", &id])?,
        "started".into(),
    )
}
