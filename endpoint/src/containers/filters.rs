//! `docker ps` and its filters.

use super::{
    Container, Containers,
    state::{Phase, Status},
};
use crate::{
    api::{pattern::Pattern, query::Filters},
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
    names: Vec<Pattern>,
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
        for name in ["expose", "publish"] {
            let values = filters.values(name).unwrap_or(&[]);
            if let Some(wrong) = values.iter().find(|v| port_range(v).is_none()) {
                return Err(Error::bad(format!(
                    "error while looking up for {name} {wrong}: expected a port or a range of ports"
                )));
            }
        }
        let names = Pattern::all(&filters, "name");
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
            names,
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
            || filters.values("status").is_some();
        let order = (spec.created, spec.id.clone());
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
            && Pattern::any(&self.names, &[&status.name, &format!("/{}", status.name)])
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
            && self.ports_match(container, status)
    }

    /// As Docker: `expose` looks at the container's side of its ports, `publish` at the host's, both only while it runs,
    /// and one that fits is enough.
    fn ports_match(&self, container: &Container, status: &Status) -> bool {
        let wants = |name: &str| self.filters.values(name).unwrap_or(&[]);
        let (expose, publish) = (wants("expose"), wants("publish"));
        if expose.is_empty() && publish.is_empty() {
            return true;
        }
        if !status.running() {
            return false;
        }
        let fits = |wants: &[String], have: &str| wants.iter().any(|w| port_matches(w, have));
        let exposed = container.spec.config.exposed_ports.keys();
        let mut exposed = exposed.map(String::as_str);
        exposed.any(|have| fits(expose, have))
            || status.ports.iter().any(|b| {
                let protocol = b.protocol.word();
                fits(expose, &format!("{}/{protocol}", b.port))
                    || fits(publish, &format!("{}/{protocol}", b.host_port))
            })
    }
}

/// Ports from and to, and their protocol: `80`, `80/tcp`, `80-90/tcp`.
fn port_range(want: &str) -> Option<(u16, u16, &str)> {
    let (range, protocol) = want.split_once('/').unwrap_or((want, "tcp"));
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    Some((from.parse().ok()?, to.parse().ok()?, protocol))
}

/// `80`, `80/tcp`, `80-90/tcp` against an exposed port.
fn port_matches(want: &str, have: &str) -> bool {
    let (port, own) = have.split_once('/').unwrap_or((have, "tcp"));
    match (port_range(want), port.parse::<u16>()) {
        (Some((from, to, protocol)), Ok(port)) => protocol == own && (from..=to).contains(&port),
        _ => false,
    }
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
