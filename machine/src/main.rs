//! machine
fn main() {}
