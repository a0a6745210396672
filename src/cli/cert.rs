//! `knock-agent cert`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{ConfigArg, Exit, Printer};

/// The arguments of `cert`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  sudo knock-agent cert --name gate.example.org --name 203.0.113.1")]
pub struct CertArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// Where the certificate goes
    #[arg(long, value_name = "FILE", default_value = "/etc/knock-agent/cert.pem")]
    pub cert: PathBuf,

    /// Where the key goes; readable by its owner only
    #[arg(long, value_name = "FILE", default_value = "/etc/knock-agent/key.pem")]
    pub key: PathBuf,

    /// A host name or address clients use; may be given several times
    #[arg(long = "name", value_name = "NAME", default_value = "knock-agent")]
    pub names: Vec<String>,

    /// Overwrite files that are there
    #[arg(long)]
    pub force: bool,
}

/// Does what the arguments say.
#[must_use]
pub fn run(_args: CertArgs) -> Exit {
    let mut err = Printer::stderr();
    err.line("error: `knock-agent cert` is not built yet");
    err.finish(Exit::Bug)
}
