//! `knock-agent knock --sequence`.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::{Exit, Printer, Tone};
use crate::client::{knock_sequence, open, resolve};
use crate::config::Families;
use crate::units::Knock;

/// The flags about sequences.
#[derive(Args, Clone, Debug, Default)]
pub struct SequenceArgs {
    /// Knock at these ports in this order, without the two steps: tcp/1234,udp/7000,9012
    #[arg(long, value_name = "KNOCKS", value_parser = knocks, conflicts_with_all = ["app", "duration", "close", "watch"])]
    pub sequence: Option<Knocks>,

    /// With --sequence, whom to knock at, where no profile says so
    #[arg(long, value_name = "HOST", requires = "sequence", conflicts_with = "profile")]
    pub target: Option<String>,

    /// With --sequence, seconds from one knock to the next
    #[arg(long, value_name = "SECONDS", requires = "sequence", default_value = "0.3", value_parser = delay)]
    pub delay: Pause,
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
pub(super) struct Afterwards {
    /// Over which families.
    pub families: Families,
    /// The port to try, and for how long.
    pub check: Option<(u16, Duration)>,
}

/// Reads the knocks of a flag.
///
/// # Errors
/// What is no knock.
pub(super) fn knocks(text: &str) -> Result<Knocks, String> {
    let parsed: Result<Vec<Knock>, _> = text.split(',').map(|part| part.trim().parse::<Knock>()).collect();
    match parsed {
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

/// Knocks at a host over each family; where it worked.
///
/// # Errors
/// The exit code, after the reason was told.
pub(super) fn run(
    host: &str,
    knocks: &Knocks,
    pause: Pause,
    then: &Afterwards,
    err: &mut Printer,
) -> Result<(), Exit> {
    let addresses = resolve(host, then.families).map_err(|error| {
        err.line(format!("error: {host} cannot be resolved: {error}"));
        Exit::NoGateway
    })?;
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let one = |address: IpAddr| scope.spawn(move || knock_sequence(address, &knocks.0, pause.0));
        let running: Vec<_> = addresses.iter().map(|&address| (address, one(address))).collect();
        let join = |(address, thread): (IpAddr, std::thread::ScopedJoinHandle<'_, _>)| {
            (address, thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        };
        running.into_iter().map(join).collect()
    });
    let mut knocked = Vec::new();
    for (address, outcome) in outcomes {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
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
    if knocked.is_empty() {
        return Err(Exit::NoGateway);
    }
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
