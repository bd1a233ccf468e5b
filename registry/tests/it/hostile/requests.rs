//! What is sent.

use super::world::{PROJECTS, World, content};
use crate::harness::*;

/// One request, as it goes over the wire.
#[derive(Debug, Clone)]
pub struct Hostile {
    pub method: &'static str,
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
];

/// What joins a name that the caller may use (`A`) with one that they may not (`B`).
const JOINTS: [&str; 24] = [
    "B",
    "A/../../B",
    "A/%2e%2e/%2e%2e/B",
    "A%2f..%2f..%2fB",
    "A/..%2f..%2fB",
    "A//B",
    "/B",
    "//B",
    "./B",
    "A%00/../../B",
    "A/blobs/uploads/../../../../B",
    "A/manifests/../../../B",
    "A%252f..%252f..%252fB",
    "A;B",
    "A?B",
    "A%3fname=B",
    "A%23/B",
    "A\\..\\..\\B",
    "A%5c..%5c..%5cB",
    "A/.B",
    "B%20",
    "B%00",
    "B/",
    "A\u{2025}/B",
];

const OUTSIDE: [&str; 12] = [
    "../secret-outside",
    "..%2fsecret-outside",
    "../../../../../../etc/passwd",
    "..%2f..%2f..%2f..%2fetc%2fpasswd",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "metadata.sqlite",
    "..%2fmetadata.sqlite",
    "registry.toml",
    "..%5cregistry.toml",
    "%2e%2e%2fuploads",
    "sha256:..%2f..%2fsecret-outside",
];

fn pick<'a>(random: &mut Random, from: &[&'a str]) -> &'a str {
    from[random.below(from.len())]
}

fn chance(random: &mut Random, percent: usize) -> bool {
    random.below(100) < percent
}

fn project(random: &mut Random) -> &'static str {
    match random.below(10) {
        0..=3 => "theirs",
        4..=7 => PROJECTS[random.below(PROJECTS.len())],
        8 => "no-project",
        _ => "THEIRS",
    }
}

fn repository(random: &mut Random) -> String {
    let last = pick(random, &["a", "a", "hidden", "new", "a/b", "blobs/uploads"]);
    format!("{}/{last}", project(random))
}

fn name(random: &mut Random) -> String {
    if chance(random, 70) {
        return repository(random);
    }
    let joint = pick(random, &JOINTS);
    let mine = pick(random, &["default-project/a", "private/a"]);
    let theirs = repository(random);
    // One after the other: what is put in has no capitals but of a project that is not there.
    let (before, after) = joint.split_once('B').unwrap_or((joint, ""));
    format!(
        "{}{theirs}{}",
        before.replace('A', mine),
        after.replace('A', mine)
    )
}

fn digest(world: &World, random: &mut Random) -> String {
    let real = &world.digests[random.below(world.digests.len())];
    match random.below(12) {
        0..=6 => real.clone(),
        7 => real.replace(':', "%3a"),
        8 => real.to_uppercase(),
        9 => format!("{real}0"),
        10 => pick(random, &OUTSIDE).to_owned(),
        _ => format!("sha512:{}", real.split(':').nth(1).unwrap_or_default()),
    }
}

fn reference(world: &World, random: &mut Random) -> String {
    match random.below(8) {
        0..=2 => digest(world, random),
        3 | 4 => "v1".into(),
        5 => pick(random, &OUTSIDE).to_owned(),
        6 => "x".repeat(200),
        _ => "v2".into(),
    }
}

fn upload(world: &World, random: &mut Random) -> String {
    match random.below(4) {
        0 | 1 => world.upload.clone(),
        2 => pick(random, &OUTSIDE).to_owned(),
        _ => format!("{}%2f..", world.upload),
    }
}

fn scope(random: &mut Random) -> String {
    let actions = pick(
        random,
        &[
            "pull",
            "push",
            "pull,push,delete",
            "*",
            "",
            "delete,pull,admin",
        ],
    );
    match random.below(8) {
        0..=4 => format!("repository:{}:{actions}", name(random)),
        5 => "registry:catalog:*".into(),
        6 => format!("repository(plugin):{}:{actions}", repository(random)),
        _ => format!(
            "repository:default-project/a:pull%20repository:{}:{actions}",
            repository(random)
        ),
    }
}

fn query(world: &World, random: &mut Random) -> String {
    let mut parts = Vec::new();
    for _ in 0..random.below(4) {
        let part = match random.below(8) {
            0 | 1 => format!("mount={}", digest(world, random)),
            2 | 3 => format!("from={}", name(random)),
            4 => format!("digest={}", digest(world, random)),
            5 => format!(
                "n={}",
                pick(
                    random,
                    &["0", "1", "1000", "-1", "99999999999999999999", "x"]
                )
            ),
            6 => format!("last={}", name(random)),
            _ => format!(
                "{}={}",
                pick(
                    random,
                    &["scope", "q", "project", "user", "format", "artifactType"]
                ),
                name(random)
            ),
        };
        parts.push(part);
    }
    parts.join("&")
}

/// Where something can be asked for: a path, the methods that mean something there, and what is sent along.
struct Place {
    path: String,
    methods: &'static [&'static str],
    body: (&'static str, Vec<u8>),
}

impl Place {
    fn new(path: impl Into<String>, methods: &'static [&'static str], json: &str) -> Self {
        Place {
            path: path.into(),
            methods,
            body: ("application/json", json.as_bytes().to_vec()),
        }
    }

    fn with(self, kind: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Place {
            body: (kind, bytes.into()),
            ..self
        }
    }
}

fn distribution(world: &World, random: &mut Random) -> Place {
    let name = name(random);
    match random.below(10) {
        0 | 1 => Place::new(
            format!("/v2/{name}/blobs/{}", digest(world, random)),
            &["GET", "GET", "HEAD", "DELETE"],
            "",
        ),
        2 | 3 => {
            let (kind, bytes) = manifest(world, random);
            Place::new(
                format!("/v2/{name}/manifests/{}", reference(world, random)),
                &["GET", "GET", "HEAD", "PUT", "PUT", "DELETE"],
                "",
            )
            .with(kind, bytes)
        }
        4 | 5 => {
            let five = sha256(b"12345");
            let query = match random.below(4) {
                0 => format!("?digest={five}"),
                1 => format!(
                    "?mount={}&from={}",
                    digest(world, random),
                    self::name(random)
                ),
                2 => format!("?digest={}", digest(world, random)),
                _ => String::new(),
            };
            Place::new(format!("/v2/{name}/blobs/uploads/{query}"), &["POST"], "")
                .with("application/octet-stream", "12345")
        }
        6 => Place::new(
            format!(
                "/v2/{name}/blobs/uploads/{}?digest={}",
                upload(world, random),
                sha256(b"12345")
            ),
            &["GET", "PATCH", "PUT", "DELETE"],
            "",
        ),
        7 => Place::new(format!("/v2/{name}/tags/list"), &["GET"], ""),
        8 => Place::new(
            format!("/v2/{name}/referrers/{}", digest(world, random)),
            &["GET"],
            "",
        ),
        _ => Place::new("/v2/_catalog", &["GET"], ""),
    }
}

/// What is pushed as a manifest: of blobs that are another project's, or one that is right.
fn manifest(world: &World, random: &mut Random) -> (&'static str, Vec<u8>) {
    let blob = || world.digests[0].parse().unwrap();
    match random.below(4) {
        0 => {
            let layers = [(blob(), 5)];
            (
                OCI_MANIFEST,
                image(&blob(), &layers, &serde_json::json!({})),
            )
        }
        1 => {
            let theirs = world.digests[1].parse().unwrap();
            (OCI_INDEX, index(&[(theirs, 5)]))
        }
        _ => {
            let project = PROJECTS[random.below(PROJECTS.len())];
            (OCI_MANIFEST, content(project, "a").1)
        }
    }
}

fn administration(world: &World, random: &mut Random) -> Place {
    const NAMES: [&str; 6] = [
        "viewer",
        "somebody",
        "admin",
        "..%2fadmin",
        "x%00",
        "secret",
    ];
    let project = match random.below(5) {
        0 => pick(random, &JOINTS)
            .replace('A', "default-project")
            .replace('B', "theirs"),
        _ => project(random).to_owned(),
    };
    let who = pick(random, &NAMES);
    // The rules of all projects are numbered together.
    let n = 1 + random.below(4);
    let (path, methods, json): (String, &'static [&'static str], &str) = match random.below(27) {
        0 => (
            String::new(),
            &["GET", "PATCH", "DELETE"],
            r#"{"public":true}"#,
        ),
        1 => ("/repositories".into(), &["GET"], ""),
        2 => ("/repositories/a".into(), &["DELETE"], ""),
        3 => ("/repositories/a/tags".into(), &["GET"], ""),
        4 => (
            "/repositories/..%2f..%2ftheirs%2fa/tags".into(),
            &["GET"],
            "",
        ),
        5 => ("/members".into(), &["GET"], ""),
        6 => (
            format!("/members/{who}"),
            &["PUT", "DELETE"],
            r#"{"role":"devops-admin"}"#,
        ),
        7 => (
            "/robots".into(),
            &["GET", "POST"],
            r#"{"name":"x","actions":["pull","push","delete"]}"#,
        ),
        8 => (
            format!("/robots/secret-{project}-conf-robot/secret"),
            &["POST"],
            "{}",
        ),
        9 => ("/labels".into(), &["GET"], ""),
        10 => (
            format!("/labels/{who}"),
            &["PUT", "DELETE"],
            r##"{"color":"#000000"}"##,
        ),
        11 => (
            format!(
                "/repositories/a/manifests/{}/labels/{who}",
                digest(world, random)
            ),
            &["PUT", "DELETE"],
            "",
        ),
        12 => (format!("/immutable/{n}"), &["DELETE"], ""),
        13 => (
            "/immutable".into(),
            &["GET", "POST"],
            r#"{"repositories":"none","tags":"none"}"#,
        ),
        14 => (format!("/retention/{n}"), &["DELETE"], ""),
        15 => (
            "/retention".into(),
            &["GET", "POST"],
            r#"{"repositories":"none","tags":"none","keep_days":1}"#,
        ),
        16 => ("/retention/run".into(), &["POST"], r#"{"dry_run":false}"#),
        17 => (format!("/webhooks/{n}"), &["DELETE"], ""),
        18 => (
            "/webhooks".into(),
            &["GET", "POST"],
            r#"{"url":"http://127.0.0.1:1/x"}"#,
        ),
        19 => ("/audit".into(), &["GET"], ""),
        20 => ("/quota".into(), &["PUT"], r#"{"bytes":1}"#),
        _ => return of_registry(who, random),
    };
    Place::new(format!("/api/v1/projects/{project}{path}"), methods, json)
}

/// What is about no project.
fn of_registry(who: &str, random: &mut Random) -> Place {
    let (path, methods, json): (String, &'static [&'static str], &str) = match random.below(10) {
        0 => (
            format!("users/{who}"),
            &["GET", "PATCH", "DELETE"],
            r#"{"administrator":true}"#,
        ),
        1 => (
            format!("users/{who}/password"),
            &["PUT"],
            r#"{"password":"another password"}"#,
        ),
        2 => (
            "users".into(),
            &["GET", "POST"],
            r#"{"name":"x","password":"some password","administrator":true}"#,
        ),
        3 => ("audit".into(), &["GET"], ""),
        4 => ("audit/forget".into(), &["POST"], r#"{"keep_days":1}"#),
        5 => {
            let text = pick(random, &["secret", "a", "theirs", "%25", "_"]);
            (format!("search?text={text}"), &["GET"], "")
        }
        6 => (
            "projects".into(),
            &["GET", "POST"],
            r#"{"name":"x","public":true}"#,
        ),
        7 => ("gc".into(), &["POST"], r#"{"grace_minutes":60}"#),
        8 => ("keys/rotate".into(), &["POST"], r#"{"revoke":true}"#),
        _ => (
            pick(random, &["log", "../../metrics", "openapi.json"]).to_owned(),
            &["GET"],
            "",
        ),
    };
    Place::new(format!("/api/v1/{path}"), methods, json)
}

fn tokens(random: &mut Random) -> Place {
    let query = format!("scope={}&scope={}", scope(random), scope(random));
    let form = format!("grant_type=refresh_token&refresh_token=refresh_0&{query}");
    Place::new(format!("/token?{query}"), &["GET", "GET", "POST"], "")
        .with("application/x-www-form-urlencoded", form)
}

/// Damage to a path that was good or bad before.
fn mutated(mut target: String, random: &mut Random) -> String {
    for _ in 0..1 + random.below(2) {
        let at: Vec<usize> = target.char_indices().skip(1).map(|(i, _)| i).collect();
        if at.is_empty() {
            return target;
        }
        let i = at[random.below(at.len())];
        match random.below(6) {
            0 => {
                let c = target.remove(i);
                let mut buffer = [0; 4];
                let encoded = c.encode_utf8(&mut buffer).bytes();
                let encoded: String = encoded.map(|b| format!("%{b:02x}")).collect();
                target.insert_str(i, &encoded);
            }
            1 => target.insert_str(
                i,
                pick(random, &["/../", "/./", "//", "%2f", "%00", "%", "%zz"]),
            ),
            2 => target.truncate(i),
            3 => target.insert_str(
                i,
                pick(
                    random,
                    &["\u{fe}", "%ff%fe", "\u{435}", "%c0%af", "%e2%80%ae"],
                ),
            ),
            4 => {
                let c = target.remove(i);
                target.insert(i, c.to_ascii_uppercase());
            }
            _ => {
                let tail = target.split_off(i);
                target.push_str(&"a/".repeat(random.below(200)));
                target.push_str(&tail);
            }
        }
    }
    target
}

fn headers(world: &World, random: &mut Random) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    for _ in 0..random.below(3) {
        headers.push(match random.below(9) {
            0 => ("x-http-method-override", "DELETE".to_owned()),
            1 => (
                "x-original-url",
                format!("/v2/{}/tags/list", repository(random)),
            ),
            2 => (
                "x-rewrite-url",
                format!("/v2/{}/tags/list", repository(random)),
            ),
            3 => ("x-forwarded-for", "127.0.0.1".to_owned()),
            4 => ("x-forwarded-user", ADMIN.to_owned()),
            5 => ("range", "bytes=0-".to_owned()),
            6 => (
                "content-range",
                format!("{}-{}", random.below(9), random.below(9)),
            ),
            7 => ("if-none-match", format!("\"{}\"", digest(world, random))),
            _ => ("x-forwarded-host", "theirs/../..".to_owned()),
        });
    }
    headers
}

impl Hostile {
    pub fn new(world: &World, random: &mut Random) -> Self {
        let Place {
            path: mut target,
            methods,
            body: (kind, body),
        } = match random.below(20) {
            0..=10 => distribution(world, random),
            11..=16 => administration(world, random),
            17 | 18 => tokens(random),
            _ => Place::new(pick(random, &OUTSIDE), &["GET"], ""),
        };
        if !target.starts_with('/') {
            target.insert(0, '/');
        }
        if chance(random, 30) {
            let query = query(world, random);
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&query);
        }
        if chance(random, 15) {
            target = mutated(target, random);
        }
        let method = match random.below(10) {
            0 => pick(random, &METHODS),
            _ => pick(random, methods),
        };
        let mut headers = headers(world, random);
        headers.push(("content-type", kind.to_owned()));
        Hostile {
            method,
            // What ends a request's line is not sent: it would be another request.
            target: target.replace([' ', '\r', '\n'], "%20"),
            headers,
            body,
        }
    }
}
