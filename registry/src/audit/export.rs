//! The audit log as a file: comma-separated values (RFC 4180) or a JSON object a line, the newest first.

use crate::metadata::{AuditEntry, AuditFilter, Error, Metadata};
use axum::body::Body;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Entries read at once: what an export holds in memory.
const BATCH: u32 = 1000;

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated values with a head.
    Csv,
    /// A JSON object a line.
    Jsonl,
}

impl Format {
    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Jsonl => "application/jsonl",
        }
    }
}

const HEAD: &str =
    "id,time,user,via,source,project,repository,operation,target,status,detail,count\r\n";

/// All entries that a filter lets through, as a body that is made while it is sent.
pub fn stream(metadata: Arc<Metadata>, filter: AuditFilter, format: Format) -> Body {
    let head = match format {
        Format::Csv => HEAD,
        Format::Jsonl => "",
    };
    let first = Some((metadata, filter, Bytes::from_static(head.as_bytes())));
    Body::from_stream(futures_util::stream::try_unfold(
        first,
        move |state| async move {
            let Some((metadata, mut filter, head)) = state else {
                return Ok::<_, Error>(None);
            };
            let wanted = filter.clone();
            let batch = metadata
                .read_long::<_, Error>(move |db| db.audit(&wanted, BATCH))
                .await?;
            let mut bytes = head.to_vec();
            for entry in &batch {
                line(&mut bytes, entry, format);
            }
            let next = batch.last().map(|last| {
                filter.before = Some(last.id);
                (metadata, filter, Bytes::new())
            });
            Ok(Some((Bytes::from(bytes), next)))
        },
    ))
}

fn line(out: &mut Vec<u8>, entry: &AuditEntry, format: Format) {
    match format {
        Format::Jsonl => {
            // Strings and numbers always can be written.
            out.extend(serde_json::to_vec(entry).unwrap_or_default());
            out.push(b'\n');
        }
        Format::Csv => {
            let (id, time, status) = (
                entry.id.to_string(),
                entry.time.to_string(),
                entry.status.to_string(),
            );
            let text = |t: &'_ Option<String>| t.clone().unwrap_or_default();
            let fields = [
                id,
                time,
                entry.user.clone(),
                entry.via.clone(),
                entry.source.clone(),
                text(&entry.project),
                text(&entry.repository),
                entry.operation.clone(),
                text(&entry.target),
                status,
                text(&entry.detail),
                entry.count.to_string(),
            ];
            let fields: Vec<String> = fields.into_iter().map(field).collect();
            out.extend(fields.join(",").into_bytes());
            out.extend(b"\r\n");
        }
    }
}

/// Quoted where needed; what a spreadsheet would take for a formula is made text.
fn field(mut text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        text.insert(0, '\'');
    }
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_no_formulas() {
        for (text, wanted) in [
            ("a", "a"),
            ("a,b", "\"a,b\""),
            ("a \"b\"\n", "\"a \"\"b\"\"\n\""),
            ("=1+1", "'=1+1"),
            ("", ""),
        ] {
            assert_eq!(field(text.into()), wanted);
        }
    }
}
