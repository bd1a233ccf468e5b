//! Who a request comes from, and what they may do. Every handler asks [`authorise`] before it looks at anything.

mod attempts;
mod credentials;
mod hashing;
pub mod password;
mod permit;
pub mod policy;
pub mod secret;
mod sight;
pub mod tokens;

pub use credentials::{Credentials, SignInError};
pub(crate) use hashing::network;
pub use hashing::{Hashing, Load};
pub use permit::{Permit, Refused};
pub use policy::{Action, Role};
pub use sight::{Sight, sight};

use crate::metadata::{self, Read, Result, now};
use crate::names::RepositoryName;
use std::sync::Arc;
use tokens::Grant;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Nobody said who they are.
    Anonymous,
    /// A user who proved it.
    User {
        /// Row.
        id: i64,
        /// Name.
        name: String,
        /// The user's generation when they proved it: when it is another one, they have to do so again.
        generation: i64,
    },
    /// A robot of a project that proved it.
    Robot {
        /// Row.
        id: i64,
        /// `PROJECT+NAME`.
        name: String,
        /// The project that it may work in; no other.
        project: String,
        /// What it may do there, out of pull, push and delete.
        actions: Vec<Action>,
        /// As a user's.
        generation: i64,
    },
    /// Somebody who came with a token: who it was made out to, with no more rights than it names.
    Token {
        /// Who.
        subject: Box<Principal>,
        /// What for.
        grants: Arc<[Grant]>,
    },
    /// The registry's own command line, on its private socket or in its own process.
    Console,
}

impl Principal {
    /// For logs and the audit.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Principal::Anonymous => "anonymous",
            Principal::User { name, .. } | Principal::Robot { name, .. } => name,
            Principal::Token { subject, .. } => subject.name(),
            Principal::Console => "console",
        }
    }

    /// Who it is whatever they came with.
    #[must_use]
    pub fn subject(&self) -> &Principal {
        match self {
            Principal::Token { subject, .. } => subject.subject(),
            other => other,
        }
    }
}

/// On what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// The registry as a whole.
    Registry,
    /// A project by name, whether it exists or not.
    Project(&'a str),
    /// A repository by name, whether it exists or not.
    Repository(&'a RepositoryName),
}

impl<'a> Target<'a> {
    /// The project that it is, or is in.
    #[must_use]
    pub fn project(self) -> Option<&'a str> {
        match self {
            Target::Registry => None,
            Target::Project(name) => Some(name),
            Target::Repository(name) => Some(name.project()),
        }
    }
}

/// What comes of it. A refusal never tells whether the target exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// Say first who you are.
    SignIn,
    /// The token is not for this; one that is can be had.
    Scope,
    /// You may not.
    Denied,
}

/// Decides, as [`policy::TABLE`] has it. What somebody is, is looked up each time: a request may have been held for long
/// since they proved who they are.
///
/// # Errors
/// When the metadata cannot be read.
pub fn authorise(
    read: &Read<'_>,
    principal: &Principal,
    action: Action,
    target: Target<'_>,
) -> Result<Verdict> {
    match principal {
        Principal::Console => return Ok(Verdict::Allowed),
        Principal::Token { subject, grants } => {
            // The token's owner is asked about anew each time: a token gives nothing that was taken from them since.
            let verdict = authorise(read, subject, action, target)?;
            return Ok(match verdict {
                Verdict::Allowed if !tokens::cover(grants, action, target) => Verdict::Scope,
                verdict => verdict,
            });
        }
        Principal::User { id, generation, .. } => {
            match read.user_by_id(*id)?.filter(|u| u.is_good(*generation)) {
                Some(user) if user.administrator => return Ok(Verdict::Allowed),
                Some(_) => {}
                None => return Ok(Verdict::SignIn),
            }
        }
        Principal::Robot { id, generation, .. } => {
            let good = |r: &metadata::Robot| r.generation == *generation && r.is_good(now());
            if !read.robot_by_id(*id)?.is_some_and(|r| good(&r)) {
                return Ok(Verdict::SignIn);
            }
        }
        Principal::Anonymous => {}
    }
    let project = match target.project() {
        Some(name) => read.project(name)?,
        None => None,
    };
    let public = project.as_ref().is_some_and(|p| p.public);
    let allowed = match principal {
        Principal::User { id, .. } => {
            let role = match &project {
                Some(project) => read.role(project.id, *id)?,
                None => None,
            };
            policy::allows(action, public, role)
        }
        Principal::Robot {
            project: own,
            actions,
            ..
        } => {
            let here = project.as_ref().is_some_and(|p| p.name == *own);
            (here && actions.contains(&action)) || policy::allows(action, public, None)
        }
        _ => policy::allows(action, public, None),
    };
    Ok(match principal {
        _ if allowed => Verdict::Allowed,
        Principal::Anonymous => Verdict::SignIn,
        _ => Verdict::Denied,
    })
}
