//! endpoint
fn main() {}
