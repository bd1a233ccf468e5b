//! A right that is asked for again when it is used. A request's body may take its time: who was disabled, has another
//! password or lost their role meanwhile must not change anything with it.

use super::{Action, Principal, Target, Verdict, authorise};
use crate::audit::Draft;
use crate::metadata::{self, Read};
use crate::names::RepositoryName;

/// Somebody's right to do something in a repository.
#[derive(Debug, Clone)]
pub struct Permit {
    /// Who.
    pub principal: Principal,
    /// What.
    pub action: Action,
    /// Where.
    pub repository: RepositoryName,
    /// What is written down when it is used.
    pub draft: Draft,
}

/// The right was lost, or was never there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("you may not do this any more: your account, your role or the project changed meanwhile")]
pub struct Refused(pub Verdict);

impl Permit {
    /// Asks again. Inside of a change it is as of that change.
    ///
    /// # Errors
    /// [`Refused`], or that the metadata cannot be read.
    pub fn check<E: From<Refused> + From<metadata::Error>>(
        &self,
        read: &Read<'_>,
    ) -> Result<(), E> {
        let target = Target::Repository(&self.repository);
        match authorise(read, &self.principal, self.action, target)? {
            Verdict::Allowed => Ok(()),
            verdict => Err(Refused(verdict).into()),
        }
    }
}
