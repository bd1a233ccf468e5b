//! The error of a start whose VM could not be brought up: from the tether's own report, or, where it
//! had no link yet, from what the VM said last on its console.

use super::Containers;
use crate::errors::Error;
use vim::DatastorePath;
use wire::message::BOOT_STEPS;

/// Bytes of the console's end that are read; a fault is one line.
const TAIL: u64 = 8 * 1024;
/// Characters of a line that are told.
const LINE_MAX: usize = 512;

/// A step of the boot of a container's VM that failed.
pub(super) fn boot_fault(id: &str, step: &str, message: &str) -> Error {
    Error::internal(format!(
        "the VM of container {id} could not be brought up: {step}: {message}"
    ))
}

impl Containers {
    /// Why a VM went off before its tether reported.
    pub(super) async fn unreported(&self, id: &str) -> Error {
        let path = self.vsphere.container_folder(id).join("console.log");
        let tail = match self.console_tail(&path).await {
            Ok(tail) => tail,
            Err(error) => {
                tracing::warn!(%id, %error, "the console cannot be read");
                Vec::new()
            }
        };
        match last_words(&tail) {
            LastWords::Fault { step, message } => boot_fault(id, step, &message),
            LastWords::Line(line) => Error::internal(format!(
                "the VM of container {id} went off before its tether reported; its console says {line:?}; all of it is in {path}"
            )),
            LastWords::Nothing => Error::internal(format!(
                "the VM of container {id} went off before its tether reported, and nothing is on its console {path}: it was powered off, or its kernel did not get as far as the tether"
            )),
        }
    }

    async fn console_tail(&self, path: &DatastorePath) -> Result<Vec<u8>, vim::Error> {
        let (client, datacenter) = (self.vsphere.client(), self.vsphere.datacenter_path());
        let size = client.file_head(datacenter, path).await?.size;
        if size == 0 {
            return Ok(Vec::new());
        }
        let range = size.saturating_sub(TAIL)..size;
        client
            .file_get(datacenter, path, Some(range))
            .await?
            .bytes(TAIL as usize)
            .await
    }
}

/// What a console's end tells.
#[derive(Debug, PartialEq, Eq)]
enum LastWords {
    /// The tether named the step that failed.
    Fault { step: &'static str, message: String },
    /// Something else, a kernel's panic for one.
    Line(String),
    /// It is empty.
    Nothing,
}

/// Reads the end of a console, which each power-on begins anew. The guest writes it, so nothing but text is passed on.
fn last_words(tail: &[u8]) -> LastWords {
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let shown = line.chars().filter(|c| !c.is_control()).take(LINE_MAX);
            shown.collect::<String>().trim().to_owned()
        })
        .filter(|line| !line.is_empty())
        .collect();
    let fault = |line: &String| {
        let (step, message) = line.split_once("tether: ")?.1.split_once(": ")?;
        let step = BOOT_STEPS.into_iter().find(|known| *known == step)?;
        Some(LastWords::Fault {
            step,
            message: message.to_owned(),
        })
    };
    // Behind why it panics a kernel tells much more; before, where it came from an exception, which one that was and where.
    let panic = || {
        let found = |part: &str| lines.iter().find(|line| line.contains(part)).cloned();
        let panic = found("Kernel panic")?;
        let exception = found("BUG: ").or_else(|| found(" [#1] "));
        let told = [exception, found("RIP: "), Some(panic)];
        Some(told.into_iter().flatten().collect::<Vec<_>>().join("; "))
    };
    // The kernel may say a word on the power-off behind it.
    lines
        .iter()
        .rev()
        .find_map(fault)
        .or_else(|| panic().map(LastWords::Line))
        .or_else(|| lines.last().cloned().map(LastWords::Line))
        .unwrap_or(LastWords::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_is_found_on_the_console() {
        let console = b"\x1bcSeaBIOS\r\n[ 0.3] tether: configuration: guestinfo.x is missing\r\n[ 0.4] reboot: Power down\r\n";
        assert_eq!(
            last_words(console),
            LastWords::Fault {
                step: "configuration",
                message: "guestinfo.x is missing".into()
            }
        );
    }

    #[test]
    fn what_is_no_fault_is_shown_as_the_text_that_it_is() {
        assert_eq!(last_words(b" \r\n\0\n"), LastWords::Nothing);
        for (console, line) in [
            (
                &b"a\nKernel panic - not syncing\n\n"[..],
                "Kernel panic - not syncing",
            ),
            (
                b"Kernel panic - no init\nCall Trace:\nKernel Offset: disabled\n",
                "Kernel panic - no init",
            ),
            (
                b"[ 1.4] divide error: 0000 [#1] SMP\n[ 1.4] CPU: 1 PID: 0\n[ 1.4] RIP: 0010:f+0x1/0x2\nCode: 00\n[ 1.5] Kernel panic - not syncing: Fatal exception in interrupt\n",
                "[ 1.4] divide error: 0000 [#1] SMP; [ 1.4] RIP: 0010:f+0x1/0x2; [ 1.5] Kernel panic - not syncing: Fatal exception in interrupt",
            ),
            (
                b"tether: link: refused; dialling again",
                "tether: link: refused; dialling again",
            ),
            (b"\xff\x1b[2Jx\n", "\u{fffd}[2Jx"),
        ] {
            assert_eq!(last_words(console), LastWords::Line(line.into()));
        }
        let LastWords::Line(line) = last_words(&[b'x'; 8192]) else {
            panic!("it is one line");
        };
        assert_eq!(line.len(), LINE_MAX);
    }
}
