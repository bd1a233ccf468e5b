//! hostsim
fn main() {}
