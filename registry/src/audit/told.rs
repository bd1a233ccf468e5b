//! What a handler adds to the entry of its request. It is told as soon as it is known, so that an entry has it whether the
//! request goes well or not.

use crate::metadata::AuditEntry;
use serde::Serialize;
use std::cell::RefCell;

/// What is added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// What was done to, where the path does not tell.
    pub target: Option<String>,
    /// The project, where the path does not tell.
    pub project: Option<String>,
    /// What was changed.
    pub detail: Option<String>,
}

tokio::task_local! {
    static TOLD: RefCell<Told>;
}

/// Runs a handler; what it told.
pub async fn listen<T>(handler: impl Future<Output = T>) -> (T, Told) {
    let heard = async {
        let done = handler.await;
        (done, TOLD.with(RefCell::take))
    };
    TOLD.scope(RefCell::default(), heard).await
}

/// Adds what was told until now.
pub(super) fn add_to(entry: &mut AuditEntry) {
    // Outside of a handler nothing was told.
    let told = TOLD.try_with(|told| told.borrow().clone());
    told.unwrap_or_default().complete(entry);
}

impl Told {
    /// What the path told comes first.
    pub(super) fn complete(self, entry: &mut AuditEntry) {
        entry.project = entry.project.take().or(self.project);
        entry.target = entry.target.take().or(self.target);
        entry.detail = self.detail;
    }
}

fn tell(add: impl FnOnce(&mut Told)) {
    // Outside of a request nobody listens.
    let _ = TOLD.try_with(|told| add(&mut told.borrow_mut()));
}

/// What it is done to. Bounded: a client chose it.
pub fn tell_target(name: &str) {
    tell(|told| told.target = Some(name.chars().take(300).collect()));
}

/// In which project.
pub fn tell_project(name: &str) {
    tell(|told| told.project = Some(name.chars().take(300).collect()));
}

/// What is to change, or came of it.
pub fn tell_detail(detail: impl Into<String>) {
    let detail = bounded(&detail.into());
    tell(|told| told.detail = Some(detail));
}

/// As much of a detail as an entry has.
pub(crate) fn bounded(detail: &str) -> String {
    detail.chars().take(2000).collect()
}

/// A change as a detail.
pub(crate) fn of_change(change: &impl Serialize) -> String {
    // What came as JSON can be written as such.
    bounded(&serde_json::to_string(change).unwrap_or_default())
}

/// What is to change, as JSON. Never of what holds a secret.
pub fn tell_change(change: &impl Serialize) {
    tell_detail(of_change(change));
}
