//! Knocks that change with time.

use std::fmt::Write;

use super::render::{CHAIN, Renderer};
use super::template::{TemplateError, fill};
use crate::config::KnockEvent;
use crate::ruleset::knocking::{LOG_REPLAYED, TimedRules};
use crate::units::Protocol;

const SETS: &str = include_str!("../../../nft-templates/knock-timed-sets.nft");
const CHAINS: &str = include_str!("../../../nft-templates/knock-timed.nft");
const ONCE: &str = include_str!("../../../nft-templates/knock-timed-once.nft");
const PLAIN: &str = "type mark . inet_proto . inet_service : mark";
const SIZED: &str = "typeof meta mark . udp dport . udp length : meta mark";

impl Renderer<'_> {
    pub(super) fn timed_sets(&self) -> Result<String, TemplateError> {
        let Some(timed) = &self.layout.knocking.timed else { return Ok(String::new()) };
        fill(SETS, &[("key", if timed.sized { SIZED } else { PLAIN })])
    }

    pub(super) fn timed_chains(&self) -> Result<String, TemplateError> {
        let Some(timed) = &self.layout.knocking.timed else { return Ok(String::new()) };
        let mut deeds = String::new();
        for (name, opens) in &timed.deeds {
            let mut rules = String::new();
            for open in opens {
                let _ = writeln!(rules, "\t\tjump {open} comment \"ka:knock:open\"");
            }
            rules += "\t\tcounter drop comment \"ka:drop:knock\"\n";
            let opening = TimedRules::opening(name);
            deeds += &fill(CHAIN, &[("name", &opening), ("rules", &rules)])?;
            deeds += &fill(CHAIN, &[("name", name), ("rules", &once(timed, &opening))])?;
        }
        let ignored = self.dropped(KnockEvent::Ignored);
        let once_only = match timed.protocol {
            Protocol::Tcp => fill(ONCE, &[("ignored", &ignored)])?,
            Protocol::Udp => String::new(),
        };
        fill(
            CHAINS,
            &[
                ("replayed", &self.log(LOG_REPLAYED, "")),
                ("deeds", &deeds),
                ("knock", &timed.knock_secs.to_string()),
                ("window", &timed.window_secs.to_string()),
                (
                    "step",
                    if timed.sized {
                        "meta mark . udp dport . udp length"
                    } else {
                        "meta mark . meta l4proto . th dport"
                    },
                ),
                ("once", &once_only),
                ("ignored", &ignored),
                ("invalid", &self.dropped(KnockEvent::Invalid)),
            ],
        )
    }

    pub(super) fn to_timed(&self) -> String {
        let Some(timed) = &self.layout.knocking.timed else { return String::new() };
        let (protocol, ports) = (timed.protocol, timed.ports);
        format!(
            "\t\tiifname @ext fib daddr type local {protocol} dport {ports} ct state invalid,new,untracked goto knock_timed comment \"ka:knock:timed\"\n"
        )
    }
}

fn once(timed: &TimedRules, opening: &str) -> String {
    let secs = timed.used_secs;
    format!(
        "\t\tmeta mark @knock_spent goto knock_replayed comment \"ka:knock:spent\"\n\
         \t\tupdate @knock_used {{ meta mark timeout {secs}s limit rate 1/week burst 1 packets }} goto {opening} comment \"ka:knock:used\"\n\
         \t\tgoto knock_replayed comment \"ka:knock:replayed\"\n"
    )
}
