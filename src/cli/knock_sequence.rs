//! `knock-agent knock --sequence`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::knock::{CHECK, KnockArgs, run_then};
use crate::cli::knock_timed::TimedArgs;
use crate::cli::person::{Person, profile};
use crate::cli::{Exit, Printer, Tone};
use crate::client::{Ask, OneTime, OneTimeError, firsts, knock_sequence, open, resolve};
use crate::config::{Families, KnockProfile, KnocksFrom, Way};
use crate::sys::process;
use crate::units::{Knock, Lifetime};

/// From one knock to the next, unless something else is said.
const PAUSE: Duration = Duration::from_millis(300);

/// The flags about sequences.
#[derive(Args, Clone, Debug, Default)]
pub struct SequenceArgs {
    /// Knock at these ports in this order, without the two steps: tcp/1234,udp/7000,9012
    #[arg(long, value_name = "KNOCKS", value_parser = knocks, conflicts_with_all = ["app", "duration", "close", "watch"])]
    pub sequence: Option<Knocks>,

    /// With a sequence, whom to knock at, where no profile says so
    #[arg(long, value_name = "HOST", conflicts_with = "profile")]
    pub target: Option<String>,

    /// With a sequence, seconds from one knock to the next [default: the profile's, 0.3]
    #[arg(long, value_name = "SECONDS", value_parser = delay)]
    pub delay: Option<Pause>,

    /// Knocks that change with time.
    #[command(flatten)]
    pub timed: TimedArgs,
}

impl SequenceArgs {
    /// What the flags say of knocks, if anything.
    pub(super) fn knocks(&self) -> Option<KnocksFrom> {
        let fixed = self.sequence.as_ref().map(|knocks| KnocksFrom::Fixed(knocks.0.clone()));
        fixed.or_else(|| self.timed.knocks().map(KnocksFrom::Timed))
    }

    /// Refuses flags that do not go together.
    ///
    /// # Errors
    /// [`Exit::Usage`], after it was told.
    pub(super) fn vet(&self, err: &mut Printer) -> Result<(), Exit> {
        let Some(fault) = self.timed.fault() else { return Ok(()) };
        err.line(format!("error: {fault}"));
        Err(Exit::Usage)
    }

    /// Refuses flags that mean nothing without a sequence.
    ///
    /// # Errors
    /// [`Exit::Usage`], after it was told.
    pub(super) fn vet_steps(&self, err: &mut Printer) -> Result<(), Exit> {
        if self.target.is_none() && self.delay.is_none() {
            return Ok(());
        }
        err.line(
            "error: --target and --delay are for knock sequences: name one, by a flag or by the profile",
        );
        Err(Exit::Usage)
    }
}

/// The knocks of a command line. Printing them for debugging does not tell them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Knocks(pub Vec<Knock>);

impl std::fmt::Debug for Knocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Knocks({})", self.0.len())
    }
}

/// The time from one knock to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause(pub Duration);

/// What to do after the knocks.
struct Afterwards {
    /// Over which families.
    families: Families,
    /// The port to try, and for how long.
    check: Option<(u16, Duration)>,
}

/// Knocks as flags say, at the host of the command line or of the profile.
pub(super) fn by_flags(args: &KnockArgs, knocks: KnocksFrom, err: &mut Printer) -> Result<Exit, Exit> {
    let way = match &args.sequence.target {
        Some(_) => None,
        None => Some(profile(args.profile.as_deref(), err)?),
    };
    let of_way = |way: &Way| (way.host().to_owned(), way.check(), way.then().to_vec(), way.families());
    let nothing = || (args.sequence.target.clone().unwrap_or_default(), None, Vec::new(), Families::Both);
    let (host, check, then, families) = way.as_ref().map_or_else(nothing, of_way);
    let profile = KnockProfile { host, knocks, pause: PAUSE, families, check, then };
    by_profile(args, &profile, err)
}

/// Knocks as a profile says.
pub(super) fn by_profile(args: &KnockArgs, profile: &KnockProfile, err: &mut Printer) -> Result<Exit, Exit> {
    if args.app.is_some() || args.duration.is_some() || args.close || args.watch {
        err.line("error: --app, --for, --close and --watch are for the two steps: knocks open what the gateway says");
        return Err(Exit::Usage);
    }
    let port = args.port.or(profile.check);
    let limit = args.wait.map(Lifetime::as_duration).or(args.check.then_some(CHECK));
    if limit.is_some() && port.is_none() {
        err.line("error: which port? write `check: <port>` into the profile, or --port");
        return Err(Exit::Usage);
    }
    let families = match (args.ipv4, args.ipv6) {
        (true, _) => Families::V4,
        (_, true) => Families::V6,
        _ => profile.families,
    };
    if let Err(error) = process::conceal() {
        err.line(format!("error: the process cannot be protected: {error}"));
        return Err(Exit::Bug);
    }
    let pause = args.sequence.delay.map_or(profile.pause, |delay| delay.0);
    let profile = KnockProfile { pause, ..profile.clone() };
    let person = Person { stdin_is_free: true };
    run(&profile, &Afterwards { families, check: port.zip(limit) }, &person, err)?;
    let then = if args.then.is_empty() { &profile.then } else { &args.then };
    run_then(then, err)
}

/// Knocks as a profile says, and does nothing else; the gateway's addresses that were knocked at.
///
/// # Errors
/// The exit code, after the reason was told.
pub(super) fn knock(profile: &KnockProfile, ask: &dyn Ask, err: &mut Printer) -> Result<Vec<IpAddr>, Exit> {
    let addresses = resolve(&profile.host, profile.families).map_err(|error| {
        err.line(format!("error: {} cannot be resolved: {error}", profile.host));
        Exit::NoGateway
    })?;
    // Nobody answers, so nobody knows where somebody listens.
    let planned = plan(&profile.knocks, firsts(&addresses), ask, err)?;
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let one = |(address, knocks): (IpAddr, Vec<Knock>)| {
            (address, scope.spawn(move || knock_sequence(address, &knocks, profile.pause)))
        };
        let running: Vec<_> = planned.into_iter().map(one).collect();
        let join = |(address, thread): (IpAddr, std::thread::ScopedJoinHandle<'_, _>)| {
            (address, thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        };
        running.into_iter().map(join).collect()
    });
    let mut knocked = Vec::new();
    for (address, outcome) in outcomes {
        let family = family(address);
        match outcome {
            Ok(()) => {
                knocked.push(address);
                err.line(format!("{family} {address}: knocked"));
            }
            Err(error) => {
                let failed = err.paint(Tone::Bad, "failed");
                err.line(format!("{family} {address}: {failed}: {error}"));
            }
        }
    }
    if knocked.is_empty() { Err(Exit::NoGateway) } else { Ok(knocked) }
}

/// What is knocked at which address: what changes with time is never sent twice.
fn plan(
    from: &KnocksFrom,
    addresses: Vec<IpAddr>,
    ask: &dyn Ask,
    err: &mut Printer,
) -> Result<Vec<(IpAddr, Vec<Knock>)>, Exit> {
    let timed = match from {
        KnocksFrom::Fixed(knocks) => {
            return Ok(addresses.into_iter().map(|address| (address, knocks.clone())).collect());
        }
        KnocksFrom::Timed(timed) => timed,
    };
    let failed = |error: OneTimeError, err: &mut Printer| {
        err.line(format!("error: {error}"));
        match error {
            OneTimeError::Used | OneTimeError::NotACode => Exit::NoCode,
            OneTimeError::Secret { .. } | OneTimeError::Knock(_) => Exit::BadConfig,
        }
    };
    let mut one_time = OneTime::new(timed, ask).map_err(|error| failed(error, err))?;
    let mut planned: Vec<(IpAddr, Vec<Knock>)> = Vec::new();
    for address in addresses {
        match one_time.unused() {
            Ok(knocks) => planned.push((address, knocks)),
            Err(error @ OneTimeError::Used) if !planned.is_empty() => {
                err.line(format!("{} {address}: not knocked: {error}", family(address)));
            }
            Err(error) => return Err(failed(error, err)),
        }
    }
    Ok(planned)
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Reads the knocks of a flag.
///
/// # Errors
/// What is no knock.
pub(super) fn knocks(text: &str) -> Result<Knocks, String> {
    match Knock::list(text) {
        Ok(knocks) if knocks.len() <= 32 => Ok(Knocks(knocks)),
        Ok(_) => Err("a sequence has at most 32 knocks".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn delay(text: &str) -> Result<Pause, String> {
    let secs = text.parse::<f64>().ok().filter(|secs| (0.0..=3_600.0).contains(secs));
    secs.map(|secs| Pause(Duration::from_secs_f64(secs)))
        .ok_or_else(|| "write seconds from 0 to 3600, such as 0.3".to_owned())
}

fn run(profile: &KnockProfile, then: &Afterwards, ask: &dyn Ask, err: &mut Printer) -> Result<(), Exit> {
    let profile = KnockProfile { families: then.families, ..profile.clone() };
    let knocked = knock(&profile, ask, err)?;
    let Some((port, limit)) = then.check else { return Ok(()) };
    if open(&knocked, port, Instant::now() + limit).is_some() {
        let good = err.paint(Tone::Good, &format!("port {port} can be reached"));
        err.line(good);
        return Ok(());
    }
    err.line(format!(
        "error: nothing answers on port {port}: other knocks, too slow, too fast, or disturbed by others at this address; nobody tells which"
    ));
    Err(Exit::Found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knocks_and_pauses_are_read_as_the_seed_writes_them() {
        assert_eq!(knocks("1234, 5678,u:9012").unwrap().0.len(), 3);
        assert!(knocks("").is_err() && knocks("1,").is_err() && knocks(&["1"; 33].join(",")).is_err());
        assert_eq!(delay("0.3").unwrap().0, Duration::from_millis(300));
        assert_eq!(delay("7").unwrap().0, Duration::from_secs(7));
        for bad in ["-1", "NaN", "inf", "3601", "", "0.3s"] {
            assert!(delay(bad).is_err(), "{bad}");
        }
    }
}
