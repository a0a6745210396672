//! Knock sequences.

use std::fmt::Write;

use super::render::{CHAIN, Renderer};
use super::template::{TemplateError, fill};
use crate::config::KnockEvent;
use crate::ruleset::knocking::{Deed, KnockGrants, LOG_BYTES, LOG_CLOSED, LOG_GROUP, LOG_OPENED, Move};
use crate::units::Family;

const SETS: &str = include_str!("../../../nft-templates/knock-sets.nft");
const GRANTS: &str = include_str!("../../../nft-templates/knock-grants.nft");
const SIZED: &str = include_str!("../../../nft-templates/knock-sized.nft");
const FIRST: &str = include_str!("../../../nft-templates/knock-first.nft");
const NEXT: &str = include_str!("../../../nft-templates/knock-next.nft");
const CHAINS: &str = include_str!("../../../nft-templates/knock.nft");

impl Renderer<'_> {
    pub(super) fn knock_sets(&self) -> Result<String, TemplateError> {
        let knocking = &self.layout.knocking;
        if knocking.is_empty() {
            return Ok(String::new());
        }
        let mut out = String::new();
        for grants in &knocking.grants {
            let size = if grants.service { "1048576" } else { "65536" };
            out += &fill(GRANTS, &[("stem", &grants.stem), ("size", size)])?;
        }
        let steps = |sized: bool| {
            let these = knocking.steps.iter().filter(move |(_, knock, _)| knock.length().is_some() == sized);
            elements(these.map(|(from, knock, to)| match knock.length() {
                None => format!("{from:#x} . {} . {} : {to:#x}", knock.protocol(), knock.port()),
                Some(length) => format!("{from:#x} . {} . {} : {to:#x}", knock.port(), length + 8),
            }))
        };
        let jumps = |list: &[(u32, String)]| {
            elements(list.iter().map(|(mark, chain)| format!("{mark:#x} : jump {chain}")))
        };
        let ports = knocking.ports.iter().map(|(protocol, port)| format!("{protocol} . {port} : goto knock"));
        let sized =
            if knocking.has_lengths() { fill(SIZED, &[("sized", &steps(true))])? } else { String::new() };
        out += &fill(
            SETS,
            &[
                ("next", &steps(false)),
                ("sized", &sized),
                ("move", &jumps(&knocking.moves)),
                ("open", &jumps(&knocking.opens)),
                ("ports", &elements(ports)),
            ],
        )?;
        out += &self.timed_sets()?;
        Ok(out)
    }

    pub(super) fn knock_chains(&self) -> Result<String, TemplateError> {
        let knocking = &self.layout.knocking;
        if knocking.is_empty() {
            return Ok(String::new());
        }
        let mut deeds = String::new();
        for (name, deed) in &knocking.deeds {
            let rules = match deed {
                Deed::Opens(grants) => self.open(grants),
                Deed::Closes(all) => all.iter().map(|grants| self.close(grants)).collect(),
            };
            deeds += &fill(CHAIN, &[("name", name), ("rules", &rules)])?;
        }
        for (name, calls) in &knocking.several {
            let rules: String =
                calls.iter().map(|call| format!("\t\tjump {call} comment \"ka:knock:open\"\n")).collect();
            deeds += &fill(CHAIN, &[("name", name), ("rules", &rules)])?;
        }
        let mut moves = String::new();
        for kind in &knocking.kinds_of_moves {
            moves += &self.remember(kind)?;
        }
        let mut steps = String::new();
        for step in [1, 2] {
            steps += &self.before_step(step)?;
        }
        let strict: String =
            knocking.grants.iter().filter(|grants| grants.strict).map(|grants| self.close(grants)).collect();
        let sized = "\t\tmeta mark set meta mark . udp dport . udp length map @knock_sized goto knock_moved comment \"ka:knock:step\"\n";
        let sized = if knocking.has_lengths() { sized } else { "" };
        fill(
            CHAINS,
            &[
                ("strict", &strict),
                ("deeds", &deeds),
                ("moves", &moves),
                ("sized", sized),
                ("timed", &self.timed_chains()?),
                ("steps", &steps),
                ("ignored", &self.dropped(KnockEvent::Ignored)),
                ("invalid", &self.dropped(KnockEvent::Invalid)),
            ],
        )
    }

    fn remember(&self, kind: &Move) -> Result<String, TemplateError> {
        let knock = kind.knock_secs.to_string();
        let Some(window) = kind.window_secs else { return fill(NEXT, &[("knock", &knock)]) };
        let window = window.to_string();
        if !kind.is_gated() {
            return fill(FIRST, &[("knock", &knock), ("window", &window)]);
        }
        let mut rules = String::new();
        for grants in &kind.behind {
            for family in Family::BOTH {
                let (ip, set) = (ip(family), grants.set(family));
                let _ = writeln!(
                    rules,
                    "\t\t{ip} saddr @{set} goto knock_first_{window}_{knock} comment \"ka:knock:behind\""
                );
            }
        }
        let _ = writeln!(rules, "\t\tjump knock_reset comment \"ka:knock:wrong\"");
        let _ =
            writeln!(rules, "\t\tcounter {} comment \"ka:drop:knock\"", self.dropped(KnockEvent::Invalid));
        fill(CHAIN, &[("name", &kind.chain), ("rules", &rules)])
    }

    fn open(&self, grants: &KnockGrants) -> String {
        let mut out = String::new();
        for &family in grants.families {
            let (set, key) = (grants.set(family), self.source(grants, family));
            let (mut log, secs) = (self.log(LOG_OPENED, &grants.stem), grants.secs);
            log.extend(self.logging(KnockEvent::Accepted).map(|chain| format!("jump {chain} ")));
            if grants.are_wide(family, self.layout.settings.global.ipv6_prefix) {
                out += "\t\tip6 saddr fe80::/10 counter return comment \"ka:knock:link-local\"\n";
            }
            let _ = writeln!(
                out,
                "\t\tupdate @{set} {{ {key} timeout {secs}s }} counter {log}comment \"ka:knock:opened\""
            );
        }
        out
    }

    fn close(&self, grants: &KnockGrants) -> String {
        let mut out = String::new();
        for &family in grants.families {
            let (set, key) = (grants.set(family), self.source(grants, family));
            let log = self.log(LOG_CLOSED, &grants.stem);
            let _ = writeln!(out, "\t\t{key} @{set} counter {log}comment \"ka:knock:closed\"");
            let _ = writeln!(out, "\t\tdelete @{set} {{ {key} }} comment \"ka:knock:close\"");
        }
        out
    }

    fn source(&self, grants: &KnockGrants, family: Family) -> String {
        let mask = if grants.service { self.v6_mask(family) } else { String::new() };
        format!("{} saddr {mask}", ip(family)).trim_end().to_owned()
    }

    pub(super) fn log(&self, what: &str, stem: &str) -> String {
        if !self.layout.options.log {
            return String::new();
        }
        format!("log prefix \"{what}{stem}\" group {LOG_GROUP} snaplen {LOG_BYTES} ")
    }

    /// What is done with packets of this host itself, where it is not guarded against them.
    pub(super) fn here(&self, what: &str, label: &str) -> String {
        if self.layout.guards_loopback() {
            return String::new();
        }
        format!("\t\tiifname \"lo\" {what} comment \"ka:{label}:here\"\n")
    }

    /// The chain that packets to the port of a step go to.
    pub(super) fn step_gate(&self, step: u8) -> String {
        let open = self.layout.knocking.before_step(step).is_empty();
        format!("step{step}_{}", if open { "gate" } else { "knocked" })
    }

    fn before_step(&self, step: u8) -> Result<String, TemplateError> {
        let grants = self.layout.knocking.before_step(step);
        if grants.is_empty() {
            return Ok(String::new());
        }
        let mut rules = self.here(&format!("goto step{step}_gate"), "knock");
        for grants in grants {
            for family in Family::BOTH {
                let (ip, set) = (ip(family), grants.set(family));
                let _ =
                    writeln!(rules, "\t\t{ip} saddr @{set} goto step{step}_gate comment \"ka:knock:step\"");
            }
        }
        let _ = writeln!(
            rules,
            "\t\ttcp flags & syn == 0 ct state established goto step{step}_gate comment \"ka:knock:step\""
        );
        let _ = writeln!(rules, "\t\tcounter drop comment \"ka:drop:step{step}\"");
        fill(CHAIN, &[("name", &format!("step{step}_knocked")), ("rules", &rules)])
    }

    pub(super) fn to_knock(&self) -> String {
        if self.layout.knocking.is_empty() {
            return String::new();
        }
        let fixed = "\t\tiifname @ext fib daddr type local meta l4proto . th dport vmap @knock_ports comment \"ka:knock\"\n";
        format!("{fixed}{}", self.to_timed())
    }

    pub(super) fn to_reset(&self) -> &'static str {
        if self.layout.knocking.is_empty() {
            return "";
        }
        "\t\tiifname @ext fib daddr type local tcp flags & (fin|syn|rst|ack) == syn jump knock_reset comment \"ka:knock:wrong\"\n\
         \t\tiifname @ext fib daddr type local meta l4proto udp ct state new,untracked jump knock_reset comment \"ka:knock:wrong\"\n"
    }
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn elements(each: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = each.collect();
    if all.is_empty() { String::new() } else { format!("\t\telements = {{ {} }}", all.join(", ")) }
}
