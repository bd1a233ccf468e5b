//! Removes tags as a project's rules have it.
//!
//! A tag that no rule is about stays. One that rules are about goes, unless one of these keeps it, or it is immutable. The
//! manifest goes with its last tag, unless an index needs it.

use crate::audit::{self, Draft};
use crate::digest::Digest;
use crate::glob;
use crate::metadata::{self, Project, Read, RetentionRule, TagRow, now};
use crate::names::{RepositoryName, Tag};
use crate::registry::Registry;
use crate::webhooks::{self, Event};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::sync::Arc;
use utoipa::ToSchema;

const DAY: i64 = 86_400_000;
/// Repositories and tags handled in one go.
const BATCH: u32 = 100;

/// A tag that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removal {
    /// Whole name of its repository.
    pub repository: String,
    /// Its name.
    pub tag: String,
    /// The manifest's digest.
    pub digest: String,
    /// When it was pushed last, milliseconds since 1970.
    pub pushed: i64,
}

/// What of a repository's tags (those pushed last first) goes.
fn removals<'a>(
    rules: &[RetentionRule],
    local: &str,
    tags: &'a [TagRow],
    now: i64,
) -> Vec<&'a TagRow> {
    let mut concerned: HashSet<&str> = HashSet::new();
    let mut kept: HashSet<&str> = HashSet::new();
    for rule in rules {
        if !glob::matches(&rule.repositories, local) {
            continue;
        }
        let of_rule = tags.iter().filter(|t| glob::matches(&rule.tags, &t.name));
        for (place, tag) in of_rule.enumerate() {
            concerned.insert(&tag.name);
            let latest = rule.keep_latest.is_some_and(|n| place < n as usize);
            let young = rule
                .keep_days
                .is_some_and(|days| now - tag.updated < i64::from(days) * DAY);
            if latest || young {
                kept.insert(&tag.name);
            }
        }
    }
    tags.iter()
        .filter(|t| concerned.contains(&*t.name) && !kept.contains(&*t.name))
        .collect()
}

/// What would go now.
///
/// # Errors
/// When the metadata cannot be read.
pub fn plan(db: &Read<'_>, project: &Project) -> metadata::Result<Vec<Removal>> {
    let rules = db.retention_rules(project.id)?;
    let mut plan = Vec::new();
    let mut last = String::new();
    while !rules.is_empty() {
        let batch = db.repositories_of(project.id, &last, BATCH)?;
        let Some(end) = batch.last() else { break };
        last.clone_from(&end.name);
        for row in batch {
            let Ok(name) = row.name.parse::<RepositoryName>() else {
                continue;
            };
            let Some(repository) = db.repository(&name)? else {
                continue;
            };
            let local = row.name.split_once('/').map_or("", |(_, rest)| rest);
            let tags = db.tags_by_age(repository.id)?;
            for tag in removals(&rules, local, &tags, now()) {
                if !db.is_immutable(project.id, &name, &tag.name)? {
                    plan.push(Removal {
                        repository: row.name.clone(),
                        tag: tag.name.clone(),
                        digest: tag.digest.clone(),
                        pushed: tag.updated,
                    });
                }
            }
        }
    }
    Ok(plan)
}

/// Removes what goes; what went. A tag that was pushed again meanwhile stays. What each job removes is in the entry that
/// is written with it.
///
/// # Errors
/// When the metadata cannot be read or written.
pub async fn run(
    registry: &Registry,
    project: Project,
    draft: &Draft,
) -> metadata::Result<Vec<Removal>> {
    let planned = registry
        .metadata
        .read_long::<_, metadata::Error>(move |db| plan(db, &project))
        .await?;
    let mut gone = Vec::new();
    for batch in planned.chunks(BATCH as usize) {
        let batch = batch.to_vec();
        let removed: Vec<Removal> = draft
            .commit(&registry.metadata, StatusCode::OK, move |db, entry| {
                let mut removed = Vec::new();
                for removal in batch {
                    if remove(db, &removal)? {
                        removed.push(removal);
                    }
                }
                let names: Vec<String> = removed
                    .iter()
                    .map(|r| format!("{}:{}", r.repository, r.tag))
                    .collect();
                let text = format!("{} tags removed: {}", names.len(), names.join(", "));
                entry.detail = Some(audit::bounded(&text));
                Ok::<_, metadata::Error>(removed)
            })
            .await?;
        gone.extend(removed);
    }
    Ok(gone)
}

fn remove(db: &metadata::Write<'_>, removal: &Removal) -> metadata::Result<bool> {
    let (Ok(name), Ok(tag), Ok(digest)) = (
        removal.repository.parse::<RepositoryName>(),
        removal.tag.parse::<Tag>(),
        removal.digest.parse::<Digest>(),
    ) else {
        return Ok(false);
    };
    let Some(repository) = db.repository(&name)? else {
        return Ok(false);
    };
    let same = db
        .tag(repository.id, &removal.tag)?
        .is_some_and(|t| t.digest == removal.digest && t.updated == removal.pushed);
    if !same || db.is_immutable(repository.project, &name, &removal.tag)? {
        return Ok(false);
    }
    db.remove_tag(repository.id, &tag)?;
    let reference = tag.as_str();
    let event = Event::Delete { reference };
    webhooks::queue(db, repository.project, &name, "system", event)?;
    if db.tags_of(repository.id, &digest)?.is_empty() {
        // It stays when an index needs it.
        db.remove_manifest(repository.id, &digest)?;
    }
    Ok(true)
}

/// All projects', as it is done on schedule; how many tags went.
///
/// # Errors
/// When the metadata cannot be read or written.
pub async fn run_all(registry: &Arc<Registry>) -> metadata::Result<u64> {
    let (mut removed, mut last) = (0, String::new());
    loop {
        let after = last.clone();
        let batch = registry
            .metadata
            .read_long::<_, metadata::Error>(move |db| db.projects_after(&after, BATCH))
            .await?;
        let Some(end) = batch.last() else {
            return Ok(removed);
        };
        last.clone_from(&end.name);
        for project in batch {
            let name = Some(project.name.as_str());
            let draft = Draft::system(&registry.audit, "retention.run.create", name);
            removed += run(registry, project, &draft).await?.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(
        repositories: &str,
        tags: &str,
        latest: Option<u32>,
        days: Option<u32>,
    ) -> RetentionRule {
        RetentionRule {
            id: 0,
            repositories: repositories.into(),
            tags: tags.into(),
            keep_latest: latest,
            keep_days: days,
        }
    }

    #[test]
    fn a_tag_goes_only_when_rules_are_about_it_and_none_keeps_it() {
        let tags: Vec<TagRow> = ["v5", "dev", "v4", "v3", "v2", "v1"]
            .into_iter()
            .enumerate()
            .map(|(age, name)| TagRow {
                name: name.into(),
                digest: String::new(),
                updated: 100 * DAY - age as i64 * DAY,
            })
            .collect();
        let gone = |rules: &[RetentionRule]| {
            let gone = removals(rules, "a/b", &tags, 100 * DAY + 1);
            gone.iter()
                .map(|t| t.name.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(gone(&[]), "");
        assert_eq!(gone(&[rule("other", "*", Some(0), None)]), "");
        assert_eq!(gone(&[rule("a/*", "v*", Some(2), None)]), "v3 v2 v1");
        assert_eq!(gone(&[rule("*", "v*", None, Some(4))]), "v2 v1");
        let both = [
            rule("*", "v*", Some(1), None),
            rule("*", "v1", Some(1), None),
        ];
        assert_eq!(gone(&both), "v4 v3 v2");
        assert_eq!(gone(&[rule("*", "*", Some(0), None)]), "v5 dev v4 v3 v2 v1");
    }
}
