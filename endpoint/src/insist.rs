//! What has to be done once it is begun.

use crate::errors::Result;
use std::time::Duration;

const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Tries until it works: vSphere or a server is away, and nothing tells of its return; or a task that goes on there has
/// the VM or the disk, and vSphere takes one at a time. `what` is done to `whom` (a name or an ID), for the log.
pub async fn insist<T, F: Future<Output = Result<T>>>(
    what: &str,
    whom: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let mut pause = SHORTEST_PAUSE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => tracing::info!(whom, %error, "{what} is not done yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
