//! bootimage
fn main() {}
