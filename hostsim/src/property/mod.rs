//! The property collector: reading properties, and telling of their changes.

mod collector;
mod select;
mod values;
mod view;

pub use collector::{Collector, check_for_updates, wait_for_updates};
pub use select::{fetch, retrieve};
pub use values::{Scope, exists};
pub use view::{View, child_named, children};
