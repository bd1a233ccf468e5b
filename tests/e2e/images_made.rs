//! Images that come otherwise: import, zstd layers; and what is asked about images here and elsewhere.

use crate::hosts::{Hosts, alone, equal, holds, load};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use tests::command::{DEADLINE, run};
use tests::docker::Docker;
use tests::registry::Registry;
use tests::vch::{Settings, Vch};

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![alone(
        "images::import_zstd_filters_search_distribution",
        all,
    )]
}

/// A server on loopback that answers paths with these bytes, and anything else with 404.
fn serve(answers: Vec<(&'static str, Vec<u8>)>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut first = String::new();
            let Ok(from) = client.try_clone() else {
                continue;
            };
            let mut lines = BufReader::new(from);
            if lines.read_line(&mut first).is_err() {
                continue;
            }
            let mut line = String::from("x");
            while !line.trim().is_empty() {
                line.clear();
                if lines.read_line(&mut line).unwrap_or(0) == 0 {
                    break;
                }
            }
            let found = answers.iter().find(|(path, _)| first.contains(path));
            let (status, body) = found.map_or(("404 Not Found", &b""[..]), |(_, b)| ("200 OK", b));
            // A client that has gone is no concern of the others.
            let _ = write!(
                client,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = client.write_all(body);
        }
    });
    Ok(address)
}

fn all() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    let docker = &vch.docker;
    let registry = Registry::start()?;
    import(docker)?;
    platforms(docker, &registry)?;
    zstd(docker, &registry)?;
    filters(docker)?;
    search(docker)?;
    distribution(&vch, &registry)
}

fn import(docker: &Docker) -> Result<()> {
    load(docker, "busybox")?;
    // The whole of a root file system: that of busybox, out of its layer.
    let folder = tempfile::tempdir()?;
    let mut c = Command::new("tar");
    c.arg("-xf").arg(tests::places::archive("busybox"));
    c.arg("-C").arg(folder.path());
    run(c, b"", DEADLINE)?.ok()?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("manifest.json"))?)?;
    let layer = folder
        .path()
        .join(manifest[0]["Layers"][0].as_str().context("a layer")?);
    let tar = std::fs::read(&layer)?;

    for (changes, input, why) in [
        (
            vec!["-c", "RUN x"],
            &tar[..],
            "run is not a valid change command",
        ),
        (vec!["-c", "EXPOSE x"], &tar, "invalid containerPort: x"),
        (vec![], &tar[..tar.len() / 2], "cannot be imported"),
        (vec![], &b"nonsense"[..], "cannot be imported"),
        (vec![], &b" "[..0], "empty"),
        (vec!["--platform", "a/b/c/d"], &tar, "platform"),
    ] {
        let mut args = vec!["import"];
        args.extend(changes);
        args.extend(["-", "no:image"]);
        let out = docker.run_with_input(&args, input)?.exits(1)?;
        holds(&out.errors(), why)?;
        docker.run(&["image", "inspect", "no:image"])?.exits(1)?;
    }
    let id = docker
        .run_with_input(
            &[
                "import",
                "-m",
                "made by hand",
                "-c",
                "CMD [\"echo\", \"imported\"]",
                "-c",
                "ENV WORD=\"of the day\"",
                "-c",
                "WORKDIR /tmp",
                "-",
                "e2e/imported:1",
            ],
            &tar,
        )?
        .ok()?
        .text();
    equal(
        "ID",
        docker.inspect("e2e/imported:1", "{{.Id}}")?,
        id.clone(),
    )?;
    equal(
        "comment",
        docker.inspect(&id, "{{.Comment}}")?,
        "made by hand".into(),
    )?;
    equal(
        "output",
        docker.ok(&["run", "--rm", &id])?,
        "imported".into(),
    )?;
    equal(
        "environment and folder",
        docker.ok(&["run", "--rm", &id, "sh", "-c", "echo $WORD in $PWD"])?,
        "of the day in /tmp".into(),
    )?;
    let history = docker.ok(&[
        "history",
        "--no-trunc",
        "--format",
        "{{.ID}} {{.Comment}}",
        &id,
    ])?;
    equal("history", history, format!("{id} made by hand"))?;

    // The endpoint fetches what is at a URL; packed is as good.
    let packed = |with: &str, bytes: &[u8]| -> Result<Vec<u8>> {
        let mut c = Command::new(with);
        c.arg("-c");
        Ok(run(c, bytes, DEADLINE)?.ok()?.stdout)
    };
    let server = serve(vec![("/root.tar.gz", packed("gzip", &tar)?)])?;
    let out = docker.ok(&[
        "import",
        &format!("http://{server}/root.tar.gz"),
        "e2e/fetched",
    ])?;
    holds(&out, "Downloading from http://")?;
    equal(
        "layers",
        docker.inspect("e2e/fetched", "{{.RootFS.Layers}}")?,
        docker.inspect(&id, "{{.RootFS.Layers}}")?,
    )?;
    let out = docker
        .run(&[
            "import",
            &format!("http://{server}/missing.tar"),
            "no:image",
        ])?
        .exits(1)?;
    holds(&out.errors(), "Not Found")?;
    docker.ok(&["rmi", "e2e/fetched", "e2e/imported:1"])?;

    // The other ways to pack that Docker takes: the tar, and an archive whole or its layer.
    for with in ["bzip2", "xz"] {
        let out = docker.run_with_input(&["import", "-"], &packed(with, &tar)?)?;
        let other = out.ok()?.text();
        let layers = docker.inspect("mooring-test/busybox", "{{.RootFS.Layers}}")?;
        equal(
            "layers",
            docker.inspect(&other, "{{.RootFS.Layers}}")?,
            layers.clone(),
        )?;
        docker.ok(&["rmi", &other, "mooring-test/busybox"])?;
        if with == "xz" {
            std::fs::write(&layer, packed(with, &tar)?)?;
        }
        let mut c = Command::new("tar");
        c.arg("-c").arg("-C").arg(folder.path()).arg(".");
        let archive = run(c, b"", DEADLINE)?.ok()?.stdout;
        docker
            .run_with_input(&["load"], &packed(with, &archive)?)?
            .ok()?;
        equal(
            "loaded layers",
            docker.inspect("mooring-test/busybox", "{{.RootFS.Layers}}")?,
            layers,
        )?;
    }
    // A few bytes that become many are refused.
    let zeros = packed("bzip2", &vec![0; 80 << 20])?;
    let out = docker.run_with_input(&["load"], &zeros)?.exits(1)?;
    holds(&out.errors(), "decompress to more")
}

/// An index that the stock client made: of two platforms, each gets its own, and another is refused by name.
fn platforms(docker: &Docker, registry: &Registry) -> Result<()> {
    let name = |tag: &str| format!("{}/e2e/platforms:{tag}", registry.address);
    let (index, amd64, arm64) = (name("all"), name("amd64"), name("arm64"));
    let import = ["import", "--platform", "linux/arm64", "-", &arm64];
    let tar = docker.run(&["save", "mooring-test/busybox"])?.ok()?;
    docker.run_with_input(&import, &tar.stdout)?.ok()?;
    docker.ok(&["tag", "mooring-test/busybox", &amd64])?;
    let id = |of: &str| docker.inspect(of, "{{.Architecture}} {{.Id}}");
    let (ours, other) = (id(&amd64)?, id(&arm64)?);
    holds(&other, "arm64 sha256:")?;
    docker.ok(&["push", "-q", &amd64])?;
    docker.ok(&["push", "-q", &arm64])?;
    docker.ok(&["manifest", "create", "--insecure", &index, &amd64, &arm64])?;
    let out = docker.ok(&["manifest", "push", "--insecure", "--purge", &index])?;
    let digest = out.lines().last().context("a digest")?;
    docker.ok(&["rmi", &amd64, &arm64])?;

    docker.ok(&["pull", "-q", &index])?;
    equal("without a platform", id(&index)?, ours.clone())?;
    holds(&docker.inspect(&index, "{{.RepoDigests}}")?, digest)?;
    docker.ok(&["pull", "-q", "--platform", "linux/arm64", &index])?;
    equal("with a platform", id(&index)?, other.clone())?;
    let by_digest = format!("{}@{digest}", index.trim_end_matches(":all"));
    docker.ok(&["pull", "-q", "--platform", "linux/amd64", &by_digest])?;
    equal("by the index's digest", id(&by_digest)?, ours)?;
    let wrong = ["pull", "--platform", "linux/s390x", &index];
    let out = docker.run(&wrong)?.exits(1)?;
    holds(&out.errors(), "no matching manifest for linux/s390x")?;
    let other = other.trim_start_matches("arm64 ");
    docker
        .ok(&["rmi", "-f", &by_digest, &index, other])
        .map(drop)
}

fn zstd(docker: &Docker, registry: &Registry) -> Result<()> {
    let reference = format!("{}/e2e/zstd:latest", registry.address);
    let mut c = Command::new("skopeo");
    c.args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"]);
    c.args(["--dest-compress-format", "zstd", "--format", "oci"]);
    // Out of an archive whose layers are not packed, so that they are packed with zstd.
    let archive = tests::places::archive("odd");
    c.arg(format!("docker-archive:{}", archive.display()));
    c.arg(format!("docker://{reference}"));
    run(c, b"", DEADLINE)?.ok()?;
    let out = docker.ok(&["pull", &reference])?;
    equal(
        "output",
        docker.ok(&["run", "--rm", &reference, "echo", "z"])?,
        "z".into(),
    )?;
    // Out again as it came.
    let other = format!("{}/e2e/again", registry.address);
    docker.ok(&["tag", &reference, &other])?;
    let mut raw = Command::new("skopeo");
    raw.args(["inspect", "--raw", "--tls-verify=false"]);
    raw.arg(format!("docker://{reference}"));
    holds(&run(raw, b"", DEADLINE)?.ok()?.text(), "tar+zstd")?;
    let pushed = docker.ok(&["push", &other])?;
    let digest = out
        .split("Digest: ")
        .nth(1)
        .and_then(|t| t.lines().next())
        .context("a digest")?;
    holds(&pushed, digest)?;
    // The same layers as with gzip: nothing is fetched for them.
    let same = registry.push("odd")?;
    let out = docker.ok(&["pull", &same])?;
    ensure!(!out.contains("Pulling fs layer"), "{out}");
    docker.ok(&["rmi", &reference, &other, &same])?;
    mislabelled(docker, registry, &reference)
}

/// How a layer is packed its bytes tell, whatever its media type says, and Docker's name for zstd is known.
fn mislabelled(docker: &Docker, registry: &Registry, zstd: &str) -> Result<()> {
    let mut raw = Command::new("skopeo");
    raw.args(["inspect", "--raw", "--tls-verify=false"]);
    raw.arg(format!("docker://{zstd}"));
    let manifest = run(raw, b"", DEADLINE)?.ok()?.text();
    let is = "application/vnd.oci.image.layer.v1.tar+zstd";
    holds(&manifest, is)?;
    for (tag, says) in [
        ("gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("plain", "application/vnd.oci.image.layer.v1.tar"),
        (
            "docker",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
        ),
    ] {
        let mut c = Command::new("curl");
        c.args(["-sSf", "-X", "PUT", "--data-binary", "@-", "-H"]);
        c.arg("Content-Type: application/vnd.oci.image.manifest.v1+json");
        c.arg(format!(
            "http://{}/v2/e2e/zstd/manifests/{tag}",
            registry.address
        ));
        run(c, manifest.replace(is, says).as_bytes(), DEADLINE)?.ok()?;
        let reference = format!("{}/e2e/zstd:{tag}", registry.address);
        docker.ok(&["pull", "-q", &reference])?;
        let said = docker.ok(&["run", "--rm", &reference, "echo", tag])?;
        equal("output", said, tag.to_owned())?;
        docker.ok(&["rmi", &reference])?;
    }
    Ok(())
}

/// Makes an image with a label and a time; its ID.
fn made(docker: &Docker, name: &str, label: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("file"), name)?;
    let mut c = Command::new("tar");
    c.arg("-c").arg("-C").arg(folder.path()).arg("file");
    let tar = run(c, b"", DEADLINE)?.ok()?.stdout;
    let change = format!("LABEL {label}");
    Ok(docker
        .run_with_input(&["import", "-c", &change, "-", name], &tar)?
        .ok()?
        .text())
}

fn filters(docker: &Docker) -> Result<()> {
    let a = made(docker, "e2e/a:1", "kind=a")?;
    let b = made(docker, "e2e/b:1", "kind=b")?;
    let c = made(docker, "e2e/c:1", "kind=c")?;
    docker.ok(&["rmi", "mooring-test/busybox"])?;
    let list = |filters: &[&str]| -> Result<Vec<String>> {
        let mut args = vec!["images", "-q", "--no-trunc"];
        for filter in filters {
            args.extend(["--filter", filter]);
        }
        let mut ids: Vec<_> = docker.ok(&args)?.lines().map(str::to_owned).collect();
        ids.sort();
        Ok(ids)
    };
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|i| (*i).clone()).collect();
        ids.sort();
        ids
    };
    equal("all", list(&[])?, sorted(&[&a, &b, &c]))?;
    equal("label", list(&["label=kind=b"])?, sorted(&[&b]))?;
    equal("reference", list(&["reference=e2e/c:*"])?, sorted(&[&c]))?;
    equal("until", list(&["until=1h"])?, vec![])?;
    equal("not yet", list(&["until=2100-01-01T00:00:00Z"])?.len(), 3)?;
    equal("dangling", list(&["dangling=true"])?, vec![])?;
    let out = docker
        .run(&["images", "--filter", "nonsense=1"])?
        .exits(1)?;
    holds(&out.errors(), "invalid filter 'nonsense'")?;

    // Nothing is dangling, so a plain prune takes nothing; then what the filters leave.
    docker.ok(&["image", "prune", "-f"])?;
    equal("after a prune", list(&[])?.len(), 3)?;
    docker.ok(&["image", "prune", "-af", "--filter", "until=1h"])?;
    equal("after one of what is old", list(&[])?.len(), 3)?;
    let out = docker.ok(&["image", "prune", "-af", "--filter", "label=kind=a"])?;
    holds(&out, &format!("deleted: {a}"))?;
    equal("left", list(&[])?, sorted(&[&b, &c]))?;
    docker.ok(&["image", "prune", "-af", "--filter", "label!=kind=c"])?;
    equal("left", list(&[])?, sorted(&[&c]))?;
    let out = docker
        .run(&["image", "prune", "-f", "--filter", "until=x"])?
        .exits(1)?;
    ensure!(!out.errors().is_empty());
    docker.ok(&["rmi", "e2e/c:1"]).map(drop)
}

fn search(docker: &Docker) -> Result<()> {
    let results = br#"{"results":[
        {"name":"a/one","description":"first","star_count":7,"is_official":true,"is_automated":false},
        {"name":"a/two","description":"second","star_count":3}]}"#;
    let index = serve(vec![
        ("/v2/", b"{}".to_vec()),
        ("/v1/search?q=word&n=", results.to_vec()),
    ])?;
    let term = format!("{index}/word");
    let out = docker.ok(&["search", "--format", "{{.Name}} {{.StarCount}}", &term])?;
    equal("found", out, "a/one 7\na/two 3".into())?;
    let out = docker.ok(&[
        "search",
        "--filter",
        "stars=5",
        "--format",
        "{{.Name}}",
        &term,
    ])?;
    equal("found", out, "a/one".into())?;
    let other = serve(vec![("/v2/", b"{}".to_vec())])?;
    let out = docker
        .run(&["search", &format!("{other}/word")])?
        .exits(1)?;
    holds(&out.errors(), "cannot be searched")
}

fn distribution(vch: &Vch, registry: &Registry) -> Result<()> {
    let reference = registry.push("busybox")?;
    let get = |path: &str| -> Result<serde_json::Value> {
        let mut c = Command::new("curl");
        c.args(["-s", "--unix-socket"]);
        c.arg(vch.docker.socket().context("a socket")?);
        c.arg(format!("http://docker/v1.43/distribution/{path}/json"));
        Ok(serde_json::from_slice(
            &run(c, b"", DEADLINE)?.ok()?.stdout,
        )?)
    };
    let known = get(&reference)?;
    equal(
        "platform",
        known["Platforms"][0]["architecture"].as_str(),
        Some("amd64"),
    )?;
    let digest = known["Descriptor"]["digest"].as_str().context("a digest")?;
    vch.docker.ok(&[
        "pull",
        "-q",
        &format!("{}@{digest}", reference.trim_end_matches(":latest")),
    ])?;
    let unknown = get(&format!("{}/no/such", registry.address))?;
    holds(&unknown["message"].to_string(), "not found")
}
