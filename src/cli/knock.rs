//! `knock-agent knock`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::knock_sequence::{self, SequenceArgs};
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
/// How often the way to the gateway is looked at, with `--watch`.
const LOOK: Duration = Duration::from_secs(2);
/// How long a program has to end after a signal, with `--watch`.
const FAREWELL: Duration = Duration::from_secs(5);
/// Between knocks where nobody tells how long it stays open, with `--watch`.
const UNTOLD: Duration = Duration::from_secs(60);
/// Between tries after a failure, with `--watch`.
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(60);
/// What the way is looked at to before the gateway's name was ever found: `a.root-servers.net`, which is told nothing.
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

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
        return watch(&client, duration, &args, port, &then, err);
    }
    let action = if args.close { Action::Close } else { Action::Open };
    let opened = once(&client, action, duration, err)?;
    after(&args, &opened.addresses, port, err)?;
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

fn told(failure: &Failure, err: &mut Printer) -> Exit {
    err.line(format!("error: {failure}"));
    exit_of(failure)
}

/// What a knock opened.
struct Opened {
    /// The addresses where it worked.
    addresses: Vec<IpAddr>,
    /// The least that the gateway says of how long; nothing from one that does not say.
    lifetime: Option<Lifetime>,
}

/// Knocks at all addresses and reports.
fn once(
    client: &Client<'_>,
    action: Action,
    duration: Option<Lifetime>,
    err: &mut Printer,
) -> Result<Opened, Exit> {
    let addresses = client.addresses().map_err(|failure| told(&failure, err))?;
    knock_at(client, &addresses, action, duration, err)
}

fn knock_at(
    client: &Client<'_>,
    addresses: &[IpAddr],
    action: Action,
    duration: Option<Lifetime>,
    err: &mut Printer,
) -> Result<Opened, Exit> {
    let attempts = client.knock(addresses, action, duration);
    report(&attempts, action, duration, err);
    let failures: Vec<&Failure> = attempts.iter().filter_map(|a| a.outcome.as_ref().err()).collect();
    if failures.len() == attempts.len() {
        return Err(farthest(&failures));
    }
    Ok(Opened {
        addresses: attempts.iter().filter(|a| a.outcome.is_ok()).map(|a| a.address).collect(),
        lifetime: attempts.iter().filter_map(|a| a.outcome.as_ref().ok().copied().flatten()).min(),
    })
}

fn report(attempts: &[Attempted], action: Action, asked: Option<Lifetime>, err: &mut Printer) {
    for Attempted { address, outcome } in attempts {
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
fn after(args: &KnockArgs, addresses: &[IpAddr], port: Option<u16>, err: &mut Printer) -> Result<(), Exit> {
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

fn program(words: &[String]) -> Command {
    let mut command = Command::new(words.first().map_or("", String::as_str));
    command.args(words.iter().skip(1));
    command
}

/// Keeps it open until a signal comes, or until the program that was started ends.
fn watch(
    client: &Client<'_>,
    duration: Option<Lifetime>,
    args: &KnockArgs,
    port: Option<u16>,
    then: &[String],
    err: &mut Printer,
) -> Result<Exit, Exit> {
    let ending = endings(err)?;
    let mut opened = false;
    let mut child = None;
    let mut patience = *RETRY.start();
    let mut gateway = ANYWHERE.to_vec();
    loop {
        // Looked up for each knock only: a resolver is not to be told, nor to be waited for, every few seconds.
        let found = client.addresses().map_err(|failure| told(&failure, err));
        if let Ok(found) = &found {
            gateway.clone_from(found);
        }
        let before = Client::ways(&gateway);
        let knocked = found.and_then(|to| knock_at(client, &to, Action::Open, duration, err));
        if ending.try_recv().is_ok() {
            return ended(opened || knocked.is_ok(), child.as_mut(), err);
        }
        let pause = match knocked {
            Ok(Opened { addresses, lifetime }) => {
                patience = *RETRY.start();
                if !opened {
                    opened = true;
                    after(args, &addresses, port, err)?;
                    child = start(then, err)?;
                }
                // What was asked for may be more than there is, and is all that older gateways let know.
                lifetime.or(duration).map_or(UNTOLD, renewal)
            }
            // What a person has to put right is not tried again.
            Err(exit) if !opened && !matches!(exit, Exit::NoGateway | Exit::NoStep2 | Exit::BadAnswer) => {
                return Err(exit);
            }
            Err(_) => {
                let pause = patience;
                patience = (patience * 2).min(*RETRY.end());
                pause
            }
        };
        let way = (gateway.as_slice(), before.as_slice());
        if let Some(exit) = idle(way, &ending, Instant::now() + pause, child.as_mut(), opened, err) {
            return exit;
        }
    }
}

#[cfg(unix)]
fn endings(err: &mut Printer) -> Result<Receiver<()>, Exit> {
    crate::sys::signals::endings().map_err(|error| {
        err.line(format!("error: signals cannot be received: {error}"));
        Exit::Bug
    })
}

/// Ctrl-C ends the process at once, which is as good: nothing is left to be put right.
#[cfg(not(unix))]
fn endings(_: &mut Printer) -> Result<Receiver<()>, Exit> {
    let (tell, told) = std::sync::mpsc::channel();
    std::mem::forget(tell);
    Ok(told)
}

/// When to knock again: with a quarter of the time left, and a minute of it at most.
fn renewal(lifetime: Lifetime) -> Duration {
    let whole = lifetime.as_duration();
    let margin = (whole / 4).min(Duration::from_secs(60));
    whole.saturating_sub(margin).max(Duration::from_secs(1))
}

fn start(then: &[String], err: &mut Printer) -> Result<Option<std::process::Child>, Exit> {
    if then.is_empty() {
        return Ok(None);
    }
    let mut command = program(then);
    #[cfg(unix)]
    crate::sys::signals::free(&mut command);
    let child = command.spawn().map_err(|error| {
        err.line(format!("error: {} cannot be started: {error}", then.first().map_or("", String::as_str)));
        Exit::Usage
    })?;
    Ok(Some(child))
}

/// Waits until it is time, or until the way to the gateway is another one; the exit code where all is over.
fn idle(
    (gateway, before): (&[IpAddr], &[Option<IpAddr>]),
    told: &Receiver<()>,
    until: Instant,
    mut child: Option<&mut std::process::Child>,
    opened: bool,
    err: &mut Printer,
) -> Option<Result<Exit, Exit>> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        match told.recv_timeout(left.min(LOOK)) {
            Ok(()) => return Some(ended(opened, child, err)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        if let Some(status) = child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            return Some(Ok(Exit::Other(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1))));
        }
        // No address at all is no news: there is nothing to knock over.
        let now = Client::ways(gateway);
        if now != before && now.iter().any(Option::is_some) {
            err.line("the network has changed: knocking again");
            return None;
        }
    }
}

fn ended(opened: bool, child: Option<&mut std::process::Child>, err: &mut Printer) -> Result<Exit, Exit> {
    if let Some(child) = child {
        crate::sys::process::end(child, FAREWELL);
    }
    err.line("ended; what is open closes when its time is over");
    if opened { Ok(Exit::Done) } else { Err(Exit::Other(130)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_renewed_while_there_is_time_left() {
        for (lifetime, secs) in [("4s", 3), ("60s", 45), ("1h", 3_540), ("1s", 1)] {
            assert_eq!(renewal(lifetime.parse().unwrap()).as_secs(), secs, "{lifetime}");
        }
    }
}
