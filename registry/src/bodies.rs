//! Bodies that are read whole before anything is done with them: manifests, JSON, forms.

use std::time::Duration;

/// How long such a body may take: the longest one, at 40 kB a second. Who takes longer only holds what a request costs.
const TIME: Duration = match cfg!(test) {
    false => Duration::from_secs(120),
    // So that tests can wait for it.
    true => Duration::from_millis(50),
};

/// What is told to who took longer.
pub const SLOW: &str = "the request's body took too long; nothing was done";

/// Reads a body in time; `None` when it took longer.
pub async fn in_time<T>(read: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(TIME, read).await.ok()
}
