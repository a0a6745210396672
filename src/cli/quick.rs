//! `run --sequence`: a configuration from the command line.

use std::convert::Infallible;

use clap::Args;

use crate::cli::outside::Disk;
use crate::cli::{Exit, Printer, load};
use crate::config::{self, Checked, Problems};
use crate::sys::interfaces;
use crate::units::Knock;

const SEQUENCE: &str = "tcp/1234,tcp/5678,tcp/9012";
const HELP: &str = "Without a configuration";

/// The flags that stand for a configuration.
#[derive(Args, Clone, Debug, Default)]
pub struct QuickArgs {
    /// Guard one port by a knock sequence, without a configuration and without the two steps
    #[arg(long, value_name = "KNOCKS", num_args = 0..=1, default_missing_value = SEQUENCE, value_parser = Knocks::read,
          conflicts_with_all = ["config", "cert", "key"], help_heading = HELP)]
    pub sequence: Option<Knocks>,

    /// With --sequence, the TCP port that it opens
    #[arg(long, value_name = "PORT", default_value = "2222", requires = "sequence", help_heading = HELP,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub protected_port: u16,

    /// With --sequence, seconds for the whole sequence, and for which the port then stands open
    #[arg(long, value_name = "SECONDS", default_value = "10", requires = "sequence", help_heading = HELP, value_parser = window)]
    pub window: u32,

    /// With --sequence, an interface towards the world; may be repeated [default: every one but lo]
    #[arg(long, value_name = "NAME", requires = "sequence", help_heading = HELP)]
    pub interface: Vec<String>,
}

/// Knocks of the command line; none where they are none. Printing them for debugging does not tell them.
#[derive(Clone, PartialEq, Eq)]
pub struct Knocks(Option<Vec<Knock>>);

impl std::fmt::Debug for Knocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Knocks({})", self.0.as_ref().map_or(0, Vec::len))
    }
}

impl Knocks {
    /// Refuses nothing: clap would print what it refuses, and the log of a service would have it.
    fn read(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.split(',').map(|part| part.trim().parse().ok()).collect()))
    }
}

/// Whole seconds; `10.0` is ten as well.
fn window(text: &str) -> Result<u32, String> {
    let secs = text.parse::<f64>().ok().filter(|secs| (1.0..=3_600.0).contains(secs) && secs.fract() == 0.0);
    secs.and_then(|secs| format!("{secs:.0}").parse().ok())
        .ok_or_else(|| "write whole seconds from 1 to 3600".to_owned())
}

impl QuickArgs {
    /// The configuration that they stand for; none without `--sequence`.
    ///
    /// # Errors
    /// The exit code, after the reason was told.
    pub fn text(&self, err: &mut Printer) -> Result<Option<String>, Exit> {
        let Some(Knocks(knocks)) = &self.sequence else { return Ok(None) };
        let Some(knocks) = knocks else {
            err.line("error: --sequence: this is not a list of knocks: write tcp/1234,udp/7000 or, for a datagram of 20 bytes, udp/7000/20");
            return Err(Exit::Usage);
        };
        let mut names = self.interface.clone();
        if names.is_empty() {
            names = interfaces::names().unwrap_or_default();
            names.retain(|name| name != "lo");
            if !names.is_empty() {
                err.line(format!(
                    "note: guarded on {}; what comes later is not guarded: name all with --interface",
                    names.join(", ")
                ));
            }
        }
        if names.is_empty() {
            err.line("error: there is no interface but lo: name one with --interface");
            return Err(Exit::Usage);
        }
        Ok(Some(self.as_configuration(&names, knocks)))
    }

    fn as_configuration(&self, interfaces: &[String], knocks: &[Knock]) -> String {
        let quoted: Vec<String> = interfaces.iter().map(|name| format!("{name:?}")).collect();
        let knocks: Vec<String> = knocks.iter().map(ToString::to_string).collect();
        format!(
            "global: {{interface_ext: [{}], steps: off}}\nprotected: {{port: {}, duration: {}, sequence: {{knocks: [{}], window: {}, strict: true}}}}\n",
            quoted.join(", "),
            self.protected_port,
            self.window,
            knocks.join(", "),
            self.window,
        )
    }
}

/// Reads a configuration that flags stand for.
pub(super) fn read(text: &str) -> Result<Checked, Problems> {
    config::parse("--sequence", text, None, &Disk)
}

/// The same, with what is wrong printed.
///
/// # Errors
/// The exit code.
pub(super) fn load(text: &str, err: &mut Printer) -> Result<Checked, Exit> {
    read(text).inspect(|checked| load::print_all(&checked.warnings, 0, err)).map_err(|problems| {
        load::print_all(&problems.list, problems.more, err);
        Exit::Usage
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_s_defaults_make_a_configuration() {
        let args = QuickArgs {
            sequence: Knocks::read(SEQUENCE).ok(),
            protected_port: 2222,
            window: window("10.0").unwrap(),
            interface: vec!["eth0".to_owned()],
        };
        let Ok(Knocks(Some(knocks))) = Knocks::read("1234,5678, u:9012") else { panic!("knocks") };
        let text = args.as_configuration(&args.interface, &knocks);
        let settings = read(&text).unwrap().settings;
        let [sequence] = &settings.sequences[..] else { panic!("one sequence") };
        assert!(sequence.strict && !settings.global.steps);
        assert_eq!((sequence.window.as_secs(), sequence.duration.as_secs()), (10, 10));
        assert_eq!(settings.apps[0].ports[0].first(), 2222);
        for bad in ["0", "0.5", "10.5", "3601", "x", "NaN"] {
            assert!(window(bad).is_err(), "{bad}");
        }
    }
}
