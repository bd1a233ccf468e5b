//! Who may do what, cell by cell, over HTTP.

use crate::cells::{Stage, WHO, cells};
use crate::harness::*;
use registry::access::Action;
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_what_the_table_says_and_nothing_else() {
    let stage = Stage::set().await;
    let digest = sha256(&stage.manifest).to_string();
    let cells = cells(&digest);
    for action in Action::ALL {
        let tried = cells.iter().any(|cell| cell.action == action);
        assert!(tried, "{} is in no cell", action.name());
    }
    let (mut wrong, mut n) = (Vec::new(), 0);
    for cell in cells {
        for (project, expected) in [("default-project", cell.public), ("private", cell.private)] {
            assert_eq!(expected.len(), WHO.len());
            let callers = stage.callers(project);
            for ((name, client), may) in callers.iter().zip(expected.chars()) {
                n += 1;
                let status = stage.ask(&cell, client, project, n).await;
                let wanted = match may {
                    'y' => cell.status,
                    // The operations' page knows one answer.
                    _ if *name == "anonymous" || cell.path == "/metrics" => 401,
                    _ => 403,
                };
                if status != wanted {
                    let (action, method) = (cell.action.name(), &cell.method);
                    let path = cell.path;
                    let line = format!(
                        "{name}: {action} {method} {path} in {project}: {status}, not {wanted}"
                    );
                    wrong.push(line);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a path of the API's description is one that was asked for.
fn fits(template: &str, path: &str) -> bool {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    let path = path.split('?').next().unwrap();
    let (parts, wanted) = (path.split('/'), template.split('/'));
    parts.clone().count() == wanted.clone().count()
        && parts.zip(wanted).all(|(p, w)| p == w || w.starts_with('{'))
}

#[test]
fn no_operation_of_either_api_is_missing_in_the_table() {
    let cells = cells(sha256(b"x").as_str());
    let tried = |method: &str, template: &str| {
        let one = |c: &crate::cells::Cell| c.method == *method && fits(template, c.path);
        assert!(cells.iter().any(one), "{method} {template} is in no cell");
    };
    let api = serde_json::to_value(registry::api::description()).unwrap();
    let mut all = 0;
    for (template, methods) in api["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "patch", "delete"] {
            if methods.get(method).is_some() {
                tried(&method.to_uppercase(), template);
                all += 1;
            }
        }
    }
    assert!(all > 40, "{all} operations are described");
    for (methods, template) in [
        ("GET", "/v2/"),
        ("GET", "/v2/_catalog"),
        ("GET HEAD DELETE", "/v2/{project}/{name}/blobs/{digest}"),
        ("POST", "/v2/{project}/{name}/blobs/uploads/"),
        ("GET HEAD PATCH PUT DELETE", "LOCATION"),
        (
            "GET HEAD PUT DELETE",
            "/v2/{project}/{name}/manifests/{reference}",
        ),
        ("GET", "/v2/{project}/{name}/tags/list"),
        ("GET", "/v2/{project}/{name}/referrers/{digest}"),
        ("GET", "/token"),
        ("GET", "/metrics"),
    ] {
        methods
            .split(' ')
            .for_each(|method| tried(method, template));
    }
}

/// With a token for all that its owner can be given, it is as without one; beyond the distribution API a token is good
/// for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_gives_what_the_table_gives_its_owner_and_opens_nothing_else() {
    let stage = Stage::set().await;
    let digest = sha256(&stage.manifest).to_string();
    let (mut wrong, mut n) = (Vec::new(), 0);
    for cell in cells(&digest) {
        let distribution = cell.path.starts_with("/v2/P/") || cell.path.starts_with("LOCATION");
        for (project, expected) in [("default-project", cell.public), ("private", cell.private)] {
            for ((name, client), may) in stage.callers(project).iter().zip(expected.chars()) {
                // Of those to whom a token gives nothing, one who may everything stands for all.
                if !distribution && *name != ADMIN {
                    continue;
                }
                n += 1;
                let scopes = ["a".to_owned(), format!("r{n}"), format!("b{n}")]
                    .map(|r| format!("repository:{project}/{r}:pull,push,delete"));
                let scopes = scopes.iter().map(String::as_str);
                let scopes: Vec<&str> = scopes.chain(["registry:catalog:*"]).collect();
                let token = client.with_token(&scopes).await;
                let status = stage.ask(&cell, &token, project, n).await;
                let good = if distribution {
                    status
                        == match may {
                            'y' => cell.status,
                            _ if *name == "anonymous" => 401,
                            _ => 403,
                        }
                } else {
                    match cell.path {
                        _ if cell.method != Method::GET => status == 403,
                        // They show what the caller sees, which is nothing here (below).
                        "/api/v1/projects"
                        | "/api/v1/search?text=v1"
                        | "/api/v1/openapi.json"
                        | "/v2/"
                        | "/v2/_catalog" => status == 200,
                        "/metrics" => status == 401,
                        path if path.starts_with("/token") => status == 401,
                        _ => status == 403,
                    }
                };
                if !good {
                    let (method, path) = (&cell.method, cell.path);
                    wrong.push(format!("{name}: {method} {path} in {project}: {status}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let token = stage.r.client.with_token(&["registry:catalog:*"]).await;
    for path in ["/projects", "/search?text=v1"] {
        let (_, listed) = token.api(Method::GET, path, json!(null)).await;
        let listed = listed.to_string();
        assert!(!listed.contains("private"), "{path}: {listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_project_that_is_not_there_everybody_is_answered_as_in_a_private_one() {
    let stage = Stage::set().await;
    let digest = sha256(&stage.manifest).to_string();
    let mut wrong = Vec::new();
    for cell in cells(&digest) {
        let of_project = cell.path.contains("P/") || cell.path.ends_with('P');
        if !of_project && !cell.path.starts_with("LOCATION") || cell.path.starts_with("/token") {
            continue;
        }
        for (name, client) in stage.callers("default-project") {
            let status = stage.ask_nowhere(&cell, &client, "no-project").await;
            let good = match name {
                // An empty list: never 404.
                ADMIN if cell.path.contains("/referrers/") => status == 200,
                // Who may know that it is not there is told.
                ADMIN => (400..500).contains(&status) && !matches!(status, 401 | 403),
                "anonymous" => status == 401,
                _ => status == 403,
            };
            if !good {
                let (method, path) = (&cell.method, cell.path);
                wrong.push(format!("{name}: {method} {path}: {status}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (_, projects) = stage
        .r
        .client
        .api(Method::GET, "/projects", json!(null))
        .await;
    assert!(!projects.to_string().contains("no-project"), "{projects}");
}

/// From where × by whom: a mount gives a blob only to who may pull there and push here, and tells nobody else whether it
/// is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_takes_only_from_where_its_caller_may_pull() {
    let stage = Stage::set().await;
    let client = &stage.r.client;
    let (status, _) = client
        .api(Method::POST, "/projects", json!({"name": "theirs"}))
        .await;
    assert_eq!(status, 201);
    for project in ["default-project", "private", "theirs"] {
        client
            .push_blob(&format!("{project}/from"), b"mounted")
            .await;
    }
    // Into the public project; `r`, `w` and `d` are robots of it.
    //                                       asvddCrwd
    for (from, of_robots, mounts) in [
        ("default-project/from", "default-project", "...yyy.y."),
        ("private/from", "default-project", "...yyy..."),
        ("private/from", "private", "...yyy..."),
        ("theirs/from", "default-project", ".....y..."),
        ("default-project/nothing", "default-project", "........."),
        ("no-project/from", "default-project", "........."),
    ] {
        let pushes = match of_robots {
            "private" => "...yyy...",
            _ => "...yyy.y.",
        };
        let callers = stage.callers(of_robots).into_iter();
        for (((name, caller), mounts), pushes) in callers.zip(mounts.chars()).zip(pushes.chars()) {
            for digest in [sha256(b"mounted"), sha256(b"in no repository")] {
                let there = digest == sha256(b"mounted");
                let into = format!("default-project/into-{name}-{}", from.replace('/', "-"));
                let path = format!("/v2/{into}/blobs/uploads/?mount={digest}&from={from}");
                let status = caller.post(&path).await.status().as_u16();
                let wanted = match (pushes, mounts) {
                    ('y', 'y') if there => 201,
                    ('y', _) => 202,
                    _ if name == "anonymous" => 401,
                    _ => 403,
                };
                assert_eq!(status, wanted, "{name}: {path}");
                let found = client.get(&format!("/v2/{into}/blobs/{digest}")).await;
                assert_eq!(
                    found.status().as_u16() == 200,
                    wanted == 201,
                    "{name}: {path}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_robot_must_not_leave_its_project() {
    let r = Running::start().await;
    r.client.push_image("private/a", "v1", &[b"1"]).await;
    let new = json!({"name": "ci", "actions": ["push", "delete"]});
    let (_, made) = r
        .client
        .api(Method::POST, "/projects/default-project/robots", new)
        .await;
    let robot = r.client.signed_in(
        made["login"].as_str().unwrap(),
        made["secret"].as_str().unwrap(),
    );
    robot.push_image("default-project/a", "v1", &[b"1"]).await;
    for (method, path) in [
        (Method::GET, "/v2/private/a/manifests/v1"),
        (Method::POST, "/v2/private/a/blobs/uploads/"),
        (Method::GET, "/v2/no-project/a/manifests/v1"),
    ] {
        let answer = robot.request(method, path).send().await.unwrap();
        refused(answer, 403, "DENIED").await;
    }
    // Nor by a mount from there.
    let blob = sha256(b"1");
    let path = format!("/v2/default-project/b/blobs/uploads/?mount={blob}&from=private/a");
    assert_eq!(robot.post(&path).await.status().as_u16(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_must_not_show_private_projects_to_others() {
    let r = Running::start().await;
    for project in ["default-project", "private"] {
        r.client
            .push_image(&format!("{project}/a"), "v1", &[b"1"])
            .await;
    }
    for (client, sees) in [
        (r.client.anonymous(), false),
        (r.client.signed_in("somebody", PASSWORD), false),
        (r.client.signed_in("viewer", PASSWORD), true),
        (r.client.clone(), true),
    ] {
        let catalog = client.get("/v2/_catalog").await.text().await.unwrap();
        assert!(catalog.contains("default-project/a"), "{catalog}");
        assert_eq!(catalog.contains("private/a"), sees, "{catalog}");
        let (_, projects) = client.api(Method::GET, "/projects", json!(null)).await;
        let projects = projects.to_string();
        assert!(projects.contains("default-project"), "{projects}");
        assert_eq!(projects.contains("private"), sees, "{projects}");
    }
    // With a token, too, and only with one for that.
    let viewer = r.client.signed_in("viewer", PASSWORD);
    let token = viewer.with_token(&["registry:catalog:*"]).await;
    let catalog = token.get("/v2/_catalog").await.text().await.unwrap();
    assert!(catalog.contains("private/a"), "{catalog}");
    let other = viewer.with_token(&["repository:private/a:pull"]).await;
    refused(other.get("/v2/_catalog").await, 401, "UNAUTHORIZED").await;
    // What is there and what is not cannot be told apart.
    let stranger = r.client.signed_in("somebody", PASSWORD);
    let mut told = Vec::new();
    for name in ["private", "no-project"] {
        told.push(
            stranger
                .api(Method::GET, &format!("/projects/{name}"), json!(null))
                .await,
        );
    }
    assert_eq!(told[0], told[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_given_changed_and_taken_at_once() {
    let r = Running::start().await;
    let somebody = r.client.signed_in("somebody", PASSWORD);
    let devops = r.client.signed_in("devops-admin", PASSWORD);
    let status = async |client: &Remote| {
        let answer = client.post("/v2/private/a/blobs/uploads/").await;
        answer.status().as_u16()
    };
    let path = "/projects/private/members/somebody";
    assert_eq!(status(&somebody).await, 403);
    for (role, wanted) in [("developer", 202), ("viewer", 403), ("devops-admin", 202)] {
        let (done, answer) = devops.api(Method::PUT, path, json!({"role": role})).await;
        assert_eq!(done, 204, "{answer}");
        assert_eq!(status(&somebody).await, wanted, "{role}");
    }
    // A DevOps administrator's rights end at the project.
    let (done, _) = somebody
        .api(
            Method::PUT,
            "/projects/default-project/members/somebody",
            json!({"role": "viewer"}),
        )
        .await;
    assert_eq!(done, 403);
    assert_eq!(devops.api(Method::DELETE, path, json!(null)).await.0, 204);
    assert_eq!(status(&somebody).await, 403);
    for (role, code) in [("cloud-admin", 422), ("", 422)] {
        assert_eq!(
            devops.api(Method::PUT, path, json!({"role": role})).await.0,
            code
        );
    }
}
