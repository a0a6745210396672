//! Settings into the templates. Decides nothing that the templates could say themselves.

use std::num::NonZeroU16;

use super::sets::elements;
use super::template::{TemplateError, fill};
use crate::config::{DefaultInput, Settings};
use crate::ruleset::layout::{Layout, Options};
use crate::units::{Family, IfName, Protocol};

const TABLE: &str = include_str!("../../../nft-templates/table.nft");
pub(super) const CHAIN: &str = include_str!("../../../nft-templates/chain.nft");
const STEP2: &str = include_str!("../../../nft-templates/step2.nft");
const MARKS: &str = include_str!("../../../nft-templates/marks.nft");

const ADOPTED: &str = include_str!("../../../nft-templates/adopted.nft");
const DEFAULT_INPUT: &str = include_str!("../../../nft-templates/default-input.nft");

pub(super) const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The ruleset that these settings want, as text for `nft -f`.
///
/// # Errors
/// [`TemplateError`] only if a template names something that does not exist.
pub fn render(settings: &Settings, options: Options) -> Result<String, TemplateError> {
    Renderer { layout: Layout::new(settings, options) }.table()
}

/// Which way the packets of a chain go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

pub(super) struct Renderer<'a> {
    pub(super) layout: Layout<'a>,
}

impl Renderer<'_> {
    pub(super) fn settings(&self) -> &Settings {
        self.layout.settings
    }

    fn table(&self) -> Result<String, TemplateError> {
        let global = &self.settings().global;
        let counted = "counter accept";
        let marked = format!("{}counter accept", self.mark());
        let marks_in = fill(
            MARKS,
            &[
                ("steps", &self.of_steps(|port, step| {
                    format!("tcp dport {port} fib daddr type != unicast {}accept comment \"ka:mark:step{step}\"", self.mark())
                })),
                ("backend", &self.of_backend(|port| {
                    let mark = self.mark();
                    format!("tcp dport {port} fib daddr type != unicast {mark}accept comment \"ka:mark:backend\"")
                })),
                ("routed", &self.to_routed()),
                ("default", self.default_rule()),
            ],
        )?;
        fill(
            TABLE,
            &[
                ("interface_sets", &self.interface_sets()),
                ("allow_all_4", &elements(&global.allow, Family::V4)),
                ("allow_all_6", &elements(&global.allow, Family::V6)),
                ("proxy_sets", &self.proxy_sets()?),
                ("echo_sets", &self.echo_sets()),
                ("site", &self.site()),
                ("behind_sets", &self.behind_sets()?),
                ("behind_chains", &self.behind_chains(&marked, &format!("{}accept", self.mark()))?),
                ("adopted", &fill(ADOPTED, &[("mark", self.mark().trim())])?),
                ("default_input", if self.closed() { DEFAULT_INPUT } else { "" }),
                ("flow_sets", &self.flow_sets()),
                ("app_sets", &self.app_sets()?),
                ("maps", &self.maps()?),
                ("step1", &self.step1()?),
                ("to_steps", &self.of_steps(|port, step| {
                    format!("tcp dport {port} fib daddr type != unicast goto {} comment \"ka:step{step}\"", self.step_gate(step))
                })),
                ("step2", &if global.steps { fill(STEP2, &[("here", &self.here("counter accept", "step2"))])? } else { String::new() }),
                ("to_knock", &self.to_knock()),
                ("to_reset", self.to_reset()),
                ("once_sets", &self.once_sets()?),
                ("knock_sets", &self.knock_sets()?),
                ("knock", &(self.log_chains()? + &self.knock_chains()?)),
                ("to_backend", &self.of_backend(|port| {
                    format!("tcp dport {port} fib daddr type != unicast goto backend_gate comment \"ka:backend\"")
                })),
                ("backend_gate", self.backend_gate()),
                (
                    "service_chains",
                    &self.segment_chains(&self.layout.services, "svc", Way::In, counted, Some("drop"))?,
                ),
                ("to_lan", &self.lan_rules("iifname @ext ", "daddr", "dport", "lan", "lan")),
                ("to_lan_turned", &self.turned_lan_rules()),
                (
                    "lan_chains",
                    &self.segment_chains(&self.layout.lan, "lan", Way::In, &marked, Some("drop"))?,
                ),
                (
                    "forged_lan",
                    &self.lan_rules("iifname @ext ct state new,related ", "saddr", "sport", "lan_forged", "forged:lan"),
                ),
                ("outward", &self.by_each_outside(|name| {
                    format!("fib daddr oifname \"{name}\" goto from_inside comment \"ka:outward\"")
                })),
                ("outward_outside", &self.by_each_outside(|name| {
                    format!("fib saddr oifname \"{name}\" return comment \"ka:outward:outside\"")
                })),
                ("from_lan", &self.lan_rules("", "saddr", "sport", "lan_reply", "replies:lan")),
                ("reply_chains", &{
                    let mut chains =
                        self.segment_chains(&self.layout.services, "rep", Way::Out, &marked, Some("cut"))?;
                    chains +=
                        &self.segment_chains(&self.layout.lan, "lrp", Way::Out, &marked, Some("cut"))?;
                    chains
                }),
                ("awaited_chains", &self.awaited_chains()?),
                ("answers_forwarded", &self.answers_forwarded()),
                ("answers_here", &self.answers_here()),
                ("marks_in", &marks_in),
                ("steps_here", &self.routed()?),
                ("marks_forwarded", &self.marks_forwarded()),
                ("marks_out", &self.marks_out()),
                ("mark_chains", &{
                    let action = format!("{}accept", self.mark());
                    let services = &self.layout.services;
                    let mut chains =
                        self.segment_chains(services, "inp", Way::In, &action, Some("drop:here"))?;
                    if self.marks() {
                        chains += &self.segment_chains(&self.layout.local, "mrk", Way::In, &action, None)?;
                    }
                    chains
                }),
                ("forwarding", &self.forwarding()?),
            ],
        )
    }

    pub(super) fn marks(&self) -> bool {
        self.settings().global.mark.is_some()
    }

    /// `meta mark set … `, or nothing.
    pub(super) fn mark(&self) -> String {
        match self.settings().global.mark {
            None => String::new(),
            Some(mark) if mark.mask() == u32::MAX => format!("meta mark set {:#x} ", mark.value()),
            Some(mark) => format!("meta mark set meta mark & {:#x} | {:#x} ", !mark.mask(), mark.value()),
        }
    }

    /// Whether the whole host is closed.
    pub(super) fn closed(&self) -> bool {
        self.settings().global.default_input == DefaultInput::Drop
    }

    fn default_rule(&self) -> &'static str {
        if self.closed() { "\t\tiifname @ext goto default_in comment \"ka:default\"\n" } else { "" }
    }

    fn marks_forwarded(&self) -> String {
        if !self.marks() {
            return String::new();
        }
        let mut out = String::new();
        for (ip, n) in [("ip", 4), ("ip6", 6)] {
            for protocol in PROTOCOLS {
                out += &format!(
                    "\t\tiifname @ext ct direction original ct status dnat ct original {ip} daddr @own_{n} meta l4proto {protocol} ct original proto-dst vmap @mark_{protocol} comment \"ka:mark:forwarded\"\n"
                );
            }
        }
        out
    }

    fn marks_out(&self) -> String {
        if !self.marks() {
            return String::new();
        }
        let line = |port: &str, what: &str| {
            format!("tcp sport {port} {}accept comment \"ka:mark:{what}\"", self.mark())
        };
        let steps = self.of_steps(|port, step| line(&port.to_string(), &format!("step{step}")));
        steps + &self.of_backend(|port| line(port, "backend"))
    }

    /// A line for each outside interface.
    fn by_each_outside(&self, line: impl Fn(&IfName) -> String) -> String {
        self.layout.ext.iter().map(|name| format!("\t\t{}\n", line(name))).collect()
    }

    /// A line for the port of each step, where there are any.
    pub(super) fn of_steps(&self, line: impl Fn(NonZeroU16, u8) -> String) -> String {
        let options = self.layout.options;
        let steps = [(options.http_port, 1), (options.https_port, 2)];
        let known = steps.into_iter().filter(|_| self.settings().global.steps);
        known.map(|(port, step)| format!("\t\t{}\n", line(port, step))).collect()
    }
}
