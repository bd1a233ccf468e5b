//! Who a request comes from, and what they may do. Every handler asks [`authorise`] before it looks at anything.

mod credentials;
pub mod password;

pub use credentials::{Credentials, SignInError};

use crate::metadata::{Read, Result};
use crate::names::RepositoryName;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Nobody said who they are.
    Anonymous,
    /// A user who proved it.
    User {
        /// Name.
        name: String,
        /// Cloud administrator.
        administrator: bool,
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
            Principal::User { name, .. } => name,
            Principal::Console => "console",
        }
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read what is in a repository.
    Pull,
    /// Add to a repository, or move its tags.
    Push,
    /// Remove from a repository.
    Delete,
    /// Change the registry itself.
    Administer,
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

/// What comes of it. A refusal never tells whether the target exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// Say first who you are.
    SignIn,
    /// You may not.
    Denied,
}

/// Decides. Whoever is not listed here may not: administrators may do everything, everybody may pull from public projects.
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
        Principal::Console
        | Principal::User {
            administrator: true,
            ..
        } => return Ok(Verdict::Allowed),
        Principal::User { .. } | Principal::Anonymous => {}
    }
    let project = match target {
        Target::Registry => None,
        Target::Project(name) => read.project(name)?,
        Target::Repository(name) => read.project(name.project())?,
    };
    if action == Action::Pull && project.is_some_and(|p| p.public) {
        return Ok(Verdict::Allowed);
    }
    Ok(match principal {
        Principal::Anonymous => Verdict::SignIn,
        _ => Verdict::Denied,
    })
}
