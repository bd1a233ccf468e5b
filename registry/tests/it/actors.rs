//! Who does the oracle's steps, and what they may: worked out here once more, apart from the registry's own table.

use crate::harness::*;
use crate::oracle::{Repository, name, project};
use reqwest::Method;
use serde_json::{Value, json};

/// The first two have members of each role; the last has none. Only the first is public at the start.
pub const PROJECTS: [&str; 3] = ["default-project", "private", "theirs"];
const PUBLIC: usize = 0;
const PRIVATE: usize = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    Admin,
    Devops,
    Developer,
    Viewer,
    /// Whose role in the private project changes.
    Somebody,
    Anonymous,
    /// A robot of the public project that pushes.
    Pusher,
    /// A robot of the private project that deletes.
    Deleter,
}

impl Actor {
    pub const ALL: [Actor; 8] = [
        Actor::Admin,
        Actor::Devops,
        Actor::Developer,
        Actor::Viewer,
        Actor::Somebody,
        Actor::Anonymous,
        Actor::Pusher,
        Actor::Deleter,
    ];

    /// What they are answered where `answer` is for who may.
    pub fn answer(self, may: bool, answer: u16) -> u16 {
        match self {
            _ if may => answer,
            Actor::Anonymous => 401,
            _ => 403,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Pull,
    Push,
    Delete,
    Configure,
}

/// What changes about who may do what.
pub struct Access {
    public: [bool; 3],
    /// Of `somebody` in the private project: 0 none, 1 viewer, 2 developer, 3 DevOps administrator.
    somebody: usize,
}

impl Default for Access {
    fn default() -> Self {
        Access {
            public: [true, false, false],
            somebody: 0,
        }
    }
}

impl Access {
    fn rank(&self, actor: Actor, project: usize) -> usize {
        let member = project != 2;
        match actor {
            Actor::Admin => 4,
            Actor::Devops if member => 3,
            Actor::Developer if member => 2,
            Actor::Viewer if member => 1,
            Actor::Somebody if project == PRIVATE => self.somebody,
            _ => 0,
        }
    }

    pub fn may(&self, actor: Actor, right: Right, project: usize) -> bool {
        let rank = self.rank(actor, project);
        match right {
            Right::Pull => {
                let robot = actor == Actor::Pusher && project == PUBLIC;
                rank >= 1 || robot || self.public[project]
            }
            Right::Push => rank >= 2 || actor == Actor::Pusher && project == PUBLIC,
            Right::Delete => rank >= 3 || actor == Actor::Deleter && project == PRIVATE,
            Right::Configure => rank >= 3,
        }
    }

    /// A project becomes public or private.
    pub async fn publish(&mut self, actor: Actor, client: &Remote, random: &mut Random) {
        let (at, public) = (random.below(3), random.below(2) == 0);
        let path = format!("/projects/{}", PROJECTS[at]);
        let (status, _) = client
            .api(Method::PATCH, &path, json!({"public": public}))
            .await;
        let may = self.may(actor, Right::Configure, at);
        assert_eq!(status, actor.answer(may, 204), "{actor:?} configures");
        if may {
            self.public[at] = public;
        }
    }

    /// Somebody gets another role, or none.
    pub async fn name_member(&mut self, actor: Actor, client: &Remote, random: &mut Random) {
        let path = "/projects/private/members/somebody";
        let role = random.below(4);
        let may = self.may(actor, Right::Configure, PRIVATE);
        let (method, body) = match ["", "viewer", "developer", "devops-admin"][role] {
            "" => (Method::DELETE, Value::Null),
            role => (Method::PUT, json!({"role": role})),
        };
        let (status, _) = client.api(method, path, body).await;
        let answer = if role == 0 && self.somebody == 0 {
            404
        } else {
            204
        };
        assert_eq!(
            status,
            actor.answer(may, answer),
            "{actor:?} names a member"
        );
        if may {
            self.somebody = role;
        }
    }

    /// Lists show what may be pulled, all of it that has a tag.
    pub async fn lists(&self, actor: Actor, client: &Remote, held: &[Repository]) {
        let answer = client.get("/v2/_catalog").await;
        let body: Value = answer.json().await.unwrap();
        let listed: Vec<&str> = body["repositories"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap())
            .collect();
        for (n, repository) in held.iter().enumerate() {
            let may = self.may(actor, Right::Pull, project(n));
            let there = listed.contains(&name(n).as_str());
            assert!(may || !there, "{} is shown to {actor:?}", name(n));
            let tagged = !repository.tags.is_empty();
            assert!(
                there || !may || !tagged,
                "{} is not shown to {actor:?}",
                name(n)
            );
        }
    }
}

/// The third project.
pub async fn make_project(admin: &Remote) {
    let new = json!({"name": PROJECTS[2]});
    let (status, answer) = admin.api(Method::POST, "/projects", new).await;
    assert_eq!(status, 201, "{answer}");
}

/// In the order of [`Actor::ALL`].
pub async fn actors(admin: &Remote) -> Vec<Remote> {
    let robot = async |project: usize, action: &str| {
        let path = format!("/projects/{}/robots", PROJECTS[project]);
        let new = json!({"name": "oracle", "actions": [action]});
        let (_, made) = admin.api(Method::POST, &path, new).await;
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        admin.signed_in(&text("login"), &text("secret"))
    };
    vec![
        admin.clone(),
        admin.signed_in("devops-admin", PASSWORD),
        admin.signed_in("developer", PASSWORD),
        admin.signed_in("viewer", PASSWORD),
        admin.signed_in("somebody", PASSWORD),
        admin.anonymous(),
        robot(PUBLIC, "push").await,
        robot(PRIVATE, "delete").await,
    ]
}
