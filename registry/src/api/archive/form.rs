//! What an archive holds. A field that is added later has a default, so that older archives can be read; anything else
//! is another version.

use crate::access::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the archive says that it is.
pub const FORMAT: &str = "mooring-registry-access";
/// The version that is written, and the newest one that is read.
pub const VERSION: u32 = 1;

/// Who may do what in a registry, and the rules over its projects; no repositories.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// `mooring-registry-access`.
    pub format: String,
    /// 1.
    pub version: u32,
    /// When it was made, milliseconds since 1970.
    pub time: i64,
    /// Local users, by name.
    pub users: Vec<ArchivedUser>,
    /// Projects, by name.
    pub projects: Vec<ArchivedProject>,
}

/// What is looked at first.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    pub(super) format: String,
    pub(super) version: u32,
}

/// A user.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchivedUser {
    /// Name to sign in with.
    pub name: String,
    /// Argon2id hash of the password, in PHC form.
    pub password_hash: String,
    /// Cloud administrator.
    pub administrator: bool,
    /// May not sign in.
    pub disabled: bool,
}

/// A project with all that was set for it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchivedProject {
    /// Its name.
    pub name: String,
    /// Whether everybody may pull.
    pub public: bool,
    /// Most bytes that it may hold.
    pub quota: Option<u64>,
    /// Its members.
    pub members: Vec<ArchivedMember>,
    /// Its robots.
    pub robots: Vec<ArchivedRobot>,
    /// Rules of tags that must not move.
    pub immutable: Vec<ArchivedImmutable>,
    /// Rules of tags that go.
    pub retention: Vec<ArchivedRetention>,
    /// Its labels (not what they are on).
    pub labels: Vec<ArchivedLabel>,
    /// Who is told what happens in it.
    pub webhooks: Vec<ArchivedWebhook>,
}

/// A member.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchivedMember {
    /// A user of the archive.
    pub user: String,
    /// What they are.
    pub role: Role,
}

/// A robot.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchivedRobot {
    /// Name in the project.
    pub name: String,
    /// SHA-256 of its secret, hexadecimal.
    pub secret_hash: String,
    /// Of pull, push and delete.
    pub actions: Vec<String>,
    /// When its secret expires, milliseconds since 1970.
    pub expires: i64,
    /// May not sign in.
    pub disabled: bool,
    /// Who made it.
    pub created_by: String,
}

/// A rule of tags that must not move.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchivedImmutable {
    /// Pattern of repositories.
    pub repositories: String,
    /// Pattern of tags.
    pub tags: String,
}

/// A rule of tags that go.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchivedRetention {
    /// Pattern of repositories.
    pub repositories: String,
    /// Pattern of tags.
    pub tags: String,
    /// So many of the latest stay.
    pub keep_latest: Option<u32>,
    /// Those of so many days stay.
    pub keep_days: Option<u32>,
}

/// A label.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchivedLabel {
    /// Its name.
    pub name: String,
    /// `#rrggbb`.
    pub color: String,
}

/// A webhook.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchivedWebhook {
    /// Who is told.
    pub url: String,
    /// What signs what is told; only where the archive was asked for with secrets. Without it, the import makes another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}
