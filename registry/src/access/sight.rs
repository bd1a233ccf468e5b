//! What somebody sees of all there is, as a condition that lists are filtered by where they are read: asking
//! [`super::authorise`] for each of a million names would take that long for a page of ten.

use super::policy::{Action, Least, TABLE};
use super::{Principal, tokens};
use crate::metadata::{self, Read, Result, now};

/// Which projects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// All of them.
    Everything,
    /// Public ones, and what is said.
    Public {
        /// Those where this user (by row) has at least the role of this number.
        member: Option<(i64, i64)>,
        /// That of this robot.
        own: Option<String>,
    },
    /// None.
    Nothing,
}

/// Which projects somebody may do this in. It says what [`super::authorise`] says of each of them, for actions that
/// everybody may do in public projects.
///
/// # Errors
/// When the metadata cannot be read.
pub fn sight(read: &Read<'_>, principal: &Principal, action: Action) -> Result<Sight> {
    let rule = TABLE.iter().find(|r| r.action == action);
    let Some(rule) = rule.filter(|r| r.public == Least::Anyone) else {
        return Ok(Sight::Nothing);
    };
    let (mut member, mut own) = (None, None);
    match principal {
        Principal::Console => return Ok(Sight::Everything),
        Principal::Anonymous => {}
        Principal::User { id, generation, .. } => {
            match read.user_by_id(*id)?.filter(|u| u.is_good(*generation)) {
                None => return Ok(Sight::Nothing),
                Some(user) if user.administrator => return Ok(Sight::Everything),
                Some(_) => {}
            }
            if let Least::Member(least) = rule.private {
                member = Some((*id, least.number()));
            }
        }
        Principal::Robot {
            id,
            generation,
            project,
            actions,
            ..
        } => {
            let good = |r: metadata::Robot| r.generation == *generation && r.is_good(now());
            if !read.robot_by_id(*id)?.is_some_and(good) {
                return Ok(Sight::Nothing);
            }
            if actions.contains(&action) {
                own = Some(project.clone());
            }
        }
        // Tokens name repositories, no lists.
        Principal::Token { subject, .. } => {
            return match tokens::action_name(action) {
                Some(_) => sight(read, subject, action),
                None => Ok(Sight::Nothing),
            };
        }
    }
    Ok(Sight::Public { member, own })
}
