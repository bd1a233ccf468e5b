//! Progress as a Docker client draws it (Docker's `jsonmessage`): JSON objects, one a line.

use bytes::Bytes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// At most one message about a layer's bytes in this time.
const PACE: Duration = Duration::from_millis(100);

/// Where messages go. A client that has gone is not an error here: the work goes on or is dropped by its caller.
#[derive(Debug, Clone)]
pub struct Progress {
    lines: mpsc::UnboundedSender<Bytes>,
    /// Leaves out what is about a single layer (`docker load -q`).
    quiet: bool,
}

impl Progress {
    /// A sender, and the lines that it makes.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Bytes>) {
        let (send, receive) = mpsc::unbounded_channel();
        (
            Progress {
                lines: send,
                quiet: false,
            },
            receive,
        )
    }

    /// The same without what is about single layers.
    pub fn quiet(self) -> Self {
        Progress {
            quiet: true,
            ..self
        }
    }

    /// Sends one message.
    pub fn send(&self, message: &Value) {
        let mut line = message.to_string();
        line.push_str("\r\n");
        // Unbounded but paced: a layer makes ten messages a second.
        let _ = self.lines.send(line.into());
    }

    /// Passes a line on; `false` where nobody listens any more.
    pub fn forward(&self, line: Bytes) -> bool {
        self.lines.send(line).is_ok()
    }

    /// A line of text about the whole.
    pub fn status(&self, text: &str) {
        self.send(&json!({ "status": text }));
    }

    /// A line of text about a layer or tag.
    pub fn of(&self, id: &str, text: &str) {
        if self.quiet {
            return;
        }
        self.send(&json!({ "status": text, "progressDetail": {}, "id": id }));
    }

    /// Text as `docker load` shows it.
    pub fn stream(&self, text: &str) {
        self.send(&json!({ "stream": text }));
    }

    /// The last message of a failed operation.
    pub fn error(&self, text: &str) {
        let _ = self.lines.send(Self::last(text));
    }

    /// The same as a line.
    pub fn last(text: &str) -> Bytes {
        format!(
            "{}\r\n",
            json!({ "errorDetail": { "message": text }, "error": text })
        )
        .into()
    }

    /// Whether nobody listens any more.
    pub fn is_closed(&self) -> bool {
        self.lines.is_closed()
    }

    /// Waits until nobody listens any more.
    pub async fn closed(&self) {
        self.lines.closed().await;
    }
}

/// Counts the bytes of one layer, and tells of them at a bearable pace.
#[derive(Debug)]
pub struct Meter {
    progress: Progress,
    id: String,
    doing: &'static str,
    total: u64,
    told: Instant,
}

impl Meter {
    /// A meter for a layer of `total` bytes.
    pub fn new(progress: Progress, id: &str, total: u64) -> Self {
        let told = Instant::now()
            .checked_sub(PACE)
            .unwrap_or_else(Instant::now);
        Meter {
            progress,
            id: id.to_owned(),
            doing: "Downloading",
            total,
            told,
        }
    }

    /// The same for something else than "Downloading".
    pub fn doing(self, doing: &'static str) -> Self {
        Meter { doing, ..self }
    }

    /// So many bytes have come.
    pub fn at(&mut self, current: u64) {
        if self.told.elapsed() < PACE && current < self.total {
            return;
        }
        self.told = Instant::now();
        self.progress.send(&json!({
            "status": self.doing,
            "progressDetail": { "current": current, "total": self.total },
            "progress": bar(current, self.total),
            "id": self.id,
        }));
    }
}

/// `[=====>      ]  1.2MB/3.4MB`, as clients without a terminal show it.
fn bar(current: u64, total: u64) -> String {
    let parts = (current.min(total) * 50).checked_div(total).unwrap_or(50) as usize;
    let arrow = if parts < 50 { ">" } else { "" };
    let done = "=".repeat(parts.saturating_sub(usize::from(arrow.is_empty() && parts == 0)));
    let left = " ".repeat(50usize.saturating_sub(parts + arrow.len()));
    format!("[{done}{arrow}{left}]  {}/{}", human(current), human(total))
}

/// Sizes in powers of 1,000, four digits, as Docker prints them.
pub fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            let text = format!("{value:.3}");
            // Four significant digits, without zeros at the end.
            let text = &text[..text.len().min(5)];
            let text = if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.')
            } else {
                text
            };
            return format!("{text}{unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1}TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows() {
        assert!(bar(0, 100).starts_with("[>"));
        assert!(bar(50, 100).contains("=========================>"));
        assert!(bar(100, 100).starts_with(&format!("[{}]", "=".repeat(50))));
        assert_eq!(
            bar(0, 100).len() - human(0).len() - human(100).len(),
            bar(99, 100).len() - human(99).len() - human(100).len()
        );
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1500, "1.5kB"),
            (62_914_560, "62.91MB"),
            (1 << 40, "1.1TB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
