//! Volumes, seen by the stock client: disks of their own that outlive containers.

use crate::hosts::{BUSYBOX, Hosts, Link, alone, equal, holds, load, on, on_both};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use std::time::Duration;
use tests::command::{DEADLINE, eventually, finish};
use tests::docker::Docker;
use tests::random::{Random, times};
use tests::vch::{Settings, Vch, kill_process};

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = on_both(hosts, "volumes::what_is_written_is_there_later", kept);
    let mut one = |name: &str, test: fn(&Docker) -> Result<()>| {
        all.push(on(hosts, Link::Vsock, &format!("volumes::{name}"), test));
    };
    one("create_list_inspect_remove_prune", administered);
    one("an_empty_volume_is_filled_from_the_image", filled);
    one("one_container_writes_or_several_read", one_writer);
    one("a_link_in_a_volume_must_not_lead_out", links);
    one(
        "anonymous_volumes_go_with_their_container_if_asked",
        anonymous,
    );
    one("another_containers_volumes_are_mounted", volumes_from);
    one("more_volumes_than_one_controller_has_units", many);
    one("a_path_of_the_host_is_refused_with_what_to_use", host_paths);
    all.push(alone(
        "volumes::a_fill_that_was_cut_short_must_not_count",
        || Random::seeded(7, cut_short),
    ));
    all.push(alone("volumes::they_survive_down_and_up", down_and_up));
    all
}

/// Runs a script in a new busybox container with these options; its standard output.
fn sh(docker: &Docker, options: &[&str], script: &str) -> Result<String> {
    docker.ok(&[&["run", "--rm"], options, &[BUSYBOX, "sh", "-c", script]].concat())
}

/// Standard error of a command that must fail.
fn refused(docker: &Docker, args: &[&str]) -> Result<String> {
    let out = docker.run(args)?;
    ensure!(out.code != 0, "docker {args:?} was taken");
    Ok(out.errors())
}

fn kept(docker: &Docker) -> Result<()> {
    sh(
        docker,
        &["-v", "kept:/data"],
        "echo first > /data/file; mkdir -m 700 /data/d",
    )?;
    equal(
        "what is in a tmpfs",
        sh(
            docker,
            &["--tmpfs", "/t", "-v", "kept:/t/db"],
            "cat /t/db/file",
        )?,
        "first".into(),
    )?;
    equal(
        "the second container's view",
        sh(
            docker,
            &["--mount", "type=volume,source=kept,target=/deep/er"],
            "cat /deep/er/file; stat -c %a /deep/er/d; ls /deep/er",
        )?,
        "first\n700\nd\nfile".into(),
    )?;
    // It is the container's, but not its devices.
    let mounted = sh(docker, &["-v", "kept:/data"], "grep ' /data ' /proc/mounts")?;
    holds(&mounted, "ext4 rw,nodev")?;
    let read_only = sh(
        docker,
        &["-v", "kept:/data:ro"],
        "cat /data/file; touch /data/x 2>&1 || true",
    )?;
    holds(&read_only, "first")?;
    holds(&read_only, "Read-only file system")?;
    docker.ok(&["volume", "rm", "kept"]).map(drop)
}

fn administered(docker: &Docker) -> Result<()> {
    let since = docker.ok(&["info", "--format", "{{.SystemTime}}"])?;
    equal(
        "name",
        docker.ok(&[
            "volume",
            "create",
            "--label",
            "tier=db",
            "--opt",
            "Capacity=64M",
            "--opt",
            "VolumeStore=default",
            "adm",
        ])?,
        "adm".into(),
    )?;
    equal(
        "again",
        docker.ok(&["volume", "create", "adm"])?,
        "adm".into(),
    )?;
    for (filter, there) in [
        ("name=ad", true),
        ("name=other", false),
        ("label=tier=db", true),
        ("label=tier=web", false),
        ("driver=local", true),
        ("driver=nfs", false),
        ("dangling=true", true),
        ("dangling=false", false),
    ] {
        let listed = docker.ok(&["volume", "ls", "-q", "--filter", filter])?;
        equal(filter, listed.lines().any(|l| l == "adm"), there)?;
    }
    let shown = docker.ok(&[
        "volume",
        "inspect",
        "-f",
        "{{.Driver}} {{.Options.Capacity}} {{.Labels.tier}} {{.Scope}}",
        "adm",
    ])?;
    equal("inspect", shown, "local 64M db local".into())?;
    let size = sh(
        docker,
        &["-v", "adm:/x"],
        "df -m /x | tail -1 | awk '{print $2}'",
    )?;
    let size: u32 = size.parse()?;
    ensure!((40..64).contains(&size), "64 MiB hold {size}");
    let id = docker.ok(&[
        "create",
        "--name",
        "adm-user",
        "-v",
        "adm:/x:ro,nocopy",
        BUSYBOX,
    ])?;
    let gone = docker.container("adm-user");
    let error = refused(docker, &["volume", "rm", "adm"])?;
    holds(&error, &format!("remove adm: volume is in use - [{id}]"))?;
    equal(
        "used",
        docker.ok(&["volume", "ls", "-qf", "dangling=true", "-f", "name=adm"])?,
        String::new(),
    )?;
    for filter in ["volume=adm", "volume=/x"] {
        equal(
            filter,
            docker.ok(&["ps", "-aq", "--no-trunc", "--filter", filter])?,
            id.clone(),
        )?;
    }
    let mounts = docker.inspect(
        "adm-user",
        "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.Mode}} {{.RW}}{{end}}",
    )?;
    equal("mounts", mounts, "volume adm /x ro,nocopy false".into())?;
    drop(gone);
    // Prune takes what nobody has named, and all if it is told to.
    let pruned = docker.ok(&["volume", "prune", "-f", "--filter", "label=tier=db"])?;
    ensure!(!pruned.contains("adm"), "pruned: {pruned}");
    let pruned = docker.ok(&["volume", "prune", "-af", "--filter", "label=tier=db"])?;
    holds(&pruned, "adm")?;
    holds(
        &refused(docker, &["volume", "inspect", "adm"])?,
        "no such volume",
    )?;
    holds(
        &refused(docker, &["volume", "rm", "adm"])?,
        "get adm: no such volume",
    )?;
    docker.ok(&["volume", "rm", "-f", "adm"])?;
    for (args, part) in [
        (&["--opt", "Capacity=1M", "bad"][..], "too small"),
        (&["--opt", "size=1G", "bad"], "invalid option"),
        (&["--opt", "VolumeStore=ssd", "bad"], "volume store"),
        (&["--driver", "nfs", "bad"], "plugin \"nfs\" not found"),
        (
            &["a/b"],
            "includes invalid characters for a local volume name",
        ),
    ] {
        let error = refused(docker, &[&["volume", "create"], args].concat())?;
        holds(&error, part)?;
    }
    let until = docker.ok(&["info", "--format", "{{.SystemTime}}"])?;
    let events = docker.ok(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        "volume=adm",
        "--format",
        "{{.Action}}",
    ])?;
    equal("events", events, "create\nmount\nunmount\ndestroy".into())
}

fn filled(docker: &Docker) -> Result<()> {
    // Programs with many names each: all of them are needed for the container to run at all.
    let names = "find /bin | sort | md5sum; stat -c '%a %u:%g' /bin; stat -c %h /bin/busybox";
    let image = sh(docker, &[], names)?;
    equal(
        "a volume at /bin",
        sh(docker, &["-v", "fill:/bin"], names)?,
        image,
    )?;
    // Only once: what was deleted stays so.
    sh(docker, &["-v", "fill:/f"], "rm /f/w*; mkdir /f/own")?;
    let later = sh(
        docker,
        &["-v", "fill:/bin"],
        "ls -d /bin/wc /bin/own 2>&1; true",
    )?;
    holds(&later, "/bin/wc: No such file")?;
    holds(&later, "/bin/own")?;
    for option in [
        "bare:/etc:nocopy",
        "type=volume,source=bare,target=/etc,volume-nocopy",
    ] {
        let flag = if option.contains(',') {
            "--mount"
        } else {
            "-v"
        };
        let there = sh(docker, &[flag, option], "ls /etc")?;
        equal(
            "without a copy",
            there,
            "hostname\nhosts\nresolv.conf".into(),
        )?;
    }
    // The mount point's own mode and owner, too.
    let mode = sh(docker, &["-v", "tmpv:/tmp"], "stat -c %a /tmp")?;
    equal("mode", mode, sh(docker, &[], "stat -c %a /tmp")?)?;
    docker
        .ok(&["volume", "rm", "fill", "bare", "tmpv"])
        .map(drop)
}

fn one_writer(docker: &Docker) -> Result<()> {
    sh(docker, &["-v", "shared:/x"], "echo all > /x/f")?;
    let id = docker.ok(&[
        "run",
        "-d",
        "--name",
        "holder",
        "-v",
        "shared:/x",
        BUSYBOX,
        "sleep",
        "600",
    ])?;
    let holder = docker.container("holder");
    for mode in ["rw", "ro"] {
        let option = format!("shared:/x:{mode}");
        let error = refused(docker, &["run", "--rm", "-v", &option, BUSYBOX, "true"])?;
        holds(&error, "volume shared is in use by container \"/holder\"")?;
        holds(&error, &id)?;
        holds(&error, "stop that container first")?;
    }
    docker.ok(&["kill", "holder"])?;
    // Whose process has ended, its VM ends in a moment: that is waited for.
    equal(
        "after it",
        sh(docker, &["-v", "shared:/x"], "cat /x/f")?,
        "all".into(),
    )?;
    docker.ok(&[
        "run",
        "-d",
        "--name",
        "reader",
        "-v",
        "shared:/x:ro",
        BUSYBOX,
        "sleep",
        "600",
    ])?;
    let reader = docker.container("reader");
    equal(
        "two read",
        sh(docker, &["-v", "shared:/y:ro"], "cat /y/f")?,
        "all".into(),
    )?;
    let error = refused(docker, &["start", "holder"])?;
    holds(&error, "in use by container \"/reader\"")?;
    drop((holder, reader));
    docker.ok(&["volume", "rm", "shared"]).map(drop)
}

fn links(docker: &Docker) -> Result<()> {
    sh(
        docker,
        &["-v", "planted:/x"],
        "ln -s /etc /x/abs; ln -s ../../../../etc /x/up; mkdir -p /x/etc/mine /x/sub; ln -s /sub /x/good; echo f > /x/file",
    )?;
    let part =
        |subpath: &str| format!("type=volume,source=planted,target=/y,volume-subpath={subpath}");
    // The volume is its own root.
    for subpath in ["abs", "up"] {
        equal(
            subpath,
            sh(docker, &["--mount", &part(subpath)], "ls /y")?,
            "mine".into(),
        )?;
    }
    sh(docker, &["--mount", &part("good")], "touch /y/here")?;
    equal(
        "by another way",
        sh(docker, &["--mount", &part("sub")], "ls /y")?,
        "here".into(),
    )?;
    equal(
        "a file",
        sh(docker, &["--mount", &part("file")], "cat /y")?,
        "f".into(),
    )?;
    let error = refused(
        docker,
        &["run", "--rm", "--mount", &part("absent"), BUSYBOX, "true"],
    )?;
    holds(
        &error,
        "cannot access path absent: no such file or directory",
    )?;
    let error = refused(docker, &["create", "--mount", &part("a/../../b"), BUSYBOX])?;
    holds(&error, "subpath must be a relative path within the volume")?;
    // A mount point behind a link is where the link leads inside of the container's root.
    sh(
        docker,
        &["-v", "planted:/x"],
        "ln -s ../../../../far/away /x/hole",
    )?;
    let places = ["-v", "planted:/x", "-v", "behind:/x/hole"];
    let mounted = sh(docker, &places, "grep -c ' /far/away ' /proc/mounts")?;
    equal("mounts at the link's end", mounted, "1".into())?;
    docker.ok(&["volume", "rm", "planted", "behind"]).map(drop)
}

fn anonymous(docker: &Docker) -> Result<()> {
    let volume_of = |name: &str| docker.inspect(name, "{{range .Mounts}}{{.Name}}{{end}}");
    let there = |volume: &str| {
        Ok::<bool, anyhow::Error>(docker.run(&["volume", "inspect", volume])?.code == 0)
    };
    for (options, stays) in [(&["rm"][..], true), (&["rm", "-v"], false)] {
        docker.ok(&[
            "run", "--name", "anon", "-v", "/data", BUSYBOX, "touch", "/data/x",
        ])?;
        let volume = volume_of("anon")?;
        equal("its name", volume.len(), 64)?;
        docker.ok(&[options, &["anon"]].concat())?;
        equal("it stays", there(&volume)?, stays)?;
        if stays {
            let kept = sh(docker, &["-v", &format!("{volume}:/data")], "ls /data")?;
            equal("its content", kept, "x".into())?;
            holds(&docker.ok(&["volume", "prune", "-f"])?, &volume)?;
        }
    }
    docker.ok(&[
        "create", "--rm", "--name", "anon", "-v", "/data", "-v", "named:/n", BUSYBOX, "true",
    ])?;
    let volumes = docker.inspect("anon", "{{range .Mounts}}{{.Name}} {{end}}")?;
    docker.ok(&["start", "-a", "anon"])?;
    for volume in volumes.split_whitespace() {
        if volume == "named" {
            ensure!(there(volume)?, "a named volume went with --rm");
        } else {
            eventually("the anonymous volume of a --rm container goes", || {
                Ok(!there(volume)?)
            })?;
        }
    }
    docker.ok(&["volume", "rm", "named"])?;
    // A creation that fails leaves none.
    let marked = "type=volume,target=/data,volume-label=of=failed";
    let nobody = ["create", "--mount", marked, "-v", "/proc", BUSYBOX];
    holds(&refused(docker, &nobody)?, "cannot be mounted")?;
    equal(
        "volumes",
        docker.ok(&["volume", "ls", "-q", "--filter", "label=of=failed"])?,
        String::new(),
    )
}

fn volumes_from(docker: &Docker) -> Result<()> {
    docker.ok(&[
        "run",
        "--name",
        "source",
        "-v",
        "from:/a",
        "-v",
        "/b",
        BUSYBOX,
        "sh",
        "-c",
        "echo a > /a/f; echo b > /b/f",
    ])?;
    let gone = docker.container("source");
    let all = sh(
        docker,
        &["--volumes-from", "source"],
        "cat /a/f /b/f; echo more > /a/g",
    )?;
    equal("both", all, "a\nb".into())?;
    let all = sh(
        docker,
        &["--volumes-from", "source:ro", "-v", "own:/b"],
        "cat /a/g; ls /b; touch /a/x 2>&1; true",
    )?;
    holds(&all, "more")?;
    holds(&all, "Read-only")?;
    holds(
        &refused(docker, &["create", "--volumes-from", "source:x", BUSYBOX])?,
        "invalid mode",
    )?;
    drop(gone);
    docker.ok(&["volume", "rm", "from", "own"])?;
    docker.ok(&["volume", "prune", "-f"]).map(drop)
}

fn many(docker: &Docker) -> Result<()> {
    let names: Vec<String> = (0..17).map(|n| format!("many{n:02}")).collect();
    let mut options = Vec::new();
    for name in &names {
        docker.ok(&["volume", "create", "--opt", "Capacity=16M", name])?;
        options.extend(["-v".to_owned(), format!("{name}:/m/{name}")]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let write = "cd /m; for v in *; do echo $v > $v/name; done; grep -c ' /m/' /proc/mounts";
    equal("mounts", sh(docker, &options, write)?, "17".into())?;
    for name in [&names[0], &names[13], &names[16]] {
        equal(
            "each is its own",
            sh(docker, &["-v", &format!("{name}:/x")], "cat /x/name")?,
            name.clone(),
        )?;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    docker
        .ok(&[&["volume", "rm"], &names[..]].concat())
        .map(drop)
}

fn host_paths(docker: &Docker) -> Result<()> {
    for options in [
        &["-v", "/etc:/mnt"][..],
        &["--mount", "type=bind,source=/etc,target=/mnt"],
    ] {
        let error = refused(docker, &[&["create"], options, &[BUSYBOX]].concat())?;
        holds(&error, "a container is a VM of its own")?;
        holds(&error, "--volume NAME:/path")?;
    }
    for (option, part) in [
        ("vol:relative", "mount path must be absolute"),
        ("vol:/", "destination can't be '/'"),
        ("vol:/x:what", "invalid mode: what"),
    ] {
        holds(&refused(docker, &["create", "-v", option, BUSYBOX])?, part)?;
    }
    Ok(())
}

/// The VM is killed while it copies, or before, or behind.
fn cut_short(mut random: Random) -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let count = "ls /bin | wc -l";
    let whole = sh(docker, &[], count)?;
    for round in 0..times(4, 40) {
        let id = docker.ok(&["create", "-v", "cut:/bin", BUSYBOX, "sleep", "600"])?;
        let start = docker.spawn(&["start", &id])?;
        eventually("its VM runs", || Ok(vch.qemu(&id).is_ok()))?;
        std::thread::sleep(Duration::from_micros(random.below(1_500_000))); // the random moment
        kill_process(vch.qemu(&id)?)?;
        finish(start, "docker start".into(), b"", DEADLINE)?;
        equal(
            &format!("round {round}: files"),
            sh(docker, &["-v", "cut:/bin"], count)?,
            whole.clone(),
        )?;
        docker.ok(&["rm", "-f", &id])?;
        docker.ok(&["volume", "rm", "cut"])?;
    }
    Ok(())
}

fn down_and_up() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    docker.ok(&[
        "run",
        "--name",
        "one",
        "-v",
        "lasting:/x",
        "-v",
        "/anon",
        BUSYBOX,
        "sh",
        "-c",
        "echo 1 >> /x/f; cat /x/f",
    ])?;
    docker.ok(&[
        "run", "-d", "--name", "on", "-v", "held:/x", BUSYBOX, "sleep", "600",
    ])?;
    vch.kill("endpoint")?;
    vch.up()?;
    // Who writes is known again, and by whom a volume is used.
    holds(
        &refused(docker, &["run", "--rm", "-v", "held:/x", BUSYBOX, "true"])?,
        "in use by container \"/on\"",
    )?;
    holds(
        &refused(docker, &["volume", "rm", "lasting"])?,
        "volume is in use",
    )?;
    vch.down()?;
    vch.up()?;
    equal(
        "volumes",
        docker.ok(&["volume", "ls", "-q"])?.lines().count(),
        3,
    )?;
    equal(
        "the same container",
        docker.ok(&["start", "-a", "one"])?,
        "1\n1".into(),
    )?;
    // A disk that somebody has deleted: what to do is said, and can be done.
    std::fs::remove_file(vch.vch_folder()?.join("volumes/lasting/volume.vmdk"))?;
    let why = "the disk of volume lasting, ";
    holds(&docker.ok(&["volume", "inspect", "lasting"])?, why)?;
    holds(&refused(docker, &["start", "one"])?, why)?;
    docker.ok(&["rm", "-v", "one", "on"])?;
    equal(
        "volumes",
        docker.ok(&["volume", "ls", "-q"])?,
        "held\nlasting".into(),
    )?;
    docker.ok(&["volume", "rm", "lasting"]).map(drop)
}
