//! `knock-agent knock`.

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::knock_sequence::{self, SequenceArgs};
use crate::cli::knock_watch;
use crate::cli::person::{Person, exit_of, farthest, profile};
use crate::cli::{Exit, Printer, Tone};
use crate::client::{Attempted, Client, Failure, open};
use crate::config::{Families, Profile, Way};
use crate::knock::Action;
use crate::sys::process;
use crate::units::{AppName, Lifetime};

/// How long the service may take to be reached after a knock, with `--check`.
pub(super) const CHECK: Duration = Duration::from_secs(5);
/// The same with `--wait`, unless it says how long.
const WAIT: &str = "30s";

const AFTER_HELP: &str = "\
A profile is a file of yours, mode 0600, in ~/.config/knock-agent/: NAME.yaml. Without NAME the only one there is, or `default`. \
docs/client.md lists its keys. Keys and codes come from there, or are asked for; never from the command line.

Examples:
  knock-agent knock home                       open what the profile `home` says
  knock-agent knock home --for 2h --wait       for two hours, and wait until the port can be reached
  knock-agent knock home --close               close it again
  knock-agent knock home --watch --for 1h      keep it open, also after a change of network
  knock-agent knock home --then ssh gate       open, then become `ssh gate`
  knock-agent knock --sequence tcp/1234,udp/7000,tcp/9012 --target gate.example.com --check --port 22
                                               a knock sequence, one packet per knock, then try the port
  knock-agent knock --sequence-secret-file ~/.knock --ask-pin --target gate.example.com
                                               knocks that change with time

Exit codes:
  0  open (or closed) for at least one address family
  1  open, but the service's port cannot be reached (--check, --wait)
  2  wrong usage                      10  step 1 could not be sent: host, port, network
 11  step 2 did not open: step 1 was not accepted, or is filtered; nobody is told which
 12  the certificate is not trusted   13  step 2 refused the app, key or code
 14  a one-time code is needed        15  too many knocks
 16  step 2 answered oddly or not at all
 78  the profile cannot be used      130  nothing was opened before a signal came";

/// The arguments of `knock`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct KnockArgs {
    /// A profile's name, or a path with a slash in it
    #[arg(value_name = "PROFILE")]
    pub profile: Option<String>,

    /// Another app than the profile's
    #[arg(long, value_name = "APP")]
    pub app: Option<AppName>,

    /// Over IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// Over IPv6 only
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// How long it shall stay open; the gateway may allow less
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "close")]
    pub duration: Option<Lifetime>,

    /// Close what was opened for you, instead
    #[arg(long, conflicts_with_all = ["check", "wait", "watch", "then"])]
    pub close: bool,

    /// Then try the service's TCP port
    #[arg(long)]
    pub check: bool,

    /// Then wait until the service's TCP port can be reached, so long at most
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = WAIT)]
    pub wait: Option<Lifetime>,

    /// The TCP port to try, instead of the profile's `check`
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Keep it open until a signal comes: knock again before the time ends, and when the network changes
    #[arg(long)]
    pub watch: bool,

    /// Then run this program, without a shell; everything after --then belongs to it
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true)]
    pub then: Vec<String>,

    /// Knocks without the two steps.
    #[command(flatten)]
    pub sequence: SequenceArgs,

    /// What does not belong here.
    #[command(flatten)]
    pub secrets: SecretArgs,
}

/// Flags that people try, and that would show a secret to everybody on the host.
#[derive(Args, Clone, Debug, Default)]
pub struct SecretArgs {
    /// Refused: the profile says where keys are
    #[arg(long = "key", alias = "access-key", alias = "access_key", alias = "password", hide = true, num_args = 0..=1)]
    pub key: Option<Option<Hidden>>,

    /// Refused: codes are asked for
    #[arg(long, aliases = ["totp", "code", "otp", "pin", "secret", "sequence-secret"], hide = true, num_args = 0..=1)]
    pub token: Option<Option<Hidden>>,
}

/// Something that is neither kept nor shown.
#[derive(Clone, Copy, Debug)]
pub struct Hidden;

impl From<&str> for Hidden {
    fn from(_: &str) -> Self {
        Self
    }
}

impl SecretArgs {
    /// Refuses secrets of the command line.
    ///
    /// # Errors
    /// [`Exit::Usage`], after it has been said what to do instead.
    pub fn vet(&self, err: &mut Printer) -> Result<(), Exit> {
        if self.key.is_none() && self.token.is_none() {
            return Ok(());
        }
        err.line(
            "error: a command line can be read by everybody on this host: no key or code is taken from it",
        );
        err.line("  fix: keys come from the profile (file, command, keyring, prompt); codes are asked for; change the key if it was real");
        Err(Exit::Usage)
    }
}

/// Opens or closes what a profile says.
#[must_use]
pub fn run(args: KnockArgs) -> Exit {
    let mut err = Printer::stderr();
    let exit = knock(args, &mut err).unwrap_or_else(|exit| exit);
    err.finish(exit)
}

fn knock(args: KnockArgs, err: &mut Printer) -> Result<Exit, Exit> {
    args.secrets.vet(err)?;
    args.sequence.vet(err)?;
    if let Some(knocks) = args.sequence.knocks() {
        return knock_sequence::by_flags(&args, knocks, err);
    }
    let mut profile = match profile(args.profile.as_deref(), err)? {
        Way::Knocks(profile) => return knock_sequence::by_profile(&args, &profile, err),
        Way::Steps(profile) => *profile,
    };
    args.sequence.vet_steps(err)?;
    adopt(&mut profile, &args);
    let then = if args.then.is_empty() { profile.then.clone() } else { args.then.clone() };
    let port = args.port.or(profile.check);
    if (args.check || args.wait.is_some()) && port.is_none() {
        err.line("error: which port? write `check: <port>` into the profile, or --port");
        return Err(Exit::Usage);
    }
    let duration = profile.duration;
    let person = Person { stdin_is_free: true };
    let client = Client::new(profile, &person).map_err(|failure| told(&failure, err))?;
    if args.watch {
        return knock_watch::watch(&client, duration, &args, port, &then, err);
    }
    let action = if args.close { Action::Close } else { Action::Open };
    let opened = once(&client, action, duration, err)?;
    after(&args, &opened, port, err)?;
    if args.close { Ok(Exit::Done) } else { run_then(&then, err) }
}

/// Becomes the program that comes afterwards, if there is one.
pub(super) fn run_then(then: &[String], err: &mut Printer) -> Result<Exit, Exit> {
    if then.is_empty() {
        return Ok(Exit::Done);
    }
    let error = process::become_program(program(then));
    err.line(format!("error: {} cannot be started: {error}", then.first().map_or("", String::as_str)));
    Err(Exit::Usage)
}

/// What the command line says instead of the profile.
fn adopt(profile: &mut Profile, args: &KnockArgs) {
    if let Some(app) = &args.app {
        profile.app = app.clone();
    }
    if args.ipv4 {
        profile.families = Families::V4;
    }
    if args.ipv6 {
        profile.families = Families::V6;
    }
    profile.duration = args.duration.or(profile.duration);
}

pub(super) fn told(failure: &Failure, err: &mut Printer) -> Exit {
    err.line(format!("error: {failure}"));
    exit_of(failure)
}

/// Knocks at all addresses and reports.
fn once(
    client: &Client<'_>,
    action: Action,
    duration: Option<Lifetime>,
    err: &mut Printer,
) -> Result<Vec<IpAddr>, Exit> {
    let addresses = client.addresses().map_err(|failure| told(&failure, err))?;
    knock_at(client, &addresses, action, duration, err)
}

fn knock_at(
    client: &Client<'_>,
    addresses: &[IpAddr],
    action: Action,
    duration: Option<Lifetime>,
    err: &mut Printer,
) -> Result<Vec<IpAddr>, Exit> {
    let attempts = client.knock(addresses, action, duration);
    report(&attempts, action, duration, err);
    let failures: Vec<&Failure> = attempts.iter().filter_map(|a| a.outcome.as_ref().err()).collect();
    if failures.len() == attempts.len() {
        return Err(farthest(&failures));
    }
    Ok(attempts.iter().filter(|a| a.outcome.is_ok()).map(|a| a.address).collect())
}

pub(super) fn report(attempts: &[Attempted], action: Action, asked: Option<Lifetime>, err: &mut Printer) {
    for Attempted { address, outcome, .. } in attempts {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        match outcome {
            Ok(lifetime) => {
                let done = if action == Action::Close { "closed" } else { "open" };
                let done = err.paint(Tone::Good, done);
                let how_long = match (lifetime, asked) {
                    (Some(lifetime), Some(asked)) if *lifetime < asked => {
                        format!(" for {lifetime}, the gateway allows no more")
                    }
                    (Some(lifetime), _) => format!(" for {lifetime}"),
                    (None, _) => String::new(),
                };
                err.line(format!("{family} {address}: {done}{how_long}"));
            }
            Err(failure) => {
                let failed = err.paint(Tone::Bad, "failed");
                err.line(format!("{family} {address}: {failed}: {failure}"));
            }
        }
    }
}

/// What `--check` and `--wait` are for.
pub(super) fn after(
    args: &KnockArgs,
    addresses: &[IpAddr],
    port: Option<u16>,
    err: &mut Printer,
) -> Result<(), Exit> {
    let limit = match (args.check, args.wait) {
        (_, Some(wait)) => wait.as_duration(),
        (true, None) => CHECK,
        (false, None) => return Ok(()),
    };
    let Some(port) = port else { return Ok(()) };
    if open(addresses, port, Instant::now() + limit).is_some() {
        err.line(format!("port {port} can be reached"));
        return Ok(());
    }
    err.line(format!(
        "error: the gateway opened, but nothing answers on port {port}: is the service running there, and reached at this address?"
    ));
    Err(Exit::Found)
}

pub(super) fn program(words: &[String]) -> Command {
    let mut command = Command::new(words.first().map_or("", String::as_str));
    command.args(words.iter().skip(1));
    command
}
