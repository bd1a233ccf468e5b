//! `docker ps` and its filters.

use super::{
    Container, Containers,
    state::{Phase, Status},
};
use crate::{
    api::query::Filters,
    errors::{Error, Result},
    images::Images,
    networks::record::NONE,
    timestamps,
};
use std::sync::Arc;
use wire::health::HealthStatus;

/// Every filter of `containers/json`.
const KNOWN: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATES: &[&str] = &[
    "created",
    "restarting",
    "running",
    "removing",
    "paused",
    "exited",
    "dead",
];
const HEALTHS: &[&str] = &["none", "starting", "healthy", "unhealthy"];

/// Filters of a list, checked.
#[derive(Debug)]
pub struct Selection {
    filters: Filters,
    all: bool,
    limit: Option<usize>,
    exited: Vec<i32>,
    before: Option<(u64, String)>,
    since: Option<(u64, String)>,
    ancestors: Option<Vec<String>>,
}

impl Selection {
    /// Checks the filters.
    ///
    /// # Errors
    /// 400 for an unknown filter or value, 404 where `before` or `since` names no container.
    pub fn new(
        filters: Filters,
        all: bool,
        limit: Option<i64>,
        containers: &Containers,
        images: &Images,
    ) -> Result<Self> {
        filters.allow(KNOWN)?;
        for (name, allowed) in [("status", STATES), ("health", HEALTHS)] {
            if let Some(wrong) = filters
                .values(name)
                .unwrap_or(&[])
                .iter()
                .find(|v| !allowed.contains(&v.as_str()))
            {
                return Err(Error::bad(format!("invalid filter '{name}={wrong}'")));
            }
        }
        let exited = filters
            .values("exited")
            .unwrap_or(&[])
            .iter()
            .map(|v| {
                v.parse()
                    .map_err(|_| Error::bad(format!("invalid filter 'exited={v}'")))
            })
            .collect::<Result<_>>()?;
        filters.flag("is-task")?;
        let place = |name: &str| -> Result<Option<(u64, String)>> {
            filters
                .values(name)
                .and_then(<[String]>::first)
                .map(|text| {
                    containers
                        .find(text)
                        .map(|c| (c.spec.created, c.id().to_owned()))
                })
                .transpose()
        };
        let ancestors = filters.values("ancestor").map(|values| {
            values
                .iter()
                .filter_map(|reference| images.resolve(reference))
                .map(|image| image.id.clone())
                .collect()
        });
        Ok(Self {
            before: place("before")?,
            since: place("since")?,
            limit: limit
                .and_then(|n| usize::try_from(n).ok())
                .filter(|n| *n > 0),
            exited,
            ancestors,
            all,
            filters,
        })
    }

    /// The containers that match, newest first.
    pub fn apply(&self, containers: &Containers) -> Vec<(Arc<Container>, Status)> {
        containers
            .all()
            .into_iter()
            .map(|container| {
                let status = container.status();
                (container, status)
            })
            .filter(|(container, status)| self.matches(container, status))
            .take(self.limit.unwrap_or(usize::MAX))
            .collect()
    }

    fn matches(&self, container: &Container, status: &Status) -> bool {
        let filters = &self.filters;
        let spec = &container.spec;
        let shown = self.all
            || self.limit.is_some()
            || status.live()
            || status.revive
            || ["status", "exited", "before", "since"]
                .iter()
                .any(|f| filters.values(f).is_some());
        let order = (spec.created, spec.id.clone());
        let ports = |name: &str| {
            filters.any(name, |want| {
                spec.config
                    .exposed_ports
                    .keys()
                    .any(|have| port_matches(want, have))
            })
        };
        let published = |want: &String| {
            status
                .ports
                .iter()
                .any(|b| port_matches(want, &format!("{}/{}", b.port, b.protocol.word())))
        };
        let on = |want: &String| {
            let mut places = status.networks.iter();
            places.any(|p| p.name == *want || p.network.starts_with(want.as_str()))
                || status.networks.is_empty() && want == NONE
        };
        let mounts = |want: &String| {
            let mut mounts = spec.mounts.iter();
            mounts.any(|mount| mount.volume == *want || mount.target == *want)
                || spec
                    .shares
                    .iter()
                    .any(|share| share.source == *want || share.target == *want)
        };
        shown
            && filters.any("id", |want| spec.id.starts_with(want.as_str()))
            && filters.any("name", |want| name_matches(want, &status.name))
            && filters.any("status", |want| want == status.word())
            && filters.any("health", |want| want == health_word(status))
            && filters.any("network", on)
            && filters.labels("label", &spec.config.labels)
            && filters.flag("is-task").is_ok_and(|task| task != Some(true))
            && (self.exited.is_empty()
                || status.phase == Phase::Exited && self.exited.contains(&status.record.exit_code))
            && self
                .ancestors
                .as_ref()
                .is_none_or(|ids| ids.contains(&spec.image))
            && self.before.as_ref().is_none_or(|place| order < *place)
            && self.since.as_ref().is_none_or(|place| order > *place)
            && filters.any("volume", mounts)
            && filters.any("publish", published)
            && ports("expose")
    }
}

/// `80`, `80/tcp`, `80-90/tcp` against an exposed port.
fn port_matches(want: &str, have: &str) -> bool {
    let (range, protocol) = want.split_once('/').unwrap_or((want, "tcp"));
    let (port, own) = have.split_once('/').unwrap_or((have, "tcp"));
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    match (from.parse::<u16>(), to.parse::<u16>(), port.parse::<u16>()) {
        (Ok(from), Ok(to), Ok(port)) => protocol == own && (from..=to).contains(&port),
        _ => false,
    }
}

/// Docker takes the value as a regular expression over the name with and without its slash. Of
/// these the usual ones are known: anchors around a literal, and `.*`.
fn name_matches(want: &str, name: &str) -> bool {
    let slashed = format!("/{name}");
    let anchored = want.starts_with('^');
    let ends = want.ends_with('$') && !want.ends_with("\\$");
    let inner = want.strip_prefix('^').unwrap_or(want);
    let inner = inner.strip_suffix('$').filter(|_| ends).unwrap_or(inner);
    let parts: Vec<&str> = inner.split(".*").collect();
    [name, slashed.as_str()]
        .iter()
        .any(|text| glob(&parts, text, anchored, ends))
}

/// Whether the parts are in the text in order, the first at its start and the last at its end if
/// so wanted.
fn glob(parts: &[&str], text: &str, start: bool, end: bool) -> bool {
    let mut rest = text;
    for (at, part) in parts.iter().enumerate() {
        let last = at + 1 == parts.len();
        if at == 0 && start {
            match rest.strip_prefix(part) {
                Some(after) => rest = after,
                None => return false,
            }
            if last && end {
                return rest.is_empty();
            }
        } else if last && end {
            return rest.ends_with(part);
        } else {
            match rest.find(part) {
                Some(found) => rest = &rest[found + part.len()..],
                None => return false,
            }
        }
    }
    true
}

/// What the filter `health` compares with.
fn health_word(status: &Status) -> &'static str {
    status
        .health
        .as_ref()
        .map_or("none", |health| health.status.word())
}

/// The column STATUS of `docker ps`.
pub fn status_text(status: &Status) -> String {
    let ago = |at: u64| timestamps::human(timestamps::now().saturating_sub(at));
    match status.phase {
        _ if status.removing => "Removal In Progress".to_owned(),
        _ if status.restarting() => format!(
            "Restarting ({}) {} ago",
            status.record.exit_code,
            ago(status.record.finished)
        ),
        Phase::Created | Phase::Starting => "Created".to_owned(),
        // Its tether has not dialled yet since the endpoint's start.
        Phase::Running if status.record.started == 0 => "Up".to_owned(),
        Phase::Running => {
            let health = match &status.health {
                None => String::new(),
                Some(health) if health.status == HealthStatus::Starting => {
                    " (health: starting)".to_owned()
                }
                Some(health) => format!(" ({})", health.status.word()),
            };
            let paused = if status.paused { " (Paused)" } else { "" };
            format!("Up {}{health}{paused}", ago(status.record.started))
        }
        Phase::Exited | Phase::Restarting => format!(
            "Exited ({}) {} ago",
            status.record.exit_code,
            ago(status.record.finished)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_with_docker() {
        for (want, name, yes) in [
            ("web", "my-web-1", true),
            ("^web", "web-1", true),
            ("^/web$", "web", true),
            ("^web$", "web-1", false),
            ("web$", "my-web", true),
            ("^/my.*1$", "my-web-1", true),
            ("^b", "abc", false),
            ("x", "web", false),
        ] {
            assert_eq!(name_matches(want, name), yes, "{want} {name}");
        }
    }

    #[test]
    fn ports_match_by_range_and_protocol() {
        for (want, have, yes) in [
            ("80", "80/tcp", true),
            ("80/udp", "80/tcp", false),
            ("8000-8080/tcp", "8003/tcp", true),
            ("8000-8080", "9000/tcp", false),
            ("x", "80/tcp", false),
        ] {
            assert_eq!(port_matches(want, have), yes, "{want} {have}");
        }
    }
}
