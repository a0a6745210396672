//! The `knock-agent` program.

fn main() {}
