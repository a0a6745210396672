//! The other story: a knock sequence, with the defaults that `run --sequence` has, and no agent needed to open.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::client::{Outcome, first_refusal, knock_on, read_greeting};
use super::gateway::{Agent, SERVICE_PORT};
use super::report::{Found, Report};
use super::story::{Cast, PATIENCE, Stage, TOLERANCE, split};

/// The knocks, in order.
const KNOCKS: [u16; 3] = [1234, 5678, 9012];
/// A port that is none of them.
const WRONG: u16 = 5676;
/// From one knock to the next.
const DELAY: Duration = Duration::from_millis(300);
/// The same, for a knocker who is too slow.
const SLOW: Duration = Duration::from_secs(7);
/// How long the whole sequence may take, and for how long the port is then open.
const WINDOW: Duration = Duration::from_secs(10);
/// What the service says first.
pub(super) const GREETING: &str = "You have successfully knocked!";

impl Stage<'_> {
    /// Tells it all; an error only where there is no way to go on.
    pub(super) fn play_sequence(&self, agent: Agent, report: &mut Report) -> Result<(), String> {
        let title = format!("Port {SERVICE_PORT} before any knock: closed");
        report.step(&title, &self.both(|cast| self.shut(cast, cast.client)));
        let [first, second, third] = KNOCKS;
        report.step(
            &format!("Knocks at {first}, {second}, {third}: open"),
            &self.both(|cast| {
                knock(cast, &KNOCKS, DELAY)?;
                greeted(cast)
            }),
        );
        report.step(
            "The same port for a neighbour's address: closed",
            &self.both(|cast| self.shut(cast, cast.neighbour)),
        );
        report.step(
            &format!("One knock too many, at {WRONG}: closed again"),
            &self.both(|cast| {
                knock(cast, &[WRONG], DELAY)?;
                self.shut(cast, cast.client)
            }),
        );
        report.step(
            "The right knocks with a wrong one among them: closed",
            &self.both(|cast| {
                knock(cast, &[first, second, WRONG, third], DELAY)?;
                self.shut(cast, cast.client)
            }),
        );
        let (slow, within) = (SLOW.as_secs(), WINDOW.as_secs());
        report.step(
            &format!("The right knocks, {slow} s apart, where {within} s are for all of them: closed"),
            &self.both(|cast| {
                knock(cast, &KNOCKS, SLOW)?;
                self.shut(cast, cast.client)
            }),
        );
        let (begun, found) = split(self.both(|cast| {
            knock(cast, &[first, second], DELAY)?;
            Ok(((), format!("{} knocked at {first} and {second}", cast.client)))
        }));
        report.step("Two of three knocks ...", &found);
        let pid = agent.id();
        let killed = agent.kill().map(|status| format!("process {pid}: {status}")).map_err(|e| e.to_string());
        report.single_step("... kill -9: the agent is gone ...", &killed);
        let (opened, found) = split(self.both_with(begun, |cast, ()| {
            // The packet opens, not the time that is then waited in vain for an answer.
            let opened = Instant::now();
            knock(cast, &[third], DELAY)?;
            Ok((opened, greeted(cast)?))
        }));
        report.step("... and the third: open", &found);
        report.step("The port closes by itself, on time", &self.both_with(opened, closing));
        report.step(
            "The guard still holds: closed to the client as to anybody",
            &self.both(|cast| self.shut(cast, cast.client)),
        );
        Ok(())
    }

    fn shut(&self, cast: Cast, from: IpAddr) -> Found {
        self.unanswered(cast, from, SERVICE_PORT)
    }
}

/// One SYN for each of these ports, none of which may be answered.
fn knock(cast: Cast, ports: &[u16], delay: Duration) -> Result<(), String> {
    for (number, &port) in ports.iter().enumerate() {
        if number > 0 {
            std::thread::sleep(delay.saturating_sub(DELAY));
        }
        let to = SocketAddr::new(cast.gateway, port);
        let outcome = knock_on(cast.client, to, DELAY);
        let silent = matches!(outcome, Outcome::Silent) || port == WRONG;
        if !silent {
            return Err(format!("{to} answered a knock: {}", outcome.describe()));
        }
    }
    Ok(())
}

fn greeted(cast: Cast) -> Found {
    let to = SocketAddr::new(cast.gateway, SERVICE_PORT);
    let stream = match knock_on(cast.client, to, PATIENCE) {
        Outcome::Open(stream) => stream,
        other => return Err(format!("{to}: {}", other.describe())),
    };
    let text = read_greeting(&stream, PATIENCE)?;
    if text == GREETING { Ok(format!("{to} says \"{text}\"")) } else { Err(format!("{to} said {text:?}")) }
}

fn closing(cast: Cast, opened: Instant) -> Found {
    let to = SocketAddr::new(cast.gateway, SERVICE_PORT);
    let refused = first_refusal(cast.client, to, opened + WINDOW + TOLERANCE * 2)
        .ok_or_else(|| format!("{to} was still open {} s after it opened", WINDOW.as_secs()))?;
    let open = refused.saturating_duration_since(opened);
    let text = format!("{to}: open for {:.2} s, of {} s", open.as_secs_f64(), WINDOW.as_secs());
    if open.abs_diff(WINDOW) <= TOLERANCE { Ok(text) } else { Err(text) }
}
