//! Folders of the machine in containers (`vch up --share`): `-v /path:/path`, `--mount type=bind`.

use crate::hosts::{BUSYBOX, Hosts, alone, equal, holds, load};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::Arc;
use tests::docker::Docker;
use tests::vch::{Settings, Vch};

pub fn tests(_hosts: &Arc<Hosts>) -> Vec<Trial> {
    vec![alone("shares::folders_of_the_machine_and_no_more", shares)]
}

fn refused(docker: &Docker, args: &[&str], why: &str) -> Result<()> {
    let out = docker.run(&[&["create"], args, &[BUSYBOX, "true"]].concat())?;
    ensure!(out.code != 0, "{args:?} was taken");
    holds(&out.errors(), why)
}

fn shares() -> Result<()> {
    let base = tempfile::Builder::new()
        .prefix("mooring-share-")
        .tempdir()?;
    let at = |name: &str| base.path().join(name).display().to_string();
    for folder in ["open/page", "closed", "look"] {
        fs::create_dir_all(at(folder))?;
    }
    fs::write(at("open/page/index"), "from the machine\n")?;
    fs::write(at("open/setting"), "one\n")?;
    fs::write(at("look/note"), "only to read\n")?;
    fs::write(at("closed/secret"), "nobody's\n")?;
    symlink(at("closed"), at("open/out"))?;
    let mut settings = Settings::link("auto");
    settings.more = vec![
        "--share".into(),
        at("open"),
        "--share".into(),
        format!("{}:ro", at("look")),
    ];
    let vch = Vch::start(settings)?;
    let docker = &vch.docker;
    load(docker, "busybox")?;

    // Nothing beside what is shared, by whatever way, and nothing is made there.
    let no = "is below no shared folder";
    refused(docker, &["-v", &format!("{}:/x", at("closed"))], no)?;
    refused(docker, &["-v", &format!("{}:/x", at("open/out"))], no)?;
    refused(docker, &["-v", &format!("{}:/x", at("open/out/new"))], no)?;
    refused(docker, &["-v", &format!("{}:/x", at("open/../closed"))], no)?;
    ensure!(!base.path().join("closed/new").exists(), "made outside");
    let missing = format!("type=bind,source={},target=/x", at("open/missing"));
    refused(
        docker,
        &["--mount", &missing],
        "bind source path does not exist",
    )?;

    // Of two containers with something at one path the later one counts, as with dockerd.
    let (shared, disk) = (docker.container("order-s"), docker.container("order-v"));
    let look = format!("{}:/x:ro", at("look"));
    for (name, what) in [(&shared.name, look.as_str()), (&disk.name, "ordered:/x")] {
        docker.ok(&["create", "--name", name, "-v", what, BUSYBOX, "true"])?;
    }
    for (first, last, kind) in [(&shared, &disk, "volume"), (&disk, &shared, "bind")] {
        let both = ["--volumes-from", &first.name, "--volumes-from", &last.name];
        let args = [
            &["create", "--name", "order-b"],
            &both[..],
            &[BUSYBOX, "true"],
        ];
        let gone = docker.container("order-b");
        docker.ok(&args.concat())?;
        let found = docker.inspect("order-b", "{{range .Mounts}}{{.Type}} {{end}}")?;
        equal("the mount", found.trim(), kind)?;
        drop(gone);
    }

    // Folder, file, one that is made, and one that is only to read.
    let web = docker.container("e2e-shares");
    docker.ok(&[
        "create",
        "--name",
        &web.name,
        "-v",
        &format!("{}:/page", at("open/page")),
        "-v",
        &format!("{}:/etc/setting:ro", at("open/setting")),
        "-v",
        &format!("{}:/made", at("open/made")),
        "--mount",
        &format!("type=bind,source={},target=/look", at("look")),
        "-v",
        &format!("{}:/etc/hosts", at("open/page/index")),
        BUSYBOX,
        "sh",
        "-c",
        "cat /page/index /etc/setting /look/note /etc/hosts
         echo out > /page/out && chown 1234:5678 /page/out && ln -s /closed/secret /page/link
         echo no > /etc/setting; echo no > /look/note; echo made > /made/it
         ls /..; cat /page/../closed/secret; cat /page/link",
    ])?;
    let out = docker.run(&["start", "-a", &web.name])?;
    equal(
        "what the container reads",
        out.text().lines().take(4).collect::<Vec<_>>(),
        vec![
            "from the machine",
            "one",
            "only to read",
            "from the machine",
        ],
    )?;
    equal(
        "refused writes",
        out.errors().matches("Read-only file system").count(),
        2,
    )?;
    ensure!(!out.text().contains("nobody's"), "{}", out.text());
    equal(
        "written",
        fs::read_to_string(at("open/page/out"))?,
        "out\n".into(),
    )?;
    let owner = fs::metadata(at("open/page/out"))?;
    if nix::unistd::geteuid().is_root() {
        equal("owner", (owner.uid(), owner.gid()), (1234, 5678))?;
    }
    equal(
        "made",
        fs::read_to_string(at("open/made/it"))?,
        "made\n".into(),
    )?;
    equal(
        "not written",
        fs::read_to_string(at("look/note"))?,
        "only to read\n".into(),
    )?;
    equal(
        "not written",
        fs::read_to_string(at("open/setting"))?,
        "one\n".into(),
    )?;
    let mounts = docker.inspect(
        &web.name,
        "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}\n{{end}}",
    )?;
    holds(&mounts, "bind /etc/setting false")?;
    holds(&mounts, "bind /look false")?;
    holds(&mounts, "bind /page true")?;

    // What the machine changes is seen by the next read of one that runs.
    let running = docker.container("e2e-shares-runs");
    docker.ok(&[
        "run",
        "-d",
        "--name",
        &running.name,
        "--volumes-from",
        &web.name,
        BUSYBOX,
        "sleep",
        "600",
    ])?;
    docker.ok(&["exec", &running.name, "cat", "/page/index"])?;
    fs::write(at("open/page/index"), "changed\n")?;
    let now = docker.ok(&["exec", &running.name, "cat", "/page/index"])?;
    equal("after a change", now.as_str(), "changed")?;

    // A folder that became a link out of the shared ones since: the start is refused.
    fs::remove_dir_all(at("open/made"))?;
    symlink(at("closed"), at("open/made"))?;
    let out = docker.run(&["start", &web.name])?;
    ensure!(out.code != 0, "started with a folder that leads out");
    holds(&out.errors(), "below no folder that this host shares")
}
