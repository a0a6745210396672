//! `knock-agent knock --watch`: keeps open what a knock opened.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use crate::cli::knock::{KnockArgs, after, program, report, told};
use crate::cli::person::farthest;
use crate::cli::{Exit, Printer};
use crate::client::{Attempted, Client, Failure};
use crate::knock::Action;
use crate::units::Lifetime;

/// How often the way to the gateway is looked at, with `--watch`.
const LOOK: Duration = Duration::from_secs(2);
/// How long a program has to end after a signal.
const FAREWELL: Duration = Duration::from_secs(5);
/// Between knocks where nobody tells how long it stays open.
const UNTOLD: Duration = Duration::from_secs(60);
/// Between tries after a failure.
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(60);
/// Between two knocks, at least.
const SHORTEST: Duration = Duration::from_secs(1);
/// A knock that fails takes so long at most: for a connection to step 1, and until step 2 must have opened.
const IN_VAIN: Duration = Duration::from_secs(11);
/// By so much more than the clock that stands still meanwhile the calendar goes on where a host has slept.
const ASLEEP: Duration = Duration::from_secs(10);
/// What the way is looked at to before the gateway's name was ever found: `a.root-servers.net`, which is told nothing.
const ANYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// A family of addresses where it was open, and goes on to be.
struct Held {
    again: Instant,
    /// Until the next try, should the next one fail.
    patience: Duration,
}

/// The families that are held, by whether they are IPv4.
#[derive(Default)]
struct Families(BTreeMap<bool, Held>);

impl Families {
    /// The addresses to knock at: not those of a family that has time, also if the others fail; all where that would be none.
    fn due(&self, found: Vec<IpAddr>, now: Instant) -> Vec<IpAddr> {
        let by = |at: &IpAddr, then: Instant| self.0.get(&at.is_ipv4()).is_none_or(|held| held.again <= then);
        if !found.iter().any(|at| by(at, now)) {
            return found;
        }
        // Whose time comes while the others are waited for would wait, too.
        found.into_iter().filter(|at| by(at, now + IN_VAIN)).collect()
    }

    /// Takes note of what became of knocks. A family that fails for once is tried again soon, if there still `is_way`; one that was
    /// never open when the others are renewed.
    fn note(
        &mut self,
        attempts: &[Attempted],
        asked: Option<Lifetime>,
        is_way: impl Fn(IpAddr) -> bool,
        now: Instant,
    ) {
        for Attempted { address, outcome, at } in attempts {
            let family = address.is_ipv4();
            match outcome {
                Ok(lifetime) => {
                    // What was asked for may be more than there is, and is all that older gateways let know.
                    let again = *at + lifetime.or(asked).map_or(UNTOLD, renewal);
                    self.0.insert(family, Held { again, patience: *RETRY.start() });
                }
                Err(_) if !is_way(*address) => drop(self.0.remove(&family)),
                Err(_) => {
                    if let Some(held) = self.0.get_mut(&family).filter(|held| held.again <= now) {
                        held.again = now + held.patience;
                        held.patience = (held.patience * 2).min(*RETRY.end());
                    }
                }
            }
        }
    }

    /// When to knock next; none where nothing is open.
    fn next(&self) -> Option<Instant> {
        self.0.values().map(|held| held.again).min()
    }

    /// The same where no knock was answered, or none could be tried. What is open elsewhere is not kept waiting.
    fn next_after_failure(&self, patience: &mut Duration, now: Instant) -> Instant {
        if let Some(next) = self.next().filter(|next| *next > now) {
            return next;
        }
        let soon = now + *patience;
        *patience = (*patience * 2).min(*RETRY.end());
        let later = self.0.values().map(|held| held.again).filter(|again| *again > now);
        later.min().map_or(soon, |later| later.min(soon))
    }

    /// All of them are due: what is open may be of no use any more.
    fn anew(&mut self, now: Instant) {
        for held in self.0.values_mut() {
            *held = Held { again: now, patience: *RETRY.start() };
        }
    }
}

/// Keeps it open until a signal comes, or until the program that was started ends.
pub(super) fn watch(
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
    let mut families = Families::default();
    loop {
        // Looked up for each knock only: a resolver is not to be told, nor to be waited for, every few seconds.
        let found = client.addresses().map_err(|failure| told(&failure, err));
        if let Ok(found) = &found {
            gateway.clone_from(found);
        }
        let before = Client::ways(&gateway);
        let knocked = found.and_then(|found| {
            let to = families.due(found, Instant::now());
            let attempts = client.knock(&to, Action::Open, duration);
            report(&attempts, Action::Open, duration, err);
            let is_way = |to: IpAddr| Client::ways(&[to]).iter().any(Option::is_some);
            families.note(&attempts, duration, is_way, Instant::now());
            let failures: Vec<&Failure> = attempts.iter().filter_map(|a| a.outcome.as_ref().err()).collect();
            if failures.len() == attempts.len() {
                return Err(farthest(&failures));
            }
            Ok(attempts.iter().filter(|a| a.outcome.is_ok()).map(|a| a.address).collect::<Vec<_>>())
        });
        if ending.try_recv().is_ok() {
            return ended(opened || knocked.is_ok(), child.as_mut(), err);
        }
        let until = match knocked {
            Ok(addresses) => {
                patience = *RETRY.start();
                if !opened {
                    opened = true;
                    after(args, &addresses, port, err)?;
                    child = start(then, err)?;
                }
                families.next()
            }
            // What a person has to put right is not tried again.
            Err(exit) if !opened && !matches!(exit, Exit::NoGateway | Exit::NoStep2 | Exit::BadAnswer) => {
                return Err(exit);
            }
            Err(_) => Some(families.next_after_failure(&mut patience, Instant::now())),
        };
        let until = until.unwrap_or_else(Instant::now).max(Instant::now() + SHORTEST);
        let way = (gateway.as_slice(), before.as_slice());
        match idle(way, &ending, until, child.as_mut(), opened, err) {
            Wake::Due => {}
            Wake::Anew => families.anew(Instant::now()),
            Wake::End(exit) => return exit,
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

fn start(then: &[String], err: &mut Printer) -> Result<Option<Child>, Exit> {
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

/// Why it is time to knock.
enum Wake {
    /// Something is due.
    Due,
    /// What was open before is of no use, or may be over.
    Anew,
    /// All is over.
    End(Result<Exit, Exit>),
}

/// Waits until it is time, until the way to the gateway is another one, or until this host has slept.
fn idle(
    (gateway, before): (&[IpAddr], &[Option<IpAddr>]),
    told: &Receiver<()>,
    until: Instant,
    mut child: Option<&mut Child>,
    opened: bool,
    err: &mut Printer,
) -> Wake {
    loop {
        let (begun, wall) = (Instant::now(), SystemTime::now());
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Wake::Due;
        }
        match told.recv_timeout(left.min(LOOK)) {
            Ok(()) => return Wake::End(ended(opened, child, err)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        if let Some(status) = child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            return Wake::End(Ok(Exit::Other(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1))));
        }
        // No address at all is no news: there is nothing to knock over.
        let now = Client::ways(gateway);
        if now != before && now.iter().any(Option::is_some) {
            err.line("the network has changed: knocking again");
            return Wake::Anew;
        }
        // On the gateway, time went on.
        if has_slept(begun.elapsed(), wall.elapsed().unwrap_or_default()) {
            err.line("this host was asleep: knocking again");
            return Wake::Anew;
        }
    }
}

/// Of the same moments, by the clock that stands still while a host sleeps and by the calendar.
fn has_slept(steady: Duration, calendar: Duration) -> bool {
    calendar.saturating_sub(steady) > ASLEEP
}

fn ended(opened: bool, child: Option<&mut Child>, err: &mut Printer) -> Result<Exit, Exit> {
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

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

    fn at(address: IpAddr, opened: bool, at: Instant) -> Attempted {
        let outcome = if opened { Ok("20s".parse().ok()) } else { Err(Failure::Refused) };
        Attempted { address, outcome, at }
    }

    #[test]
    fn a_family_is_renewed_by_its_own_time_however_long_the_other_one_takes() {
        let (mut families, start) = (Families::default(), Instant::now());
        let after = |secs| start + Duration::from_secs(secs);
        families.note(&[at(V6, false, after(10)), at(V4, true, start)], None, |_| true, after(10));
        assert_eq!(families.next(), Some(after(15)));
        assert_eq!(families.due(vec![V6, V4], after(3)), [V6], "the other one has time");
        assert_eq!(families.due(vec![V6, V4], after(4)), [V6, V4], "it would come to wait");
        assert_eq!(families.due(vec![V4], after(3)), [V4], "there is nothing else");
        assert_eq!(families.due(vec![V6, V4], after(15)), [V6, V4]);
    }

    #[test]
    fn a_family_that_fails_for_once_is_tried_again_soon_and_alone() {
        let (mut families, start) = (Families::default(), Instant::now());
        let after = |secs| start + Duration::from_secs(secs);
        families.note(&[at(V6, true, start), at(V4, true, start)], None, |_| true, start);
        families.note(&[at(V6, false, after(15)), at(V4, true, after(15))], None, |_| true, after(15));
        assert_eq!(families.next(), Some(after(17)));
        assert_eq!(families.due(vec![V6, V4], after(17)), [V6]);
        families.note(&[at(V6, false, after(17))], None, |_| true, after(17));
        assert_eq!(families.next(), Some(after(21)), "less and less often");
        families.note(&[at(V6, false, after(21))], None, |_| false, after(21));
        assert_eq!(families.next(), Some(after(30)), "there is no way any more");
        families.note(&[at(V6, true, after(30))], None, |_| true, after(30));
        families.anew(after(31));
        assert_eq!(families.due(vec![V6, V4], after(31)), [V6, V4], "another network");
    }

    #[test]
    fn a_family_that_fails_for_long_does_not_keep_the_other_one_from_being_renewed() {
        let (mut families, start) = (Families::default(), Instant::now());
        let after = |secs| start + Duration::from_secs(secs);
        let mut patience = *RETRY.start();
        assert_eq!(families.next_after_failure(&mut patience, start), after(2), "nothing is open");
        assert_eq!(patience, Duration::from_secs(4));
        families.note(&[at(V6, true, start), at(V4, true, start)], None, |_| true, start);
        families.note(&[at(V6, false, after(15)), at(V4, true, after(15))], None, |_| true, after(15));
        families.note(&[at(V6, false, after(22))], None, |_| true, after(22));
        assert_eq!(families.next_after_failure(&mut patience, after(22)), after(26));
        families.note(&[at(V6, false, after(27))], None, |_| true, after(27));
        assert_eq!(families.next_after_failure(&mut patience, after(27)), after(30), "the other one's time");
        assert_eq!(patience, Duration::from_secs(4), "it is not what nothing is open for");
        // The name was not found: both were due, or one of them.
        assert_eq!(families.next_after_failure(&mut patience, after(40)), after(44));
        patience = *RETRY.end();
        assert_eq!(families.next_after_failure(&mut patience, after(31)), after(35));
    }

    #[test]
    fn a_host_that_slept_is_told_from_one_that_was_slow() {
        let secs = Duration::from_secs;
        assert!(
            has_slept(secs(2), secs(60)) && !has_slept(secs(2), secs(3)) && !has_slept(secs(60), secs(60))
        );
        assert!(!has_slept(secs(2), Duration::ZERO), "the calendar was put back");
    }
}
