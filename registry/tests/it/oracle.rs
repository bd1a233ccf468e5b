//! Pushes, mounts, tags, deletes, reads and collections in random order, by users of all roles in three projects, beside
//! an oracle of sets.

use crate::actors::{Access, Actor, PROJECTS, Right, actors, make_project};
use crate::harness::*;
use registry::gc::{self, Plan};
use reqwest::{Method, StatusCode};
use std::collections::{BTreeMap, BTreeSet};

const REPOSITORIES: usize = 4;
const BLOBS: u64 = 8;
const TAGS: usize = 3;

pub fn name(n: usize) -> String {
    format!("{}/r{n}", PROJECTS[project(n)])
}

/// The project of a repository.
pub fn project(n: usize) -> usize {
    n.saturating_sub(1)
}

fn blob(n: u64) -> Vec<u8> {
    bytes(n, 10 + n as usize * 100)
}

/// A manifest: its bytes and what it needs.
#[derive(Clone)]
struct Held {
    body: Vec<u8>,
    kind: &'static str,
    blobs: BTreeSet<u64>,
    children: BTreeSet<String>,
}

#[derive(Default)]
pub struct Repository {
    blobs: BTreeSet<u64>,
    manifests: BTreeMap<String, Held>,
    pub tags: BTreeMap<String, String>,
}

impl Repository {
    fn needs_blob(&self, n: u64) -> bool {
        self.manifests.values().any(|m| m.blobs.contains(&n))
    }

    fn needs_manifest(&self, digest: &str) -> bool {
        self.manifests.values().any(|m| m.children.contains(digest))
    }

    /// Removes what nothing needs and no tag names; whether there was any.
    fn remove_untagged(&mut self) -> bool {
        let kept: BTreeSet<String> = self
            .manifests
            .keys()
            .filter(|d| self.tags.values().any(|t| t == *d) || self.needs_manifest(d))
            .cloned()
            .collect();
        let before = self.manifests.len();
        self.manifests.retain(|d, _| kept.contains(d));
        self.manifests.len() < before
    }

    /// What a collection without a grace time leaves.
    fn collect(&mut self, untagged: bool) {
        // The death of an index lets others die.
        if untagged {
            while self.remove_untagged() {}
        }
        let needed: BTreeSet<u64> = self
            .blobs
            .iter()
            .copied()
            .filter(|n| self.needs_blob(*n))
            .collect();
        self.blobs = needed;
    }
}

/// All that the registry should hold.
struct Oracle {
    repositories: Vec<Repository>,
    access: Access,
}

/// One step by somebody: does it, and asserts that the registry answers as the oracle does.
async fn step(r: &Running, who: &[Remote], oracle: &mut Oracle, random: &mut Random) {
    // The administrator does most of it, so that there is something to do it with.
    let actor = match random.below(2) {
        0 => Actor::Admin,
        _ => Actor::ALL[random.below(Actor::ALL.len())],
    };
    let client = &who[actor as usize];
    let at = random.below(REPOSITORIES);
    let repository = name(at);
    let n = random.next() % BLOBS;
    let digest = sha256(&blob(n));
    let may = |access: &Access, action| access.may(actor, action, project(at));
    let held = &mut oracle.repositories;
    match random.below(15) {
        0..=2 => {
            let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
            let push = client.request(Method::POST, &path).body(blob(n));
            let may = may(&oracle.access, Right::Push);
            let status = push.send().await.unwrap().status().as_u16();
            assert_eq!(status, actor.answer(may, 201), "{actor:?} pushes a blob");
            if may {
                held[at].blobs.insert(n);
            }
        }
        3 => {
            let from = random.below(REPOSITORIES);
            let path = format!(
                "/v2/{repository}/blobs/uploads/?mount={digest}&from={}",
                name(from)
            );
            let may = may(&oracle.access, Right::Push);
            let there = oracle.access.may(actor, Right::Pull, project(from))
                && held[from].blobs.contains(&n);
            let answer = client.post(&path).await;
            let wanted = actor.answer(may, if there { 201 } else { 202 });
            assert_eq!(answer.status().as_u16(), wanted, "{actor:?} mounts");
            if may && there {
                held[at].blobs.insert(n);
            } else if may {
                assert_eq!(
                    client.delete(header(&answer, "location")).await.status(),
                    StatusCode::NO_CONTENT
                );
            }
        }
        4..=6 => {
            let blobs: BTreeSet<u64> = (0..1 + random.below(3))
                .map(|_| random.next() % BLOBS)
                .collect();
            let mut layers: Vec<_> = blobs
                .iter()
                .map(|n| (sha256(&blob(*n)), blob(*n).len()))
                .collect();
            let (config, _) = layers.remove(0);
            let new = Held {
                body: image(&config, &layers, &serde_json::json!({})),
                kind: OCI_MANIFEST,
                blobs,
                children: BTreeSet::new(),
            };
            put(client, actor, oracle, at, new, random).await;
        }
        7 => {
            let all: Vec<&String> = held[at].manifests.keys().collect();
            if all.is_empty() {
                return;
            }
            let children: BTreeSet<String> = (0..2)
                .map(|_| all[random.below(all.len())].clone())
                .collect();
            let listed: Vec<_> = children.iter().map(|d| (d.parse().unwrap(), 1)).collect();
            let new = Held {
                body: index(&listed),
                kind: OCI_INDEX,
                blobs: BTreeSet::new(),
                children,
            };
            put(client, actor, oracle, at, new, random).await;
        }
        8 => {
            let path = format!("/v2/{repository}/blobs/{digest}");
            let answer = client.delete(&path).await;
            let may = may(&oracle.access, Right::Delete);
            let held = &mut held[at];
            let wanted = if !held.blobs.contains(&n) {
                404
            } else if held.needs_blob(n) {
                405
            } else {
                if may {
                    held.blobs.remove(&n);
                }
                202
            };
            let wanted = actor.answer(may, wanted);
            assert_eq!(answer.status().as_u16(), wanted, "{actor:?} deletes a blob");
        }
        9 => {
            let tag = format!("t{}", random.below(TAGS));
            let path = format!("/v2/{repository}/manifests/{tag}");
            let answer = client.delete(&path).await;
            let may = may(&oracle.access, Right::Delete);
            let there = held[at].tags.contains_key(&tag);
            if may {
                held[at].tags.remove(&tag);
            }
            let wanted = actor.answer(may, if there { 202 } else { 404 });
            assert_eq!(answer.status().as_u16(), wanted, "{actor:?} deletes a tag");
        }
        10 => {
            let all: Vec<String> = held[at].manifests.keys().cloned().collect();
            if all.is_empty() {
                return;
            }
            let digest = &all[random.below(all.len())];
            let path = format!("/v2/{repository}/manifests/{digest}");
            let answer = client.delete(&path).await;
            let may = may(&oracle.access, Right::Delete);
            let held = &mut held[at];
            let needed = held.needs_manifest(digest);
            if may && !needed {
                held.manifests.remove(digest);
                held.tags.retain(|_, d| d != digest);
            }
            let wanted = actor.answer(may, if needed { 405 } else { 202 });
            assert_eq!(
                answer.status().as_u16(),
                wanted,
                "{actor:?} deletes a manifest"
            );
        }
        11 => {
            let answer = client
                .get(&format!("/v2/{repository}/blobs/{digest}"))
                .await;
            let there = held[at].blobs.contains(&n);
            let may = may(&oracle.access, Right::Pull);
            let wanted = actor.answer(may, if there { 200 } else { 404 });
            assert_eq!(answer.status().as_u16(), wanted, "{actor:?} reads a blob");
            oracle
                .access
                .lists(actor, client, &oracle.repositories)
                .await;
        }
        12 => oracle.access.publish(actor, client, random).await,
        13 => oracle.access.name_member(actor, client, random).await,
        _ => collect(r, held, random).await,
    }
}

async fn collect(r: &Running, repositories: &mut [Repository], random: &mut Random) {
    let untagged = random.below(2) == 0;
    let plan = Plan {
        grace: -1,
        untagged: untagged.then_some(-1),
        dry_run: false,
    };
    let dry = Plan {
        dry_run: true,
        ..plan
    };
    let told = gc::collect(&r.registry, &dry).await.unwrap();
    let done = gc::collect(&r.registry, &plan).await.unwrap();
    let wanted = gc::Report {
        dry_run: true,
        ..done
    };
    assert_eq!(told, wanted, "the dry run told it");
    repositories
        .iter_mut()
        .for_each(|held| held.collect(untagged));
    let stored: BTreeSet<u64> = repositories
        .iter()
        .flat_map(|h| h.blobs.iter().copied())
        .collect();
    assert_eq!(
        files(r),
        stored.len(),
        "nothing is kept for ever, nothing is lost"
    );
}

async fn put(
    client: &Remote,
    actor: Actor,
    oracle: &mut Oracle,
    at: usize,
    new: Held,
    random: &mut Random,
) {
    let digest = sha256(&new.body).to_string();
    let tag = (random.below(3) > 0).then(|| format!("t{}", random.below(TAGS)));
    let reference = tag.as_deref().unwrap_or(&digest);
    let answer = client
        .put_manifest(&name(at), reference, new.kind, new.body.clone())
        .await;
    let held = &mut oracle.repositories[at];
    let may = oracle.access.may(actor, Right::Push, project(at));
    let there = new.blobs.is_subset(&held.blobs);
    let wanted = actor.answer(may, if there { 201 } else { 400 });
    assert_eq!(
        answer.status().as_u16(),
        wanted,
        "{actor:?} puts a manifest"
    );
    if may && there {
        held.manifests.insert(digest.clone(), new);
        if let Some(tag) = tag {
            held.tags.insert(tag, digest);
        }
    }
}

fn files(r: &Running) -> usize {
    let count = |path: &std::path::Path| std::fs::read_dir(path).unwrap().count();
    let folders = std::fs::read_dir(r.folder.path().join("blobs")).unwrap();
    let settled: usize = folders.map(|f| count(&f.unwrap().path())).sum();
    settled + count(&r.folder.path().join("uploads"))
}

/// All that the oracle has is served, and nothing else is.
async fn compare(r: &Running, oracle: &[Repository]) {
    for (at, held) in oracle.iter().enumerate() {
        let repository = name(at);
        for n in 0..BLOBS {
            let answer = r
                .client
                .get(&format!("/v2/{repository}/blobs/{}", sha256(&blob(n))))
                .await;
            assert_eq!(
                answer.status() == StatusCode::OK,
                held.blobs.contains(&n),
                "blob {n} of {repository}"
            );
            if held.blobs.contains(&n) {
                assert_eq!(answer.bytes().await.unwrap(), blob(n));
            }
        }
        for (digest, manifest) in &held.manifests {
            let answer = r
                .client
                .get(&format!("/v2/{repository}/manifests/{digest}"))
                .await;
            assert_eq!(answer.bytes().await.unwrap(), manifest.body);
        }
        for n in 0..TAGS {
            let answer = r
                .client
                .head(&format!("/v2/{repository}/manifests/t{n}"))
                .await;
            let found = answer
                .headers()
                .get("docker-content-digest")
                .map(|d| d.to_str().unwrap());
            assert_eq!(found, held.tags.get(&format!("t{n}")).map(String::as_str));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_steps_agree_with_an_oracle() {
    let steps = count(400, 1_000_000);
    let mut r = Running::start().await;
    make_project(&r.client).await;
    let mut who = actors(&r.client).await;
    let mut oracle = Oracle {
        repositories: (0..REPOSITORIES).map(|_| Repository::default()).collect(),
        access: Access::default(),
    };
    let mut random = Random(seed());
    for n in 1..=steps {
        step(&r, &who, &mut oracle, &mut random).await;
        if n % 100 == 0 {
            compare(&r, &oracle.repositories).await;
        }
        if n % 10_000 == 0 || n == 200 {
            r = r.restart().await;
            who.iter_mut()
                .for_each(|w| w.base.clone_from(&r.client.base));
        }
    }
    compare(&r, &oracle.repositories).await;
}

/// Many at once, with a collection that leaves no grace time always under way: what was acknowledged last holds together.
#[tokio::test(flavor = "multi_thread")]
async fn pushes_mounts_tags_and_deletes_beside_collections_leave_nothing_dangling() {
    let rounds = count(100, 80_000) / 4;
    let r = Running::start().await;
    make_project(&r.client).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let (registry, until) = (r.registry.clone(), stop.clone());
    let collecting = tokio::spawn(async move {
        let plan = Plan {
            grace: -1,
            untagged: Some(-1),
            dry_run: false,
        };
        while !until.is_cancelled() {
            gc::collect(&registry, &plan).await.unwrap();
        }
    });
    let mut work = Vec::new();
    for worker in 0..4 {
        let (client, mut random) = (r.client.clone(), Random(seed() + worker));
        work.push(tokio::spawn(async move {
            for _ in 0..rounds {
                act(&client, &mut random).await;
            }
        }));
    }
    for worker in work {
        worker.await.unwrap();
    }
    stop.cancel();
    collecting.await.unwrap();
    let mut seen = 0;
    for at in 0..REPOSITORIES {
        for tag in 0..TAGS {
            let answer = r
                .client
                .get(&format!("/v2/{}/manifests/t{tag}", name(at)))
                .await;
            if answer.status() == StatusCode::NOT_FOUND {
                continue;
            }
            let manifest: serde_json::Value = answer.json().await.unwrap();
            let layers = manifest["layers"].as_array().unwrap().iter();
            for descriptor in layers.chain([&manifest["config"]]) {
                let digest = descriptor["digest"].as_str().unwrap();
                let answer = r
                    .client
                    .get(&format!("/v2/{}/blobs/{digest}", name(at)))
                    .await;
                assert_eq!(answer.status(), StatusCode::OK, "no reference dangles");
                assert_eq!(sha256(&answer.bytes().await.unwrap()).as_str(), digest);
                seen += 1;
            }
        }
    }
    assert!(seen > 0, "some image was there at the end");
}

async fn act(client: &Remote, random: &mut Random) {
    let (at, n) = (name(random.below(REPOSITORIES)), random.next() % BLOBS);
    let tag = format!("t{}", random.below(TAGS));
    match random.below(8) {
        0 => {
            client.delete(&format!("/v2/{at}/manifests/{tag}")).await;
        }
        1 => {
            client
                .delete(&format!("/v2/{at}/blobs/{}", sha256(&blob(n))))
                .await;
        }
        _ => {
            // A collection may take what came before the manifest: then, as a client does, once more.
            for _ in 0..1000 {
                client.push_blob(&at, b"{}").await;
                let from = name(random.below(REPOSITORIES));
                let digest = sha256(&blob(n));
                let mount = format!("/v2/{at}/blobs/uploads/?mount={digest}&from={from}");
                let answer = client.request(Method::POST, &mount).send().await.unwrap();
                if answer.status() != StatusCode::CREATED {
                    client.push_blob(&at, &blob(n)).await;
                }
                let body = image(&sha256(b"{}"), &[(digest, 1)], &serde_json::json!({}));
                let put = client.put_manifest(&at, &tag, OCI_MANIFEST, body).await;
                if put.status() == StatusCode::CREATED {
                    return;
                }
                refused(put, 400, "MANIFEST_BLOB_UNKNOWN").await;
            }
            panic!("a push was starved by collections");
        }
    }
}
