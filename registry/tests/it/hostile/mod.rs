//! Requests of bad will, made at random: names, paths, digests, queries, tokens. Whoever sends them gets nothing that is
//! not theirs to read, changes nothing that is not theirs to change, and reaches nothing outside of the registry's folder.

mod callers;
mod forged;
mod requests;
mod world;

use crate::harness::*;
use callers::Caller;
use forged::forged;
use requests::Hostile;
use std::collections::BTreeMap;
use world::{World, send};

/// Sent by one caller before what is kept is looked at.
const BATCH: usize = 20;

/// Nobody is ever shown these: hashes, the database, what lies beside the registry's folder.
const NEVER: [&str; 4] = ["$argon2", "SQLite format", "never-shown", "root:x:0"];

/// What the requests of a run came to: a run that is only ever turned away at the door shows nothing.
#[derive(Debug, Default)]
struct Reached {
    statuses: BTreeMap<u16, usize>,
    /// Requests that changed something.
    changes: usize,
    /// Secrets that were shown to who may see them.
    shown: usize,
    /// Actions in repositories that tokens were given for.
    granted: usize,
}

async fn attack(world: &World, caller: &Caller, random: &mut Random, reached: &mut Reached) {
    let before = (world.kept(caller), world.outside());
    let mut sent = Vec::new();
    for _ in 0..BATCH {
        let request = Hostile::new(world, random);
        let answer = send(world, caller, &request).await;
        sent.push(format!("{request:?} -> {}", answer.status));
        let told = || format!("{}: {request:?}\n{}", caller.name, answer.text);
        assert!(answer.status < 500, "{}", told());
        assert!(answer.status >= 200, "no answer at all: {}", told());
        for secret in NEVER {
            assert!(
                !answer.text.contains(secret),
                "{secret} was shown to {}",
                told()
            );
        }
        for secret in answer.secrets() {
            let may = caller.sees.iter().any(|s| secret.starts_with(s.as_str()));
            assert!(may, "{secret} was shown to {}", told());
            reached.shown += 1;
        }
        *reached.statuses.entry(answer.status).or_default() += 1;
        if answer.status < 300 && !matches!(request.method, "GET" | "HEAD") {
            reached.changes += 1;
        }
        if caller.sees_nothing {
            // Who comes with a forged token is refused even where nobody has to sign in.
            let open = request.target.starts_with("/v2") || request.target.starts_with("/token");
            assert!(!open || answer.status >= 400, "{}", told());
        }
        for (name, actions) in answer.granted() {
            let project = name.split('/').next().unwrap();
            for action in actions {
                let may = caller.may(project, &action);
                assert!(may, "{action} in {name} was granted to {}", told());
                reached.granted += 1;
            }
        }
    }
    let after = (world.kept(caller), world.outside());
    let sent = sent.join("\n");
    assert_eq!(
        before.1, after.1,
        "outside of the folder, after {}:\n{sent}",
        caller.name
    );
    assert_eq!(
        world.strangers(),
        0,
        "blobs of another project, after {}:\n{sent}",
        caller.name
    );
    for (table, rows) in &before.0 {
        let now = &after.0[table];
        assert_eq!(
            rows, now,
            "{table} was changed by {} with one of:\n{sent}",
            caller.name
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_leads_out_of_a_project_or_of_the_storage_folder() {
    let requests = count(2_000, 100_000);
    let world = World::new().await;
    let mut random = Random(seed());
    let mut reached = Reached::default();
    for _ in 0..requests / BATCH {
        // Half of it by those who can do the most harm.
        let writers = random.below(2) == 0;
        let some = world.callers.iter();
        let some: Vec<_> = some.filter(|c| !writers || c.writes.is_some()).collect();
        let caller = some[random.below(some.len())];
        attack(&world, caller, &mut random, &mut reached).await;
        if caller.writes.is_some() {
            world.heal().await;
        }
    }
    println!("{requests} requests: {reached:?}");
    let Reached {
        changes,
        shown,
        granted,
        ..
    } = reached;
    assert!(changes > requests / 500 && shown > requests / 100 && granted > requests / 200);
    world.unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_forged_token_opens_anything() {
    let requests = count(400, 20_000);
    let world = World::new().await;
    let mut random = Random(seed());
    let other = World::new().await;
    let (mut done, mut reached) = (0, Reached::default());
    while done < requests {
        let forged = forged(&world.r, &other.r).await;
        for (name, token) in &forged {
            let caller = Caller::forged(name, token);
            attack(&world, &caller, &mut random, &mut reached).await;
            done += BATCH;
            if done >= requests {
                break;
            }
        }
    }
    println!("{done} requests: {reached:?}");
    assert_eq!((reached.changes, reached.shown, reached.granted), (0, 0, 0));
    world.unharmed().await;
}
