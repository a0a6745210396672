//! `knock-agent cert`.

use std::io::ErrorKind;
use std::path::PathBuf;

use clap::Args;

use crate::cli::host_name::certified;
use crate::cli::{ConfigArg, Exit, Printer};
use crate::service::certificate::self_signed;
use crate::sys::{clock, files};

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
    #[arg(long = "name", value_name = "NAME", default_value = "knock-agent", value_parser = certified)]
    pub names: Vec<String>,

    /// For how many days it is valid, 1 to 3650
    #[arg(long, value_name = "DAYS", default_value_t = 3650)]
    pub days: u32,

    /// Overwrite files that are there
    #[arg(long)]
    pub force: bool,
}

/// Makes a certificate and its key.
#[must_use]
pub fn run(args: CertArgs) -> Exit {
    let mut err = Printer::stderr();
    let made = match self_signed(&args.names, args.days, clock::now().wall) {
        Ok(made) => made,
        Err(error) => {
            err.line(format!("error: {error}"));
            return err.finish(Exit::Usage);
        }
    };
    let files =
        [(&args.key, 0o600, made.key_pem.as_bytes()), (&args.cert, 0o644, made.certificate_pem.as_bytes())];
    if !args.force
        && let Some((there, ..)) = files.iter().find(|(path, ..)| files::exists(path))
    {
        err.line(format!("error: {} is there already", there.display()));
        err.line("  fix: --force overwrites it, or name others with --cert and --key");
        return err.finish(Exit::Io);
    }
    if args.cert == args.key {
        err.line("error: --cert and --key name the same file");
        return err.finish(Exit::Usage);
    }
    for (written, (path, mode, content)) in files.iter().enumerate() {
        if let Err(error) = files::replace(path, *mode, content) {
            err.line(format!("error: {}: {error}", path.display()));
            // Half a pair is of no use, and in the way of the next try.
            for (path, ..) in files.iter().take(if args.force { 0 } else { written }) {
                let _ = files::remove(path);
            }
            let denied = error.kind() == ErrorKind::PermissionDenied;
            return err.finish(if denied { Exit::NoPermission } else { Exit::Io });
        }
    }
    let mut out = Printer::stdout();
    out.line(format!(
        "certificate: {} (for {}, {} days)",
        args.cert.display(),
        args.names.join(", "),
        args.days
    ));
    out.line(format!("key:         {} (keep it to yourself)", args.key.display()));
    out.finish(err.finish(Exit::Done))
}
