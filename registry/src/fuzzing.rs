//! What must hold of each parser of foreign bytes, whatever they are. `registry/fuzz` drives these with libFuzzer, the
//! property tests below with what is nearly right.

use crate::access::Principal;
use crate::access::policy::Action;
use crate::access::tokens::{Tokens, action_name};
use crate::digest::{Algorithm, Digest};
use crate::distribution::{self, Route};
use crate::metadata::{Metadata, TokenKey, now};
use crate::names::{ProjectName, RepositoryName, Tag, check_user};
use crate::ranges::{self, Wanted};
use crate::token_service::{self, scope};
use crate::{glob, registry::Registry};
use jsonwebtoken::{EncodingKey, Header};
use std::fmt::Display;
use std::path::{Component, Path};
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Whatever has this as its name stays in the folder that it is looked for in, and is written as it is read.
fn is_safe(name: &str) {
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
    assert!(Path::new(name).components().all(plain), "{name}");
    assert!(!name.is_empty() && name.len() <= 512, "{name}");
    assert!(name.bytes().all(|b| b.is_ascii_graphic()), "{name}");
    assert!(!name.contains(['\\', '%', '?', '#', ';']), "{name}");
}

fn one<T: FromStr + Display + PartialEq>(text: &str) -> bool {
    let Ok(parsed) = text.parse::<T>() else {
        return false;
    };
    is_safe(&parsed.to_string());
    assert_eq!(parsed.to_string(), text);
    true
}

/// A name of any kind, or a digest.
pub fn name(text: &str) {
    one::<ProjectName>(text);
    one::<Tag>(text);
    one::<Digest>(text);
    if one::<RepositoryName>(text) {
        let name: RepositoryName = text.parse().expect("it was one");
        assert!(text.starts_with(&format!("{}/", name.project())));
        assert!(name.project().parse::<ProjectName>().is_ok());
        assert!(!text.contains(".."));
    }
    if check_user(text).is_ok() {
        is_safe(text);
        // A robot's name is none of a user's, and a header tells name and password apart.
        assert!(!text.contains(['+', ':', '/']));
    }
    // A pattern that is its own text matches itself, whatever stars are in it.
    assert!(glob::matches(text, text) && glob::matches("*", text));
}

/// A path below `/v2/`, with or without escapes.
pub fn path(text: &str) {
    let Ok(route) = distribution::parse(text) else {
        return;
    };
    let (name, rest) = match &route {
        Route::Base | Route::Catalog => return,
        Route::Blob(name, digest) => (name, format!("blobs/{digest}")),
        Route::Uploads(name) => (name, "blobs/uploads/".to_owned()),
        // Its id is looked up and is never part of a path.
        Route::Upload(name, id) => {
            is_safe(name.as_str());
            assert!(!id.contains('/'));
            return;
        }
        Route::Manifest(name, reference) => (name, format!("manifests/{reference}")),
        Route::Tags(name) => (name, "tags/list".to_owned()),
        Route::Referrers(name, digest) => (name, format!("referrers/{digest}")),
    };
    is_safe(name.as_str());
    // Written down plainly it is the same: what is audited is what was done.
    let again = distribution::parse(&format!("/v2/{name}/{rest}"));
    assert!(again.is_ok_and(|again| again == route), "{text}");
}

/// A manifest that is pushed.
pub fn manifest(bytes: &[u8]) {
    let digest = Digest::of(Algorithm::Sha256, bytes);
    let Ok(new) = distribution::manifest::parse(bytes.to_vec(), None, digest) else {
        return;
    };
    assert_eq!(new.body, bytes);
    let all = new.blobs.iter().chain(&new.optional_blobs);
    let all: Vec<&Digest> = all.chain(&new.children).chain(&new.subject).collect();
    assert!(all.len() <= 10_002);
    all.into_iter().for_each(|d| is_safe(d.as_str()));
    assert!(new.blobs.is_empty() || new.children.is_empty());
}

/// A `Range` and a `Content-Range`.
pub fn range(text: &str) {
    for length in [0, 1, 1000, u64::MAX] {
        if let Wanted::Part(part) = ranges::parse(text, length) {
            assert!(part.start < part.end && part.end <= length);
        }
    }
    if let Some((start, length)) = ranges::chunk(text) {
        assert!(length > 0 && start.checked_add(length).is_some());
    }
}

/// A registry with a public project (`open`), one that is not (`closed`), and a key.
struct World {
    metadata: Arc<Metadata>,
    tokens: Tokens,
    key: TokenKey,
    runtime: tokio::runtime::Runtime,
}

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(world()));

/// One at a time: the one open reader has to do.
fn enter() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn world() -> World {
    let folder = std::env::temp_dir().join(format!("registry-fuzz-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).expect("a folder for a while");
    let metadata = Arc::new(Registry::create(&folder).expect("a registry's files"));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let key = TokenKey {
        id: "key".into(),
        secret: vec![7; 32],
        created: now(),
        retired: None,
    };
    let kept = key.clone();
    let made = metadata.write(move |db| {
        db.create_project(&"open".parse().expect("a name"), true)?;
        db.create_project(&"closed".parse().expect("a name"), false)?;
        db.set_setting("service", b"fuzz")?;
        db.add_token_key(&kept, 0)
    });
    runtime.block_on(made).expect("what they are filled with");
    let tokens = Tokens::new(metadata.clone());
    tokens.service().expect("the metadata can be read");
    // Its files are open by now: nothing is left behind.
    std::fs::remove_dir_all(&folder).expect("the folder was there");
    World {
        metadata,
        tokens,
        key,
        runtime,
    }
}

/// What a client asks a token for, as a query or a form. Nobody in particular gets pulls from the public project, and
/// nothing else.
pub fn scopes(text: &str) {
    let world = enter();
    let form = token_service::Form::parse(text);
    let asked = scope::parse(form.all("scope").chain([text]));
    let granted = world
        .metadata
        .read(|db| scope::grant(db, &Principal::Anonymous, asked))
        .expect("the metadata can be read");
    for grant in granted {
        if grant.kind == "registry" {
            assert_eq!(
                (grant.name.as_str(), &*grant.actions),
                ("catalog", &["*".to_owned()][..])
            );
            continue;
        }
        let name: RepositoryName = grant.name.parse().expect("a repository's name");
        assert_eq!(
            (grant.kind.as_str(), name.project()),
            ("repository", "open")
        );
        let pull = action_name(Action::Pull).expect("it has a name");
        assert_eq!(grant.actions, [pull]);
    }
}

/// A token that somebody made up: it is none. Nor are its claims with the right key, unless they are all that ours are.
pub fn token(text: &str) {
    let world = enter();
    assert!(world.tokens.verify(text).is_err(), "{text}");
    let Ok(claims) = serde_json::from_str::<serde_json::Value>(text) else {
        return;
    };
    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some(world.key.id.clone());
    let key = EncodingKey::from_secret(&world.key.secret);
    let Ok(signed) = jsonwebtoken::encode(&header, &claims, &key) else {
        return;
    };
    let Ok(principal) = world.tokens.verify(&signed) else {
        return;
    };
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&"fuzz".into(), &"fuzz".into())
    );
    let second = |claim: &str| claims[claim].as_i64().expect("a time");
    assert!(second("exp") - second("iat") <= crate::access::tokens::LIFETIME);
    // There is no user and no robot.
    assert_eq!(*principal.subject(), Principal::Anonymous);
}

/// A good token that was damaged: it is refused, or says what it said before.
pub fn damaged(at: usize, byte: u8) {
    let world = enter();
    let made = world.tokens.make(&Principal::Anonymous, Vec::new());
    let token = world.runtime.block_on(made).expect("a token").token;
    let before = world.tokens.verify(&token).expect("it is good");
    let mut bytes = token.clone().into_bytes();
    let at = at % bytes.len();
    bytes[at] = byte;
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text == token || world.tokens.verify(&text).is_err(),
        "{text}"
    );
    assert_eq!(*before.subject(), Principal::Anonymous);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// A sample with some bytes changed, cut or put in.
    fn nearly(samples: Vec<String>) -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            any::<u8>(),
            prop::sample::select(b"./%:\\_-+0aA2ef?#\0".to_vec())
        ];
        let changes =
            prop::collection::vec((any::<prop::sample::Index>(), byte, any::<bool>()), 0..6);
        let cut = prop::option::weighted(0.3, any::<prop::sample::Index>());
        (prop::sample::select(samples), changes, cut).prop_map(|(sample, changes, cut)| {
            let mut bytes = sample.into_bytes();
            for (at, byte, put_in) in changes {
                let at = at.index(bytes.len());
                if put_in {
                    bytes.insert(at, byte);
                } else {
                    bytes[at] = byte;
                }
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        })
    }

    fn texts(samples: Vec<String>) -> impl Strategy<Value = String> {
        nearly(samples).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn own(samples: &[&str]) -> Vec<String> {
        samples.iter().map(|s| (*s).to_owned()).collect()
    }

    fn claims() -> String {
        let now = now() / 1000;
        serde_json::json!({
            "iss": "fuzz", "aud": "fuzz", "sub": "", "exp": now + 300, "nbf": now, "iat": now, "jti": "1",
            "access": [{"type": "repository", "name": "open/a", "actions": ["pull"]}],
            "owner": {"kind": "anonymous"},
        })
        .to_string()
    }

    #[test]
    fn the_sample_of_claims_is_good() {
        let world = enter();
        let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid = Some(world.key.id.clone());
        let key = EncodingKey::from_secret(&world.key.secret);
        let claims: serde_json::Value = serde_json::from_str(&claims()).unwrap();
        let signed = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        assert!(world.tokens.verify(&signed).is_ok());
    }

    proptest! {
        #[test]
        fn any_name_is_safe_or_none(text in texts(own(&[
            "default-project/a/b__c/d.e", "v1.0_x-y", DIGEST, "user@example.org", "a/b-c--d/e",
        ]))) {
            name(&text);
        }

        #[test]
        fn any_path_names_what_it_says_or_nothing(text in texts(vec![
            format!("/v2/p/a/blobs/{DIGEST}"),
            format!("/v2/p%2fa/manifests/{}", DIGEST.replace(':', "%3A")),
            "/v2/p/a/blobs/uploads/0123-4567".into(),
            "/v2/p/a/manifests/../../../q/b/tags/list".into(),
            "/v2/p/%2e%2e/%2e%2e/q/b/tags/list".into(),
            format!("/v2/p/a/b/c/referrers/{DIGEST}"),
        ])) {
            path(&text);
        }

        #[test]
        fn any_manifest_is_taken_or_refused(bytes in nearly(vec![
            format!(r#"{{"schemaVersion":2,"config":{{"digest":"{DIGEST}","size":3}},"layers":[{{"digest":"{DIGEST}","size":3,"urls":["x"]}}]}}"#),
            format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{DIGEST}","size":3}}],"subject":{{"digest":"{DIGEST}","size":1}},"annotations":{{"a":"b"}}}}"#),
        ])) {
            manifest(&bytes);
        }

        #[test]
        fn any_range_is_within_bounds(text in texts(own(&[
            "bytes=0-99", "bytes=-5", "bytes=999-", "0-18446744073709551615", "bytes 5-9/100",
        ]))) {
            range(&text);
        }

        #[test]
        fn any_scope_gives_nobody_more_than_public_pulls(text in texts(own(&[
            "repository:open/a:pull,push,delete",
            "repository:closed/a:pull,* repository:open/../closed/a:pull",
            "scope=repository:closed%2fa:pull&scope=registry:catalog:*&service=x",
            "repository(plugin):open/a:pull repository:open/a/../../closed/a:*",
        ]))) {
            scopes(&text);
        }

        #[test]
        fn any_token_that_was_made_up_is_none(text in texts(vec![
            claims(),
            "eyJhbGciOiJub25lIiwidHlwIjoiSldUIiwia2lkIjoia2V5In0.e30.".into(),
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImtleSJ9.e30.AAAA".into(),
        ])) {
            token(&text);
        }

        #[test]
        fn any_damage_to_a_token_is_found(at in 0usize..1000, byte in any::<u8>()) {
            damaged(at, byte);
        }
    }
}
