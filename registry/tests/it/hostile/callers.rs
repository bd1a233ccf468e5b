//! Who sends hostile requests, and what they may be shown and change.

use crate::harness::*;
use reqwest::Method;
use serde_json::json;

/// What somebody may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// What is in the repositories of these projects.
    Content(&'static [&'static str]),
    /// Also how they are set up.
    Projects(&'static [&'static str]),
}

/// Somebody who sends requests.
#[derive(Debug, Clone)]
pub struct Caller {
    pub name: &'static str,
    pub authorization: Option<String>,
    /// How the secrets begin that they may be shown.
    pub sees: Vec<String>,
    /// None: nothing.
    pub writes: Option<Writes>,
    /// What a token of theirs may say: projects, and the actions there.
    tokens: Vec<(&'static str, &'static str)>,
    /// Their credentials are good for nothing.
    pub sees_nothing: bool,
}

impl Caller {
    fn new(name: &'static str, authorization: Option<String>, sees: &[&str]) -> Self {
        Caller {
            name,
            authorization,
            sees: sees.iter().map(|s| format!("secret-{s}")).collect(),
            writes: None,
            tokens: Vec::new(),
            sees_nothing: false,
        }
    }

    pub fn forged(name: &'static str, token: &str) -> Self {
        Caller {
            sees_nothing: true,
            ..Self::new(name, Some(format!("Bearer {token}")), &[])
        }
    }

    fn writing(mut self, writes: Writes) -> Self {
        self.writes = Some(writes);
        self
    }

    fn with_tokens(mut self, tokens: &[(&'static str, &'static str)]) -> Self {
        self.tokens = tokens.to_vec();
        self
    }

    /// Whether a token of theirs may say this.
    pub fn may(&self, project: &str, action: &str) -> bool {
        let all = |actions: &str| actions.split(' ').any(|a| a == action);
        self.tokens.iter().any(|(p, a)| *p == project && all(a))
    }
}

pub async fn callers(r: &Running) -> Vec<Caller> {
    use Writes::{Content, Projects};
    const BOTH: &[&str] = &["default-project", "private"];
    const PUBLIC: [&str; 3] = [
        "default-project-content-",
        "default-project-name",
        "default-project-see-",
    ];
    let basic = |user: &str, password: &str| {
        use base64::Engine as _;
        let text = format!("{user}:{password}");
        let text = base64::engine::general_purpose::STANDARD.encode(text);
        Some(format!("Basic {text}"))
    };
    let user = |name: &str| basic(name, PASSWORD);
    let bearer = async |user: &str, scope: &str| {
        let client = r.client.signed_in(user, PASSWORD);
        let answer = client.ask_token(&[scope], "").await;
        Some(format!("Bearer {}", answer["token"].as_str().unwrap()))
    };
    let robot = async |project: &str, action: &str| {
        let path = format!("/projects/{project}/robots");
        let new = json!({"name": action, "actions": [action]});
        let (_, made) = r.client.api(Method::POST, &path, new).await;
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        basic(&text("login"), &text("secret"))
    };
    let and = |more: &[&'static str]| [&PUBLIC[..], more].concat();
    let private = and(&["private-content-", "private-name", "private-see-"]);
    let of_devops = [&private[..], &["default-project-conf-", "private-conf-"]].concat();
    let (pull, push) = ("pull", "pull push");
    vec![
        Caller::new("anonymous", None, &PUBLIC).with_tokens(&[("default-project", pull)]),
        Caller::new("somebody", user("somebody"), &PUBLIC)
            .with_tokens(&[("default-project", pull)]),
        Caller::new("viewer", user("viewer"), &private)
            .with_tokens(&[("default-project", pull), ("private", pull)]),
        Caller::new("developer", user("developer"), &private)
            .writing(Content(BOTH))
            .with_tokens(&[("default-project", push), ("private", push)]),
        Caller::new("devops-admin", user("devops-admin"), &of_devops)
            .writing(Projects(BOTH))
            .with_tokens(&[
                ("default-project", "pull push delete"),
                ("private", "pull push delete"),
            ]),
        Caller::new(
            "a robot that pulls from the private project",
            robot("private", "pull").await,
            &and(&["private-content-", "private-name"]),
        )
        .with_tokens(&[("default-project", pull), ("private", pull)]),
        Caller::new(
            "a robot that pushes to the public project",
            robot("default-project", "push").await,
            &PUBLIC,
        )
        .writing(Content(&["default-project"]))
        .with_tokens(&[("default-project", push)]),
        Caller::new(
            "a robot that deletes in the private project",
            robot("private", "delete").await,
            &PUBLIC,
        )
        .writing(Content(&["private"]))
        .with_tokens(&[("default-project", pull), ("private", "delete")]),
        Caller::new(
            "a viewer's token",
            bearer("viewer", "repository:private/a:pull").await,
            &["private-content-a-"],
        ),
        Caller::new(
            "a developer's token",
            bearer("developer", "repository:private/a:pull,push,delete").await,
            &["private-content-a-"],
        )
        .writing(Content(&["private"])),
        Caller::new(
            "an administrator's token for less",
            bearer(ADMIN, "repository:default-project/a:pull").await,
            &["default-project-content-a-"],
        ),
        Caller::new(
            "an administrator's token for nothing",
            bearer(ADMIN, "repository:theirs/../theirs/a:pull").await,
            &[],
        ),
    ]
}
