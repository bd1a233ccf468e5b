//! Tokens that are none, made of one that is.

use crate::harness::*;
use crate::tokens::{good, signed};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::Algorithm;
use registry::metadata::TokenKey;
use serde_json::{Value, json};

fn encode(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

/// What is wrong with each, and the token. `other` is another registry.
pub async fn forged(r: &Running, other: &Running) -> Vec<(&'static str, String)> {
    let (token, claims, key) = good(r).await;
    let (theirs, _, their_key) = good(other).await;
    let parts: Vec<&str> = token.split('.').collect();
    let (head, body, signature) = (parts[0], parts[1], parts[2]);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims.clone();
        change(&mut claims);
        claims
    };
    let sign = |claims: &Value| signed(&key, Algorithm::HS256, claims);
    let unsigned = |change: &dyn Fn(&mut Value)| {
        let body = encode(&with(change));
        format!("{head}.{body}.{signature}")
    };
    let header = |alg: &str, kid: &str| encode(&json!({"alg": alg, "typ": "JWT", "kid": kid}));
    let now = claims["iat"].as_i64().unwrap();
    let stranger = TokenKey {
        secret: their_key.secret.clone(),
        ..key.clone()
    };
    let mut flipped = token.clone().into_bytes();
    let at = token.len() - 10;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    vec![
        ("another registry's", theirs),
        (
            "another registry's key",
            signed(&stranger, Algorithm::HS256, &claims),
        ),
        ("the key's name as the key", {
            let guessed = TokenKey {
                secret: key.id.clone().into_bytes(),
                ..key.clone()
            };
            signed(&guessed, Algorithm::HS256, &claims)
        }),
        ("an empty key", {
            let empty = TokenKey {
                secret: Vec::new(),
                ..key.clone()
            };
            signed(&empty, Algorithm::HS256, &claims)
        }),
        ("no key's name", {
            let nameless = TokenKey {
                id: String::new(),
                ..key.clone()
            };
            signed(&nameless, Algorithm::HS256, &claims)
        }),
        ("a path as the key's name", {
            let path = TokenKey {
                id: "../../registry.toml".into(),
                ..key.clone()
            };
            signed(&path, Algorithm::HS256, &claims)
        }),
        (
            "another algorithm, the right key",
            signed(&key, Algorithm::HS384, &claims),
        ),
        (
            "no algorithm",
            format!("{}.{body}.", header("none", &key.id)),
        ),
        (
            "no algorithm in capitals",
            format!("{}.{body}.", header("NONE", &key.id)),
        ),
        (
            "no algorithm, but a signature",
            format!("{}.{body}.{signature}", header("none", &key.id)),
        ),
        (
            "an algorithm of key pairs",
            format!("{}.{body}.{signature}", header("RS256", &key.id)),
        ),
        ("no signature", format!("{head}.{body}.")),
        ("no third part", format!("{head}.{body}")),
        ("a trimmed signature", token[..token.len() - 4].to_owned()),
        (
            "a trimmed body",
            format!("{head}.{}.{signature}", &body[..body.len() - 4]),
        ),
        ("a flipped bit", String::from_utf8(flipped).unwrap()),
        ("a longer signature", format!("{token}AAAA")),
        ("a fourth part", format!("{token}.{signature}")),
        ("twice", format!("{token}.{token}")),
        (
            "another's name, unsigned",
            unsigned(&|c| c["sub"] = json!(ADMIN)),
        ),
        (
            "another's row, unsigned",
            unsigned(&|c| c["owner"]["id"] = json!(1)),
        ),
        (
            "more actions, unsigned",
            unsigned(&|c| c["access"][0]["actions"] = json!(["pull", "push", "delete"])),
        ),
        (
            "another repository, unsigned",
            unsigned(&|c| c["access"][0]["name"] = json!("theirs/a")),
        ),
        (
            "a longer life, unsigned",
            unsigned(&|c| c["exp"] = json!(now + 86_400)),
        ),
        (
            "a longer life, signed",
            sign(&with(&|c| c["exp"] = json!(now + 86_400))),
        ),
        ("expired", sign(&with(&|c| c["exp"] = json!(now - 60)))),
        ("not yet good", sign(&with(&|c| c["nbf"] = json!(now + 60)))),
        (
            "issued later",
            sign(&with(&|c| {
                c["iat"] = json!(now + 3600);
                c["exp"] = json!(now + 3700);
            })),
        ),
        (
            "another audience",
            sign(&with(&|c| c["aud"] = json!("somebody-else"))),
        ),
        (
            "another issuer",
            sign(&with(&|c| c["iss"] = json!("somebody-else"))),
        ),
        ("no audience", sign(&with(&|c| c["aud"] = json!(null)))),
        (
            "an owner who is not there",
            sign(&with(&|c| c["owner"]["id"] = json!(1_000_000))),
        ),
        (
            "an owner of another time",
            sign(&with(&|c| c["owner"]["generation"] = json!(77))),
        ),
        (
            "an owner of no kind",
            sign(&with(&|c| c["owner"]["kind"] = json!("console"))),
        ),
        (
            "rights that are no list",
            sign(&with(&|c| c["access"] = json!({"*": "*"}))),
        ),
        ("empty", String::new()),
        ("dots", "..".into()),
        ("what is no base64", "%.%.%".into()),
        ("too long", "x".repeat(20_000)),
        ("spaces", format!("{head}. {body}.{signature}")),
    ]
}
