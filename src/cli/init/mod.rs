//! `knock-agent init`: a few questions, a configuration, and the commands that open it.

mod answers;
mod ask;
mod host;
mod named;
mod questions;
mod show;
mod unit;
mod write;

use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::Args;

use self::answers::{Chance, Service};
use self::questions::{From, Questions};
use crate::cli::flags::step_port;
use crate::cli::hash_key::{new_key, new_path, stored};
use crate::cli::host_name::host;
use crate::cli::{ConfigArg, Exit, Printer};
use crate::sys::{process, terminal};
use crate::units::{AppName, IfName, Lifetime, id_of};

/// The arguments of `init`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Asks what is not said by a flag. Paths and keys are made by chance. The configuration stores the keys as hashes: the commands that are printed at the end, or the profile, are the only place that has them.\nNothing is written before the last question is answered. Nothing of the firewall is changed.\n\nExamples:\n  sudo knock-agent init\n  sudo knock-agent init --yes --service 22 --profile home.yaml      what is usual, and no secret on the screen\n  sudo knock-agent init --service 3389/both --destination 192.168.0.42"
)]
pub struct InitArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// The port that is closed until somebody knocks: 22, 51820/udp, 3389/both, or a name such as ssh
    #[arg(long, value_name = "PORT", value_parser = ask::service)]
    pub service: Option<Service>,

    /// What the service is called: the name of its section, and what clients send
    #[arg(long, value_name = "NAME")]
    pub app: Option<AppName>,

    /// Where the service is: local, or a LAN host, such as 192.168.0.42, 192.168.0.42:22 or fd00::42
    #[arg(long, value_name = "HOST", value_parser = ask::destination)]
    pub destination: Option<crate::config::Destination>,

    /// The interface towards the internet, or several with commas [default: those of the default routes]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub interface_ext: Vec<IfName>,

    /// The interface towards the LAN host [default: that of the route to it]
    #[arg(long, value_name = "NAME")]
    pub interface_int: Option<IfName>,

    /// How clients call this host, a name or an address, or several with commas [default: its addresses]
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = host)]
    pub host: Vec<String>,

    /// How long the service stays open after a knock [default: 24h]
    #[arg(long, value_name = "DURATION")]
    pub duration: Option<Lifetime>,

    /// Networks that need not knock, with commas, or none
    #[arg(long, value_name = "NETWORK,...", value_parser = ask::networks)]
    pub allow: Option<ask::Networks>,

    /// A certificate of step 2 that clients trust: PEM [default: a self-signed one is made]
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// Its key: PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// Who has to give a one-time code as well, or none
    #[arg(long, value_name = "USER", value_parser = ask::user)]
    pub two_factor: Option<ask::User>,

    /// Port of step 1 [default: 80 where nobody has it, else 8080]
    #[arg(long, value_name = "PORT", value_parser = step_port, requires = "https_port")]
    pub http_port: Option<NonZeroU16>,

    /// Port of step 2 [default: 443 where nobody has it, else 8443]
    #[arg(long, value_name = "PORT", value_parser = step_port, requires = "http_port")]
    pub https_port: Option<NonZeroU16>,

    /// Write what the client needs into this file, mode 0600, instead of showing it
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,

    /// Where grants are kept across a reboot
    #[arg(long, value_name = "DIR", default_value = "/var/lib/knock-agent", hide = true)]
    pub state_dir: PathBuf,

    /// Take what is usual for all that is not said
    #[arg(short, long)]
    pub yes: bool,

    /// Overwrite files that are there
    #[arg(long)]
    pub force: bool,
}

impl InitArgs {
    /// The same with whole paths: what is printed is started by systemd, which is in no folder of anybody's.
    fn with_whole_paths(mut self) -> Self {
        let whole =
            [Some(&mut self.file.config), self.cert.as_mut(), self.key.as_mut(), Some(&mut self.state_dir)];
        for path in whole.into_iter().flatten() {
            *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
        }
        self
    }
}

/// Asks, writes, checks, and shows how to go on.
#[must_use]
pub fn run(args: InitArgs) -> Exit {
    let mut err = Printer::stderr();
    let exit = init(&args.with_whole_paths(), &mut err).unwrap_or_else(|exit| exit);
    err.finish(exit)
}

fn init(args: &InitArgs, err: &mut Printer) -> Result<Exit, Exit> {
    process::harden(false).map_err(|errno| {
        err.line(format!("error: the process cannot be protected: {errno}"));
        Exit::Bug
    })?;
    // Before anybody has answered in vain.
    write::is_possible(args, err)?;
    let from = match (args.yes, terminal::is_there()) {
        (true, _) => From::Defaults,
        (false, true) => From::Person,
        (false, false) => From::Nobody,
    };
    let mut questions = Questions::new(from, err);
    let answers = ask::all(args, &mut questions)?;
    questions.finish()?;
    let codes = match &answers.codes {
        None => None,
        Some((user, file)) => {
            write::refuse(file, args.force, err)?;
            Some(crate::cli::enroll::new_codes(user, err)?)
        }
    };
    let chance = chance().map_err(|error| {
        err.line(format!("error: {error}"));
        Exit::Io
    })?;
    let pin = write::all(args, &answers, &chance, codes, err)?;
    show::all(args, &answers, &chance, pin.as_deref(), err)
}

fn chance() -> std::io::Result<Chance> {
    let (http, https) = (new_key()?, new_key()?);
    let stored = (stored(&http), stored(&https));
    let id = id_of(http.expose()).unwrap_or_default().to_owned();
    Ok(Chance { paths: (new_path()?, new_path()?), keys: (http, https), stored, id })
}
