//! The `knock-agent` program.

use std::process::ExitCode;

/// What clients sent is in no memory any more when they are gone.
#[cfg(feature = "gateway")]
#[global_allocator]
static ALLOCATOR: knock_agent::sys::wiping::Wiping = knock_agent::sys::wiping::Wiping;

fn main() -> ExitCode {
    knock_agent::cli::main()
}
