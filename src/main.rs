//! The `knock-agent` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    knock_agent::cli::main()
}
