//! Users and robots: passwords, locks, secrets.

use crate::harness::*;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::net::IpAddr;

#[tokio::test(flavor = "multi_thread")]
async fn users_are_made_listed_changed_and_removed() {
    let r = Running::start().await;
    let (status, made) = r
        .client
        .api(Method::POST, "/users", json!({"name": "jo@example.org"}))
        .await;
    assert_eq!(status, 201);
    let password = made["password"].as_str().unwrap();
    let jo = r.client.signed_in("jo@example.org", password);
    assert_eq!(jo.get("/v2/").await.status(), StatusCode::OK);
    let path = "/users/jo%40example.org";
    let (_, own) = jo.api(Method::GET, path, json!(null)).await;
    assert_eq!(own["administrator"], false);
    let (_, page) = r
        .client
        .api(
            Method::GET,
            "/users?limit=2&after=devops-admin",
            json!(null),
        )
        .await;
    assert_eq!(page[0]["name"], "jo@example.org");
    assert_eq!(page.as_array().unwrap().len(), 2);
    assert!(!page.to_string().contains("argon2"));
    // Their own password they change with the old one only.
    let change = |current: Value| json!({"current": current, "password": "another password"});
    for current in [Value::Null, json!("wrong password")] {
        let own = format!("{path}/password");
        let (status, _) = jo.api(Method::PUT, &own, change(current)).await;
        assert_eq!(status, 401);
    }
    let own = format!("{path}/password");
    assert_eq!(
        jo.api(Method::PUT, &own, change(json!(password))).await.0,
        200
    );
    refused(jo.get("/v2/").await, 401, "UNAUTHORIZED").await;
    let jo = r.client.signed_in("jo@example.org", "another password");
    assert_eq!(jo.get("/v2/").await.status(), StatusCode::OK);
    for (disabled, status) in [(true, 401), (false, 200)] {
        let body = json!({"disabled": disabled});
        assert_eq!(r.client.api(Method::PATCH, path, body).await.0, 204);
        assert_eq!(jo.get("/v2/").await.status().as_u16(), status);
    }
    assert_eq!(r.client.api(Method::DELETE, path, json!(null)).await.0, 204);
    refused(jo.get("/v2/").await, 401, "UNAUTHORIZED").await;
    assert_eq!(r.client.api(Method::DELETE, path, json!(null)).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_administrator_must_stay() {
    let r = Running::start().await;
    let path = "/users/admin";
    for body in [json!({"administrator": false}), json!({"disabled": true})] {
        assert_eq!(r.client.api(Method::PATCH, path, body).await.0, 409);
    }
    assert_eq!(r.client.api(Method::DELETE, path, json!(null)).await.0, 409);
    let second = json!({"administrator": true});
    assert_eq!(
        r.client.api(Method::PATCH, "/users/viewer", second).await.0,
        204
    );
    assert_eq!(r.client.api(Method::DELETE, path, json!(null)).await.0, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn weak_passwords_and_bad_names_are_refused_with_what_would_be_right() {
    let r = Running::start().await;
    for (name, password, says) in [
        ("jo", "short", "10 to 256"),
        ("jo", "aaaaaaaaaaaaaaa", "different characters"),
        ("jorinde", "i am jorinde", "user's name"),
        ("jo", "password12", "guessed first"),
        ("Jo", "a fine password", "lower-case"),
        ("a+b", "a fine password", "lower-case"),
    ] {
        let body = json!({"name": name, "password": password});
        let (status, answer) = r.client.api(Method::POST, "/users", body).await;
        assert_eq!(status, 400, "{name} {password}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
    }
    for body in [
        json!([]),
        json!({"name": 1}),
        json!({"name": "jo", "admin": true}),
    ] {
        let (status, answer) = r.client.api(Method::POST, "/users", body).await;
        assert_eq!(status, 422);
        assert!(answer["message"].is_string(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_failures_slow_a_name_down_and_nobody_learns_whether_it_is_a_user_s() {
    let r = Running::start().await;
    let right = r.client.signed_in("developer", PASSWORD);
    let mut told = Vec::new();
    for name in ["developer", "no-such-user"] {
        let wrong = r.client.signed_in(name, "a wrong password");
        for _ in 0..10 {
            refused(wrong.get("/v2/").await, 401, "UNAUTHORIZED").await;
        }
        let answer = wrong.get("/v2/").await;
        let seconds: u64 = header(&answer, "retry-after").parse().unwrap();
        assert!((1..=31).contains(&seconds));
        told.push(refused(answer, 429, "TOOMANYREQUESTS").await["errors"][0]["code"].clone());
    }
    assert_eq!(told[0], told[1]);
    // The right password does not help now, at no door.
    refused(right.get("/v2/").await, 429, "TOOMANYREQUESTS").await;
    refused(right.get("/token").await, 429, "TOOMANYREQUESTS").await;
    assert_eq!(
        right.api(Method::GET, "/projects", json!(null)).await.0,
        429
    );
    // Others are not concerned, and an administrator unlocks.
    let viewer = r.client.signed_in("viewer", PASSWORD);
    assert_eq!(viewer.get("/v2/").await.status(), StatusCode::OK);
    let unlock = json!({"unlock": true});
    assert_eq!(
        r.client
            .api(Method::PATCH, "/users/developer", unlock)
            .await
            .0,
        204
    );
    assert_eq!(right.get("/v2/").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signed_in_a_moment_ago_is_not_locked_out_by_somebody_who_guesses() {
    let r = Running::start().await;
    let right = r.client.signed_in("developer", PASSWORD);
    assert_eq!(right.get("/v2/").await.status(), StatusCode::OK);
    let wrong = r.client.signed_in("developer", "a wrong password");
    for _ in 0..11 {
        wrong.get("/v2/").await;
    }
    refused(wrong.get("/v2/").await, 429, "TOOMANYREQUESTS").await;
    assert_eq!(right.get("/v2/").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_keeps_nobody_out_who_comes_from_elsewhere() {
    let r = Running::start().await;
    let wrong = r.client.signed_in(ADMIN, "a wrong password");
    for _ in 0..10 {
        refused(wrong.get("/v2/").await, 401, "UNAUTHORIZED").await;
    }
    refused(r.client.get("/v2/").await, 429, "TOOMANYREQUESTS").await;
    let elsewhere = Client::builder()
        .no_proxy()
        .local_address("127.0.0.2".parse::<IpAddr>().unwrap());
    let elsewhere = Remote {
        http: elsewhere.build().unwrap(),
        ..r.client.clone()
    };
    assert_eq!(elsewhere.get("/v2/").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sign_ins_and_of_new_passwords_hashes_few_at_once() {
    let r = Running::start().await;
    let jo = json!({"name": "jo", "password": PASSWORD});
    assert_eq!(r.client.api(Method::POST, "/users", jo).await.0, 201);
    let jo = r.client.signed_in("jo", PASSWORD);
    assert_eq!(jo.get("/v2/").await.status(), StatusCode::OK);
    let mut tasks = Vec::new();
    for n in 0..40 {
        let wrong = r.client.signed_in(&format!("user{n}"), "a wrong password");
        tasks.push(tokio::spawn(async move {
            (401, wrong.get("/v2/").await.status().as_u16())
        }));
        // To the same password as before, for whoever comes later knows it.
        let (change, jo) = (
            json!({"current": PASSWORD, "password": PASSWORD}),
            jo.clone(),
        );
        tasks.push(tokio::spawn(async move {
            (
                200,
                jo.api(Method::PUT, "/users/jo/password", change).await.0,
            )
        }));
    }
    let mut sent_away = 0;
    for task in tasks {
        let (wanted, status) = task.await.unwrap();
        // 429: too many wait. 401: signed in with what another one replaced meanwhile.
        assert!([wanted, 429, 401].contains(&status), "{status}");
        sent_away += usize::from(status == 429);
    }
    let load = r.registry.credentials.hashing.load();
    assert!((1..=4).contains(&load.most_hashing), "{load:?}");
    assert!(load.most_waiting <= 64, "{load:?}");
    assert!(
        sent_away == 0 || load.most_waiting == 64,
        "{sent_away} {load:?}"
    );
    assert_eq!((load.hashing, load.waiting), (0, 0));
    assert_eq!(r.client.get("/v2/").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_robot_s_secret_works_until_it_is_renewed_disabled_removed_or_expired() {
    let r = Running::start().await;
    let robots = "/projects/private/robots";
    let new = json!({"name": "ci", "actions": ["push"], "days": 1});
    let (status, made) = r.client.api(Method::POST, robots, new.clone()).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(r.client.api(Method::POST, robots, new).await.0, 409);
    let login = |made: &Value| {
        r.client.signed_in(
            made["login"].as_str().unwrap(),
            made["secret"].as_str().unwrap(),
        )
    };
    let first = login(&made);
    first.push_image("private/a", "v1", &[b"1"]).await;
    let token = first.with_token(&["repository:private/a:pull"]).await;
    let manifest = "/v2/private/a/manifests/v1";
    assert_eq!(token.get(manifest).await.status(), StatusCode::OK);
    let (_, list) = r.client.api(Method::GET, robots, json!(null)).await;
    assert_eq!(list[0]["login"], "private+ci");
    assert_eq!(list[0]["actions"], json!(["pull", "push"]));
    assert!(list[0].get("secret").is_none());

    let one = "/projects/private/robots/ci";
    let (_, made) = r
        .client
        .api(Method::POST, &format!("{one}/secret"), json!({}))
        .await;
    let second = login(&made);
    refused(first.get(manifest).await, 401, "UNAUTHORIZED").await;
    refused(token.get(manifest).await, 401, "UNAUTHORIZED").await;
    assert_eq!(second.get(manifest).await.status(), StatusCode::OK);
    let token = second.with_token(&["repository:private/a:pull"]).await;
    for (disabled, status) in [(true, 401), (false, 200)] {
        let body = json!({"disabled": disabled});
        assert_eq!(r.client.api(Method::PATCH, one, body).await.0, 204);
        assert_eq!(second.get(manifest).await.status().as_u16(), status);
    }
    refused(token.get(manifest).await, 401, "UNAUTHORIZED").await;
    // Its end has come: as it will tomorrow.
    let hash = registry::access::secret::hash(made["secret"].as_str().unwrap());
    r.registry
        .metadata
        .write(move |db| {
            let project = db.project("private")?.unwrap();
            db.renew_robot(project.id, "ci", &hash, registry::metadata::now() - 1)
        })
        .await
        .unwrap();
    refused(second.get(manifest).await, 401, "UNAUTHORIZED").await;
    assert_eq!(r.client.api(Method::DELETE, one, json!(null)).await.0, 204);
    for bad in [
        json!({"name": "x", "actions": ["administer"]}),
        json!({"name": "x", "actions": []}),
        json!({"name": "X", "actions": ["pull"]}),
        json!({"name": "x", "actions": ["pull"], "days": 0}),
        json!({"name": "x", "actions": ["pull"], "days": 100_000}),
    ] {
        assert_eq!(
            r.client.api(Method::POST, robots, bad.clone()).await.0,
            400,
            "{bad}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_are_made_with_an_administrator_and_removed_when_empty() {
    let r = Running::start().await;
    let new = json!({"name": "team", "administrator": "somebody"});
    let (status, made) = r.client.api(Method::POST, "/projects", new.clone()).await;
    assert_eq!((status, &made["public"]), (201, &json!(false)));
    assert_eq!(r.client.api(Method::POST, "/projects", new).await.0, 409);
    let somebody = r.client.signed_in("somebody", PASSWORD);
    let (_, members) = somebody
        .api(Method::GET, "/projects/team/members", json!(null))
        .await;
    assert_eq!(members[0]["role"], "devops-admin");
    let nobody = json!({"name": "other", "administrator": "nobody"});
    assert_eq!(r.client.api(Method::POST, "/projects", nobody).await.0, 404);
    let (_, all) = r.client.api(Method::GET, "/projects", json!(null)).await;
    assert!(
        !all.to_string().contains("other"),
        "nothing half-made is left"
    );

    somebody.push_image("team/a", "v1", &[b"1"]).await;
    let path = "/projects/team";
    assert_eq!(r.client.api(Method::DELETE, path, json!(null)).await.0, 409);
    assert_eq!(
        r.client
            .api(Method::DELETE, "/projects/default-project", json!(null))
            .await
            .0,
        409
    );
    for bad in ["", "A", "a/b", "..", "a b"] {
        let body = json!({"name": bad});
        assert_eq!(
            r.client.api(Method::POST, "/projects", body).await.0,
            400,
            "{bad}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_describes_itself() {
    let r = Running::start().await;
    let api: Value = r
        .client
        .anonymous()
        .get("/api/v1/openapi.json")
        .await
        .json()
        .await
        .unwrap();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = api["paths"].as_object().unwrap();
    for (path, method) in [
        ("/users", "post"),
        ("/projects/{project}/members/{user}", "put"),
        ("/projects/{project}/robots/{robot}/secret", "post"),
        ("/gc", "post"),
    ] {
        let found = &paths[path][method];
        assert!(
            found["summary"].is_string() || found["description"].is_string(),
            "{path} {method}"
        );
        assert!(found["responses"]["403"].is_object(), "{path}");
    }
    assert!(api["components"]["schemas"]["NewUser"]["properties"]["password"].is_object());
}
