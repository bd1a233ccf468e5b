//! What was good once, sent again: where, when or as what it is not good.

use crate::harness::*;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const MANIFEST: &str = "/v2/private/a/manifests/v1";
const ALL: &str = "repository:private/a:pull,push,delete";

async fn start() -> Running {
    let r = Running::start().await;
    r.client.push_image("private/a", "v1", &[b"1"]).await;
    r
}

fn text(answer: &Value, key: &str) -> String {
    answer[key].as_str().unwrap().to_owned()
}

async fn form(r: &Running, form: &str) -> reqwest::Response {
    let request = r.client.anonymous().request(Method::POST, "/token");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    request.body(form.to_owned()).send().await.unwrap()
}

async fn is_refused(client: &Remote, path: &str) {
    refused(client.get(path).await, 401, "UNAUTHORIZED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_token_is_refused_as_anything_but_what_it_is() {
    let r = start().await;
    let developer = r.client.signed_in("developer", PASSWORD);
    let answer = developer.ask_token(&[ALL], "&offline_token=true").await;
    let (access, refresh) = (text(&answer, "token"), text(&answer, "refresh_token"));
    let good = r.client.bearer(&access);
    assert_eq!(good.get(MANIFEST).await.status(), StatusCode::OK);

    // An access token is no password, no refresh token, nothing in a query, and no proof for another token.
    is_refused(&r.client.signed_in("developer", &access), MANIFEST).await;
    is_refused(&r.client.signed_in(&access, ""), MANIFEST).await;
    is_refused(&r.client.signed_in("<token>", &access), MANIFEST).await;
    let again = format!("grant_type=refresh_token&refresh_token={access}");
    refused(form(&r, &again).await, 401, "UNAUTHORIZED").await;
    let query = format!("{MANIFEST}?access_token={access}&token={access}");
    is_refused(&r.client.anonymous(), &query).await;
    is_refused(&good, &format!("/token?scope={ALL}")).await;
    // A refresh token is none of them either.
    is_refused(&r.client.bearer(&refresh), MANIFEST).await;
    is_refused(&r.client.signed_in("developer", &refresh), MANIFEST).await;
    // Nor do they work twice in one header, or with another scheme.
    for value in [
        format!("Bearer {access}, Bearer {access}"),
        format!("Bearer {access} {access}"),
        format!("Basic {access}"),
        format!("Token {access}"),
        format!("Bearer{access}"),
        access.clone(),
    ] {
        let request = r.client.anonymous().request(Method::GET, MANIFEST);
        let answer = request.header("authorization", &value).send().await;
        assert_eq!(
            answer.unwrap().status(),
            StatusCode::UNAUTHORIZED,
            "{value}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_token_of_a_robot_is_refused_after_its_secret_was_renewed_or_it_was_made_anew() {
    let r = start().await;
    let robots = "/projects/private/robots";
    let new = json!({"name": "ci", "actions": ["push", "delete"]});
    let make = async || {
        let (status, made) = r.client.api(Method::POST, robots, new.clone()).await;
        assert_eq!(status, 201, "{made}");
        made
    };
    let token = async |made: &Value| {
        let robot = r
            .client
            .signed_in(&text(made, "login"), &text(made, "secret"));
        // Robots get no refresh token: their secret is one.
        let answer = robot.ask_token(&[ALL], "&offline_token=true").await;
        assert!(answer.get("refresh_token").is_none());
        let token = r.client.bearer(&text(&answer, "token"));
        assert_eq!(token.get(MANIFEST).await.status(), StatusCode::OK);
        (robot, token)
    };
    let api = async |method, path: &str, body| {
        let path = format!("{robots}/ci{path}");
        let (status, answer) = r.client.api(method, &path, body).await;
        assert!((200..300).contains(&status), "{path}: {answer}");
        answer
    };
    let (first, of_first) = token(&make().await).await;
    let renewed = api(Method::POST, "/secret", json!({})).await;
    is_refused(&first, MANIFEST).await;
    is_refused(&of_first, MANIFEST).await;
    let (second, of_second) = token(&renewed).await;
    api(Method::PATCH, "", json!({"disabled": true})).await;
    is_refused(&second, MANIFEST).await;
    is_refused(&of_second, MANIFEST).await;
    api(Method::DELETE, "", json!(null)).await;
    token(&make().await).await;
    for (old, of_old) in [(first, of_first), (second, of_second)] {
        is_refused(&old, MANIFEST).await;
        is_refused(&of_old, MANIFEST).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_token_gives_nothing_in_a_project_of_the_same_name_that_came_later() {
    let r = start().await;
    let api = async |method, path: &str, body| {
        let (status, answer) = r.client.api(method, path, body).await;
        assert!((200..300).contains(&status), "{path}: {answer}");
    };
    api(Method::POST, "/projects", json!({"name": "short"})).await;
    let member = json!({"role": "devops-admin"});
    api(Method::PUT, "/projects/short/members/somebody", member).await;
    let new = json!({"name": "ci", "actions": ["push"]});
    let (_, made) = r
        .client
        .api(Method::POST, "/projects/short/robots", new)
        .await;
    let robot = r
        .client
        .signed_in(&text(&made, "login"), &text(&made, "secret"));
    let somebody = r.client.signed_in("somebody", PASSWORD);
    let scope = "repository:short/a:pull,push,delete";
    let tokens = [
        somebody.with_token(&[scope]).await,
        robot.with_token(&[scope]).await,
    ];
    let uploads = "/v2/short/a/blobs/uploads/";
    let mut begun = String::new();
    for token in &tokens {
        let answer = token.post(uploads).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        begun = header(&answer, "location").to_owned();
    }
    api(Method::DELETE, "/projects/short", json!(null)).await;
    api(Method::POST, "/projects", json!({"name": "short"})).await;
    refused(tokens[0].post(uploads).await, 403, "DENIED").await;
    refused(somebody.post(uploads).await, 403, "DENIED").await;
    is_refused(&tokens[1], "/v2/short/a/tags/list").await;
    is_refused(&robot, "/v2/short/a/tags/list").await;
    for client in tokens.iter().chain([&somebody, &robot]) {
        let status = client.get(&begun).await.status().as_u16();
        assert!(matches!(status, 401 | 403), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_upload_s_address_opens_it_to_nobody_who_may_not_push_there() {
    let r = start().await;
    let developer = r.client.signed_in("developer", PASSWORD);
    let begun = developer.post("/v2/private/a/blobs/uploads/").await;
    let at = header(&begun, "location").to_owned();
    let part = developer.request(Method::PATCH, &at).body("12345");
    assert_eq!(part.send().await.unwrap().status(), StatusCode::ACCEPTED);
    let digest = sha256(b"12345");
    let viewer = r.client.signed_in("viewer", PASSWORD);
    let reads = developer.with_token(&["repository:private/a:pull"]).await;
    for (client, status) in [(r.client.anonymous(), 401), (viewer, 403), (reads, 401)] {
        for (method, query) in [
            (Method::GET, String::new()),
            (Method::PATCH, String::new()),
            (Method::PUT, format!("?digest={digest}")),
            (Method::DELETE, String::new()),
        ] {
            let request = client.request(method.clone(), &format!("{at}{query}"));
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{method}");
        }
    }
    // Nor does who may push elsewhere finish it there.
    let elsewhere = at.replace("private/a", "default-project/a");
    for (method, query) in [
        (Method::GET, String::new()),
        (Method::PATCH, String::new()),
        (Method::PUT, format!("?digest={digest}")),
        (Method::DELETE, String::new()),
    ] {
        let request = r.client.request(method, &format!("{elsewhere}{query}"));
        refused(request.send().await.unwrap(), 404, "BLOB_UPLOAD_UNKNOWN").await;
    }
    let put = developer.request(Method::PUT, &format!("{at}?digest={digest}"));
    assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
}
