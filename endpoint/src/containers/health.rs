//! What a tether tells of its health checks.

use super::{Container, Containers};
use std::sync::Arc;
use wire::health::{Health, HealthStatus, LOG_MAX, OUTPUT_MAX, Probe};

/// Bytes of a result's text: the output, with what the tether says of it.
const TEXT_MAX: usize = OUTPUT_MAX + 256;

impl Containers {
    /// A health check has ended.
    pub(super) fn probed(
        &self,
        container: &Arc<Container>,
        boot: u64,
        (now, streak): (HealthStatus, u32),
        mut probe: Probe,
    ) {
        cut(&mut probe.output, TEXT_MAX);
        let changed = container.modify(|status| {
            if status.boot() != boot || !status.running() {
                return false;
            }
            let Some(health) = &mut status.health else {
                return false;
            };
            health.keep(probe);
            health.streak = streak;
            std::mem::replace(&mut health.status, now) != now
        });
        if changed {
            self.emit(container, format!("health_status: {}", now.word()), &[]);
        }
    }
}

/// A health as a guest told it, no larger than there can be.
pub(super) fn bounded(mut health: Health) -> Health {
    health.log.truncate(LOG_MAX);
    for probe in &mut health.log {
        cut(&mut probe.output, TEXT_MAX);
    }
    health
}

/// Cuts a text at a character's begin.
fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut text = "aé".to_owned();
        cut(&mut text, 2);
        assert_eq!(text, "a");
        cut(&mut text, 2);
        assert_eq!(text, "a");
    }
}
