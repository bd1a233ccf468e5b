//! Who may do what: one table, and nothing beside it.
//!
//! The roles are those of the portal: each has all that the one before has. What the table calls `Cloud` is the cloud
//! administrator, who may do everything, everywhere.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a member of a project is there. Cloud administrators are not members: they may do everything without.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Sees the project's repositories, and pulls from them.
    Viewer,
    /// Also pushes and labels.
    Developer,
    /// Also deletes, changes the configuration, and names members.
    DevopsAdmin,
}

impl Role {
    /// All of them, the weakest first.
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Developer, Role::DevopsAdmin];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Developer => "developer",
            Role::DevopsAdmin => "devops-admin",
        }
    }

    /// As it is kept.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Role::Viewer => 1,
            Role::Developer => 2,
            Role::DevopsAdmin => 3,
        }
    }

    /// From what was kept.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        Role::ALL.into_iter().find(|r| r.number() == number)
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Role::ALL
            .into_iter()
            .find(|r| r.name() == text)
            .ok_or_else(|| format!("{text} is no role: viewer, developer or devops-admin"))
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Know that a project, its repositories and tags are there.
    See,
    /// Read what is in a repository.
    Pull,
    /// Add to a repository, or move its tags.
    Push,
    /// Give labels to what is in a repository.
    Label,
    /// Remove from a repository.
    Delete,
    /// Change a project: public or private, rules, labels.
    Configure,
    /// Add and remove members.
    Members,
    /// Make and remove robots.
    Robots,
    /// Read what was done in a project.
    Audit,
    /// Make and remove projects, say how much they may hold, and who is told what happens in them.
    Projects,
    /// Make, change and remove users.
    Users,
    /// Change the registry itself, read its log, collect garbage.
    Administer,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 12] = [
        Action::See,
        Action::Pull,
        Action::Push,
        Action::Label,
        Action::Delete,
        Action::Configure,
        Action::Members,
        Action::Robots,
        Action::Audit,
        Action::Projects,
        Action::Users,
        Action::Administer,
    ];

    /// In one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; Action::ALL.len()] = [
            "see",
            "pull",
            "push",
            "label",
            "delete",
            "configure",
            "members",
            "robots",
            "audit",
            "projects",
            "users",
            "administer",
        ];
        NAMES[self as usize]
    }
}

// The last one is the last of ALL: none was left out.
const _: () = assert!(Action::Administer as usize + 1 == Action::ALL.len());

/// Who at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Least {
    /// Everybody, without a name.
    Anyone,
    /// Members of the project with this role or a stronger one.
    Member(Role),
    /// Cloud administrators.
    Cloud,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// What.
    pub action: Action,
    /// Who may in a private project, and in one that is not there.
    pub private: Least,
    /// Who may in a public project.
    pub public: Least,
}

const VIEWER: Least = Least::Member(Role::Viewer);
const DEVELOPER: Least = Least::Member(Role::Developer);
const DEVOPS: Least = Least::Member(Role::DevopsAdmin);

const fn rule(action: Action, private: Least, public: Least) -> Rule {
    Rule {
        action,
        private,
        public,
    }
}

/// The table.
#[rustfmt::skip]
pub const TABLE: [Rule; 12] = [
    //   what                 in a private project   in a public one
    rule(Action::See,         VIEWER,                Least::Anyone),
    rule(Action::Pull,        VIEWER,                Least::Anyone),
    rule(Action::Push,        DEVELOPER,             DEVELOPER),
    rule(Action::Label,       DEVELOPER,             DEVELOPER),
    rule(Action::Delete,      DEVOPS,                DEVOPS),
    rule(Action::Configure,   DEVOPS,                DEVOPS),
    rule(Action::Members,     DEVOPS,                DEVOPS),
    rule(Action::Robots,      DEVOPS,                DEVOPS),
    rule(Action::Audit,       DEVOPS,                DEVOPS),
    rule(Action::Projects,    Least::Cloud,          Least::Cloud),
    rule(Action::Users,       Least::Cloud,          Least::Cloud),
    rule(Action::Administer,  Least::Cloud,          Least::Cloud),
];

/// Whether somebody with this role in the project (`None`: no member) may do it. Cloud administrators are not asked about.
#[must_use]
pub fn allows(action: Action, public: bool, role: Option<Role>) -> bool {
    // What is not in the table is for nobody.
    let Some(rule) = TABLE.iter().find(|r| r.action == action) else {
        return false;
    };
    match if public { rule.public } else { rule.private } {
        Least::Anyone => true,
        Least::Member(least) => role.is_some_and(|role| role >= least),
        Least::Cloud => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_all_that_the_one_before_has() {
        for rule in TABLE {
            for public in [false, true] {
                let mut before = allows(rule.action, public, None);
                for role in Role::ALL {
                    let now = allows(rule.action, public, Some(role));
                    assert!(now || !before, "{:?} {role:?}", rule.action);
                    before = now;
                }
            }
            // A private project gives nobody more than a public one.
            for role in [None, Some(Role::Viewer), Some(Role::DevopsAdmin)] {
                assert!(!allows(rule.action, false, role) || allows(rule.action, true, role));
            }
        }
    }

    #[test]
    fn every_action_stands_in_the_table_once() {
        for (n, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, n);
            let lines = TABLE.iter().filter(|r| r.action == action).count();
            assert_eq!(lines, 1, "{}", action.name());
        }
        assert_eq!(TABLE.len(), Action::ALL.len());
    }
}
