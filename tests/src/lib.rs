//! End to end tests: the harness. The cases are in `tests/tests/`.

pub mod guest;
