//! Finding events.

use crate::state::State;
use vim::types::{Event, EventFilterSpec};

/// Events in one answer where the client names no number.
const ANSWER_MAX: usize = 1000;

/// The events that a filter finds, oldest first; the latest where there are too many.
pub fn query(state: &State, filter: &EventFilterSpec) -> Vec<Event> {
    let max = filter
        .max_count
        .and_then(|n| usize::try_from(n).ok())
        .filter(|&n| n > 0)
        .unwrap_or(ANSWER_MAX);
    let mut found: Vec<Event> = state
        .events
        .iter()
        .rev()
        .filter(|event| matches(filter, event))
        .take(max)
        .cloned()
        .collect();
    found.reverse();
    found
}

fn matches(filter: &EventFilterSpec, event: &Event) -> bool {
    let kinds = filter.kind.iter().map(String::as_str);
    let ids = filter
        .event_type_id
        .iter()
        .map(|id| id.rsplit('.').next().unwrap_or_default());
    let mut wanted = kinds.chain(ids).peekable();
    if wanted.peek().is_some() && !wanted.any(|kind| kind == event.kind) {
        return false;
    }
    if let Some(entity) = &filter.entity
        && entity.entity.kind == "VirtualMachine"
        && event.vm.as_ref().map(|vm| &vm.vm) != Some(&entity.entity)
    {
        return false;
    }
    filter.time.as_ref().is_none_or(|time| {
        time.begin_time
            .is_none_or(|from| event.created_time >= from)
            && time.end_time.is_none_or(|to| event.created_time <= to)
    })
}
