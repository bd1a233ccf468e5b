//! What a handler adds to the entry of its request. It is told as soon as it is known, so that an entry has it whether the
//! request goes well or not.

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
    let detail = detail.into();
    tell(|told| told.detail = Some(detail.chars().take(2000).collect()));
}

/// What is to change, as JSON. Never of what holds a secret.
pub fn tell_change(change: &impl Serialize) {
    // What came as JSON can be written as such.
    tell_detail(serde_json::to_string(change).unwrap_or_default());
}
