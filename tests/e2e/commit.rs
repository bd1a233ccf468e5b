//! `docker commit`: images out of containers' changes.

use crate::hosts::{BUSYBOX, Hosts, Link, actions_since, equal, holds, load, on, on_both};
use crate::images_out::files;
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::command::eventually;
use tests::docker::Docker;

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = on_both(
        hosts,
        "commit::an_image_has_what_the_container_changed",
        changed,
    );
    all.push(on(
        hosts,
        Link::Vsock,
        "commit::changes_and_history_are_docker_s",
        described,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "commit::an_image_of_127_layers_is_built_upon",
        many_layers,
    ));
    all
}

/// Removes an image when it goes out of scope.
struct Image(Docker, &'static str);

impl Drop for Image {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.run(&["rmi", "-f", self.1]);
    }
}

fn changed(docker: &Docker) -> Result<()> {
    let id = docker.ok(&[
        "run", "-d", "-v", "/vol", BUSYBOX, "sh", "-c",
        "mkdir -p /a/b /vol/x; echo one > /a/b/f; ln /a/b/f /a/hard; ln -s b/f /a/soft; chmod 4750 /a/b/f; chown 3:4 /a/b; \
         rm /bin/wc; rm -r /etc; mkdir /etc; echo 'root:x:0:0::/:/bin/sh' > /etc/passwd; touch /ready; exec sleep 100000",
    ])?;
    let _gone = docker.container(&id);
    eventually("the container's script is done", || {
        Ok(docker.run(&["exec", &id, "test", "-e", "/ready"])?.code == 0)
    })?;
    let _first = Image(docker.clone(), "committed:1");
    let made = docker.ok(&["commit", &id, "committed:1"])?;
    equal("its ID", docker.inspect("committed:1", "{{.Id}}")?, made)?;
    equal(
        "it goes on",
        docker.inspect(&id, "{{.State.Status}}")?,
        "running".into(),
    )?;
    let look = "cat /a/soft; stat -c '%a %h' /a/b/f; stat -c '%u %g' /a/b; ls /bin/wc 2>&1 | grep -c No; \
                ls /etc/group 2>&1 | grep -c No; cat /etc/passwd; ls -A /vol";
    equal(
        "the new image",
        docker.ok(&["run", "--rm", "committed:1", "sh", "-c", look])?,
        "one\n4750 2\n3 4\n1\n1\nroot:x:0:0::/:/bin/sh".into(),
    )?;
    // Of one that does not run, on top of the first; and one without any change.
    let second = docker.ok(&[
        "run",
        "-d",
        "committed:1",
        "sh",
        "-c",
        "echo two > /a/b/f; rm /a/hard",
    ])?;
    let _second = docker.container(&second);
    docker.ok(&["wait", &second])?;
    let _image = Image(docker.clone(), "committed:2");
    docker.ok(&["commit", &second, "committed:2"])?;
    equal(
        "the second image",
        docker.ok(&[
            "run",
            "--rm",
            "committed:2",
            "sh",
            "-c",
            "cat /a/soft; ls /a",
        ])?,
        "two\nb\nsoft".into(),
    )
}

fn described(docker: &Docker) -> Result<()> {
    let id = docker.ok(&[
        "run",
        "-d",
        "--name",
        "describes",
        "-e",
        "A=1",
        BUSYBOX,
        "sleep",
        "100000",
    ])?;
    let _gone = docker.container(&id);
    let since = docker.ok(&["info", "--format", "{{.SystemTime}}"])?;
    let _image = Image(docker.clone(), "described");
    docker.ok(&[
        "commit",
        "-a",
        "An Author",
        "-m",
        "a comment",
        "-c",
        "CMD [\"echo\", \"hi\"]",
        "-c",
        "ENV B=$A",
        "-c",
        "LABEL k=v",
        "-c",
        "EXPOSE 80",
        "-c",
        "WORKDIR /tmp",
        "describes",
        "described",
    ])?;
    equal(
        "what inspect shows",
        docker.inspect("described", "{{.Author}}|{{.Comment}}|{{.Config.Cmd}}|{{.Config.Labels.k}}|{{.Config.WorkingDir}}|{{.Config.ExposedPorts}}")?,
        "An Author|a comment|[echo hi]|v|/tmp|map[80/tcp:{}]".into(),
    )?;
    holds(&docker.inspect("described", "{{.Config.Env}}")?, "A=1")?;
    holds(&docker.inspect("described", "{{.Config.Env}}")?, "B=1")?;
    let history = docker.ok(&[
        "history",
        "--no-trunc",
        "--format",
        "{{.CreatedBy}}|{{.Comment}}",
        "described",
    ])?;
    holds(&history, "sleep 100000|a comment")?;
    equal(
        "it runs",
        docker.ok(&["run", "--rm", "described"])?,
        "hi".into(),
    )?;
    eventually(
        "it is told, and that the container stood still meanwhile",
        || {
            let told = actions_since(docker, "container=describes", &since)?;
            Ok(told.windows(3).any(|w| w == ["pause", "unpause", "commit"]))
        },
    )?;
    let _bare = Image(docker.clone(), "bare");
    docker.ok(&["commit", "--pause=false", "describes", "bare"])?;
    for (args, words) in [
        (
            ["commit", "-c", "RUN x", "describes"].as_slice(),
            "run is not a valid change command",
        ),
        (&["commit", "no-such-container"], "No such container"),
        (&["commit", "describes", "UPPER"], "lowercase"),
    ] {
        let out = docker.run(args)?;
        ensure!(out.code != 0, "{args:?} was taken");
        holds(&out.errors(), words)?;
    }
    Ok(())
}

/// Layers from the 21st on share a VMDK, which an image with one more cannot have.
fn many_layers(docker: &Docker) -> Result<()> {
    const BASE: &str = "mooring-test/many";
    // It stays: another test may be pulling it.
    load(docker, "many")?;
    let ids = |image: &str| -> Result<Vec<String>> {
        let list = docker.inspect(image, "{{json .RootFS.Layers}}")?;
        Ok(serde_json::from_str(&list)?)
    };
    let mut below = BASE;
    let mut made = Vec::new();
    for (name, script) in [
        (
            "committed-many:1",
            "echo one > /layers/one; rm /layers/last",
        ),
        ("committed-many:2", "echo two > /layers/two; rm /layers/126"),
    ] {
        let id = docker.ok(&["run", "-d", below, "sh", "-c", script])?;
        let _gone = docker.container(&id);
        docker.ok(&["wait", &id])?;
        made.push(Image(docker.clone(), name));
        docker.ok(&["commit", &id, name])?;
        let (was, is) = (ids(below)?, ids(name)?);
        equal("layers below", &is[..is.len() - 1], &was[..])?;
        below = name;
    }
    let look = "cat /layers/one /layers/two; ls /layers | wc -l; ls /layers/last /layers/126 2>&1 | grep -c No";
    // 86 in the image, two more, two less.
    equal(
        "what the process sees",
        docker.ok(&["run", "--rm", below, "sh", "-c", look])?,
        "one\ntwo\n86\n2".into(),
    )?;
    let archive = docker.run(&["save", below])?.ok()?;
    let all = files(&archive.stdout)?;
    for (name, bytes) in &all {
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            equal(name, layers::Digest::of(bytes).hex(), hex.to_owned())?;
        }
    }
    let manifest: serde_json::Value = serde_json::from_slice(&all["manifest.json"])?;
    let saved = manifest[0]["Layers"].as_array().context("a list")?;
    let saved: Vec<String> = saved
        .iter()
        .filter_map(|name| Some(name.as_str()?.replace("blobs/sha256/", "sha256:")))
        .collect();
    equal("the saved layers", saved, ids(below)?)
}
