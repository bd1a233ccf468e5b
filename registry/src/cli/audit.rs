//! `registry audit`, `registry log`

use super::call::{self, part};
use super::{Common, table, when};
use crate::api::audit::{Forget, Forgotten, Search};
use crate::audit::export::Format;
use crate::metadata::AuditEntry;
use anyhow::Result;
use clap::{Args, Subcommand};
use http::Method;

/// What was done, by whom, from where, with which result.
#[derive(Subcommand)]
pub(crate) enum Audit {
    /// Show entries, the newest first
    Search(Search),
    /// Write all entries out
    Export {
        #[command(flatten)]
        search: Search,
        /// In which form
        #[arg(long, value_enum, default_value = "csv")]
        format: Format,
    },
    /// Remove old entries now (every hour this happens as registry.toml has it)
    Forget {
        /// Keep those of the last days
        #[arg(long, value_name = "DAYS")]
        keep: u32,
    },
}

/// The last lines of the log of the process that serves.
#[derive(Args)]
pub(crate) struct Log {
    /// Only lines with this text
    #[arg(long)]
    text: Option<String>,
    /// Most lines
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

fn query(search: &Search) -> Result<String> {
    let value = serde_json::to_value(search)?;
    let mut text = String::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        let value = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(s) => s.clone(),
            other => other.to_string(),
        };
        text += &format!("{key}={}&", part(&value));
    }
    Ok(text)
}

fn row(entry: &AuditEntry) -> Vec<String> {
    let what = entry.repository.as_ref().or(entry.project.as_ref());
    vec![
        when(entry.time),
        entry.user.clone(),
        entry.source.clone(),
        entry.operation.clone(),
        what.cloned().unwrap_or_default(),
        entry.target.clone().unwrap_or_default(),
        entry.status.to_string(),
        match (entry.detail.clone().unwrap_or_default(), entry.count) {
            (detail, 0 | 1) => detail,
            (detail, count) => format!("{count} times {detail}").trim_end().to_owned(),
        },
    ]
}

pub(crate) fn run(common: &Common, audit: Audit) -> Result<()> {
    let data = &common.data;
    match audit {
        Audit::Search(search) => {
            let path = format!("/audit?{}", query(&search)?);
            let found: Vec<AuditEntry> = call::call(data, Method::GET, &path, &())?;
            common.print(&found, |found| {
                let rows: Vec<_> = found.iter().map(row).collect();
                let heads = [
                    "TIME",
                    "USER",
                    "FROM",
                    "OPERATION",
                    "WHERE",
                    "TARGET",
                    "STATUS",
                    "DETAIL",
                ];
                table(&heads, &rows)
            })
        }
        Audit::Export { mut search, format } => {
            search.format = Some(format);
            let path = format!("/audit?{}", query(&search)?);
            call::copy(data, &path, &mut std::io::stdout().lock())
        }
        Audit::Forget { keep } => {
            let body = Forget { keep_days: keep };
            let done: Forgotten = call::call(data, Method::POST, "/audit/forget", &body)?;
            common.print(&done, |d| format!("removed {} entries", d.entries))
        }
    }
}

pub(crate) fn log(common: &Common, log: &Log) -> Result<()> {
    let text = log.text.as_deref().map(part);
    let mut path = format!("/log?limit={}", log.limit);
    if let Some(text) = text {
        path += &format!("&text={text}");
    }
    let lines: Vec<String> = call::call(&common.data, Method::GET, &path, &())?;
    common.print(&lines, |lines| lines.join("\n"))
}
