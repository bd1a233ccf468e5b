//! The token service, and tokens that must not work.

use crate::harness::*;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use registry::metadata::TokenKey;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const NAME: &str = "private/a";
const MANIFEST: &str = "/v2/private/a/manifests/v1";
const PULL: &str = "repository:private/a:pull";

async fn start() -> Running {
    let r = Running::start().await;
    r.client.push_image(NAME, "v1", &[b"1"]).await;
    r
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part);
    serde_json::from_slice(&bytes.unwrap()).unwrap()
}

pub fn signed(key: &TokenKey, algorithm: Algorithm, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(key.id.clone());
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&key.secret)).unwrap()
}

/// A good token of `viewer` for pulls, its claims, and the key that signed it.
pub async fn good(r: &Running) -> (String, Value, TokenKey) {
    let viewer = r.client.signed_in("viewer", PASSWORD);
    let token = viewer.ask_token(&[PULL], "").await["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let key = r.registry.metadata.read(|db| db.signing_key());
    let claims = claims(&token);
    (token, claims, key.unwrap().unwrap())
}

async fn must_be_refused(r: &Running, token: &str) {
    let answer = r.client.bearer(token).get(MANIFEST).await;
    let challenge = header(&answer, "www-authenticate").to_owned();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    let body = refused(answer, 401, "UNAUTHORIZED").await.to_string();
    // Nothing of it comes back.
    assert!(!body.contains(token.rsplit('.').next().unwrap_or(token)) || token.len() < 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_finds_the_token_service_and_pulls_with_what_it_gets() {
    let r = start().await;
    let answer = r.client.anonymous().get(MANIFEST).await;
    let challenge = header(&answer, "www-authenticate").to_owned();
    let realm = format!("Bearer realm=\"{}/token\"", r.client.base);
    assert!(challenge.starts_with(&realm), "{challenge}");
    assert!(
        challenge.contains("scope=\"repository:private/a:pull\""),
        "{challenge}"
    );
    let viewer = r.client.signed_in("viewer", PASSWORD);
    let answer = viewer.ask_token(&[PULL], "").await;
    assert_eq!(answer["token"], answer["access_token"]);
    assert!(answer["expires_in"].as_i64().unwrap() >= 60);
    assert!(answer["issued_at"].is_string());
    assert!(answer.get("refresh_token").is_none());
    let claims = claims(answer["token"].as_str().unwrap());
    for claim in ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"] {
        assert!(!claims[claim].is_null(), "{claim}");
    }
    assert_eq!(claims["sub"], "viewer");
    assert_eq!(
        claims["access"],
        json!([{"type": "repository", "name": NAME, "actions": ["pull"]}])
    );
    assert!(challenge.contains(claims["aud"].as_str().unwrap()));
    let token = r.client.bearer(answer["token"].as_str().unwrap());
    assert_eq!(token.get(MANIFEST).await.status(), StatusCode::OK);
    assert_eq!(token.get("/v2/").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_actions_than_asked_for_are_no_error() {
    let r = start().await;
    let all = "repository:private/a:pull,push,delete";
    for (user, wanted) in [
        ("somebody", json!([])),
        ("viewer", json!(["pull"])),
        ("developer", json!(["pull", "push"])),
        ("devops-admin", json!(["pull", "push", "delete"])),
    ] {
        let client = r.client.signed_in(user, PASSWORD);
        let answer = client
            .ask_token(&[all, "nonsense", "repository:x:pull"], "")
            .await;
        let access = &claims(answer["token"].as_str().unwrap())["access"];
        let got = access[0].get("actions").cloned().unwrap_or(json!([]));
        assert_eq!(got, wanted, "{user}");
    }
    let nobody = r.client.anonymous();
    let public = nobody
        .with_token(&["repository:default-project/x:pull,push"])
        .await;
    let answer = public.post("/v2/default-project/x/blobs/uploads/").await;
    refused(answer, 401, "UNAUTHORIZED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_refused() {
    let r = start().await;
    let (_, mut claims, key) = good(&r).await;
    // The same claims with a time that is good are: it is the time that is refused.
    let token = signed(&key, Algorithm::HS256, &claims);
    let answer = r.client.bearer(&token).get(MANIFEST).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let now = claims["iat"].as_i64().unwrap();
    claims["exp"] = json!(now - 60);
    must_be_refused(&r, &signed(&key, Algorithm::HS256, &claims)).await;
    claims["exp"] = json!(now + 300);
    claims["nbf"] = json!(now + 60);
    must_be_refused(&r, &signed(&key, Algorithm::HS256, &claims)).await;
    for claim in ["exp", "nbf"] {
        for value in [json!("never"), Value::Null] {
            let mut claims = claims.clone();
            claims["nbf"] = json!(now);
            claims[claim] = value;
            must_be_refused(&r, &signed(&key, Algorithm::HS256, &claims)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_token_is_refused() {
    let r = start().await;
    let (token, mut claims, key) = good(&r).await;
    let (head, rest) = token.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let other = TokenKey {
        secret: vec![7; 32],
        ..key.clone()
    };
    must_be_refused(&r, &signed(&other, Algorithm::HS256, &claims)).await;
    // Another way of signing, with the right key.
    must_be_refused(&r, &signed(&key, Algorithm::HS512, &claims)).await;
    // A key that is not there.
    let unknown = TokenKey {
        id: "0".into(),
        ..key.clone()
    };
    must_be_refused(&r, &signed(&unknown, Algorithm::HS256, &claims)).await;
    // More than was signed.
    claims["access"][0]["actions"] = json!(["pull", "push"]);
    let more = signed(&other, Algorithm::HS256, &claims);
    let more = more.split('.').nth(1).unwrap();
    must_be_refused(&r, &format!("{head}.{more}.{signature}")).await;
    // No signature at all.
    use base64::Engine as _;
    let none = format!(r#"{{"alg":"none","typ":"JWT","kid":"{}"}}"#, key.id);
    let none = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(none);
    for forged in [
        format!("{none}.{body}."),
        format!("{none}.{body}.{signature}"),
        format!("{head}.{body}."),
        format!("{head}.{body}"),
        "a.b.c".into(),
        "x".repeat(20_000),
    ] {
        let answer = r.client.bearer(&forged).get(MANIFEST).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{forged}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_another_registry_is_refused() {
    let r = start().await;
    let (_, claims, key) = good(&r).await;
    for claim in ["aud", "iss"] {
        let mut claims = claims.clone();
        claims[claim] = json!("registry-of-somebody-else");
        must_be_refused(&r, &signed(&key, Algorithm::HS256, &claims)).await;
    }
    // Two registries have neither a key nor a name in common.
    let other = start().await;
    let (token, theirs, _) = good(&other).await;
    assert_ne!(theirs["aud"], claims["aud"]);
    must_be_refused(&r, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_and_a_token_of_a_revoked_key_is_refused() {
    let r = start().await;
    let (first, _, old) = good(&r).await;
    let rotate = async |revoke: bool| {
        let body = json!({"revoke": revoke});
        let (status, _) = r.client.api(Method::POST, "/keys/rotate", body).await;
        assert_eq!(status, 204);
    };
    rotate(false).await;
    let (second, _, new) = good(&r).await;
    assert_ne!(old.id, new.id);
    for token in [&first, &second] {
        let answer = r.client.bearer(token).get(MANIFEST).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
    rotate(true).await;
    for token in [&first, &second] {
        must_be_refused(&r, token).await;
    }
    let (third, ..) = good(&r).await;
    let r = r.restart().await;
    let answer = r.client.bearer(&third).get(MANIFEST).await;
    assert_eq!(answer.status(), StatusCode::OK, "a restart ends no token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_rotated_is_good_for_what_it_signed_and_for_its_time_only() {
    let r = start().await;
    let (token, mut claims, old) = good(&r).await;
    let rotate = async |ago: i64| {
        let id = format!("key{ago}");
        let key = TokenKey {
            id,
            created: registry::metadata::now() - ago * 1000,
            ..old.clone()
        };
        let metadata = &r.registry.metadata;
        metadata
            .write(move |db| db.add_token_key(&key, 0))
            .await
            .unwrap();
    };
    // As whoever got hold of the key could make one: good for a day.
    let issued = claims["iat"].as_i64().unwrap();
    claims["exp"] = json!(issued + 86_400);
    must_be_refused(&r, &signed(&old, Algorithm::HS256, &claims)).await;
    // Retired a minute ago: what it signs now is not good, what it signed before is.
    rotate(60).await;
    must_be_refused(&r, &token).await;
    for (claim, value) in [("iat", -90), ("nbf", -90), ("exp", 200)] {
        claims[claim] = json!(issued + value);
    }
    let before = signed(&old, Algorithm::HS256, &claims);
    let answer = r.client.bearer(&before).get(MANIFEST).await;
    assert_eq!(answer.status(), StatusCode::OK);
    // Of a key that was retired six minutes ago, nothing is.
    let (_, mut claims, second) = good(&r).await;
    assert_ne!(second.id, old.id);
    rotate(360).await;
    for (claim, value) in [("iat", -400), ("nbf", -400), ("exp", -101)] {
        claims[claim] = json!(issued + value);
    }
    claims["exp"] = json!(issued + 30);
    claims["iat"] = json!(issued - 269);
    must_be_refused(&r, &signed(&second, Algorithm::HS256, &claims)).await;
    r.registry.tokens.forget_keys().await.unwrap();
    let key = |id: &str| r.registry.metadata.read(|db| db.token_key(id)).unwrap();
    assert!(key(&second.id).is_none(), "its last token has expired");
    assert!(key(&old.id).is_some() && key("key360").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_its_scope_only() {
    let r = start().await;
    r.client.push_image("private/b", "v1", &[b"2"]).await;
    // The owner may do all of this; the token is for less.
    let token = r.client.with_token(&[PULL]).await;
    assert_eq!(token.get(MANIFEST).await.status(), StatusCode::OK);
    for (method, path) in [
        (Method::GET, "/v2/private/b/manifests/v1"),
        (Method::GET, "/v2/private/a/b/manifests/v1"),
        (Method::POST, "/v2/private/a/blobs/uploads/"),
        (Method::DELETE, "/v2/private/a/manifests/v1"),
        (Method::GET, "/v2/_catalog"),
    ] {
        let answer = token.request(method, path).send().await.unwrap();
        let challenge = header(&answer, "www-authenticate").to_owned();
        assert!(challenge.contains("insufficient_scope"), "{challenge}");
        refused(answer, 401, "UNAUTHORIZED").await;
    }
    // It mounts nothing that it could not pull.
    let blob = sha256(b"2");
    let push = r
        .client
        .with_token(&["repository:private/a:pull,push"])
        .await;
    let path = format!("/v2/private/a/blobs/uploads/?mount={blob}&from=private/b");
    assert_eq!(push.post(&path).await.status(), StatusCode::ACCEPTED);
    let both = [
        "repository:private/a:pull,push",
        "repository:private/b:pull",
    ];
    let both = r.client.with_token(&both).await;
    assert_eq!(both.post(&path).await.status(), StatusCode::CREATED);
    // It administers nothing, and gets no other token.
    let (status, _) = token.api(Method::GET, "/users", json!(null)).await;
    assert_eq!(status, 403);
    assert_eq!(
        token.get("/metrics").await.status(),
        StatusCode::UNAUTHORIZED
    );
    let answer = token.get("/token?scope=repository:private/b:pull").await;
    refused(answer, 401, "UNAUTHORIZED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gives_nothing_that_was_taken_from_its_owner_since() {
    let r = start().await;
    let public = "/v2/default-project/a/manifests/v1";
    r.client
        .push_image("default-project/a", "v1", &[b"1"])
        .await;
    let viewer = r
        .client
        .signed_in("viewer", PASSWORD)
        .with_token(&[PULL])
        .await;
    let anybody = r.client.anonymous();
    let anybody = anybody
        .with_token(&["repository:default-project/a:pull"])
        .await;
    assert_eq!(viewer.get(MANIFEST).await.status(), StatusCode::OK);
    assert_eq!(anybody.get(public).await.status(), StatusCode::OK);
    let member = "/projects/private/members/viewer";
    assert_eq!(
        r.client.api(Method::DELETE, member, json!(null)).await.0,
        204
    );
    refused(viewer.get(MANIFEST).await, 403, "DENIED").await;
    let private = json!({"public": false});
    let (status, _) = r
        .client
        .api(Method::PATCH, "/projects/default-project", private)
        .await;
    assert_eq!(status, 204);
    refused(anybody.get(public).await, 401, "UNAUTHORIZED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_somebody_removed_disabled_or_with_a_new_password_is_refused() {
    let r = start().await;
    let token = async |user: &str| {
        let client = r.client.signed_in(user, PASSWORD);
        let answer = client.ask_token(&[PULL], "&offline_token=true").await;
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        (text("token"), text("refresh_token"))
    };
    let (viewer, developer, devops) = (
        token("viewer").await,
        token("developer").await,
        token("devops-admin").await,
    );
    let api = async |method, path: &str, body| {
        let (status, answer) = r.client.api(method, path, body).await;
        assert!((200..300).contains(&status), "{path}: {answer}");
    };
    api(Method::DELETE, "/users/viewer", json!(null)).await;
    let new = json!({"name": "viewer", "password": PASSWORD});
    api(Method::POST, "/users", new).await;
    api(
        Method::PUT,
        "/projects/private/members/viewer",
        json!({"role": "viewer"}),
    )
    .await;
    api(Method::PATCH, "/users/developer", json!({"disabled": true})).await;
    api(Method::PUT, "/users/devops-admin/password", json!({})).await;
    for (access, refresh) in [viewer, developer, devops] {
        must_be_refused(&r, &access).await;
        let answer = post(
            &r,
            &[("grant_type", "refresh_token"), ("refresh_token", &refresh)],
        )
        .await;
        refused(answer, 401, "UNAUTHORIZED").await;
    }
}

async fn post(r: &Running, form: &[(&str, &str)]) -> reqwest::Response {
    let encode = |s: &str| {
        percent_encoding::utf8_percent_encode(s, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let body: Vec<String> = form
        .iter()
        .map(|(k, v)| format!("{k}={}", encode(v)))
        .collect();
    r.client
        .anonymous()
        .request(Method::POST, "/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.join("&"))
        .send()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth2_gives_tokens_for_a_password_and_for_a_refresh_token() {
    let r = start().await;
    let form = [
        ("grant_type", "password"),
        ("username", "developer"),
        ("password", PASSWORD),
        ("client_id", "test"),
        ("access_type", "offline"),
        (
            "scope",
            "repository:private/a:pull repository:private/b:push",
        ),
    ];
    let answer: Value = post(&r, &form).await.json().await.unwrap();
    assert_eq!(
        answer["scope"],
        "repository:private/a:pull repository:private/b:push"
    );
    let refresh = answer["refresh_token"].as_str().unwrap();
    let again = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh),
        ("scope", PULL),
    ];
    let answer: Value = post(&r, &again).await.json().await.unwrap();
    let token = r.client.bearer(answer["access_token"].as_str().unwrap());
    assert_eq!(token.get(MANIFEST).await.status(), StatusCode::OK);
    // It is no token and no password by itself.
    must_be_refused(&r, refresh).await;
    let login = r.client.signed_in("developer", refresh);
    refused(login.get(MANIFEST).await, 401, "UNAUTHORIZED").await;
    for (form, status) in [
        (
            vec![
                ("grant_type", "password"),
                ("username", "developer"),
                ("password", "wrong one"),
            ],
            401,
        ),
        (
            vec![
                ("grant_type", "refresh_token"),
                ("refresh_token", "refresh_0"),
            ],
            401,
        ),
        (vec![("grant_type", "refresh_token")], 400),
        (vec![("grant_type", "implicit")], 400),
        (vec![], 400),
    ] {
        assert_eq!(post(&r, &form).await.status().as_u16(), status, "{form:?}");
    }
    let kept = std::fs::read(r.folder.path().join("metadata.sqlite-wal")).unwrap();
    let secret = refresh.as_bytes();
    assert!(
        !kept.windows(secret.len()).any(|w| w == secret),
        "only its hash is kept"
    );
}
