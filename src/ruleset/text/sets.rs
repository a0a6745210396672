//! Sets and maps.

use super::render::{PROTOCOLS, Renderer};
use super::template::{TemplateError, fill};
use crate::ruleset::allow::{self, Span, key_address};
use crate::ruleset::layout::Segment;
use crate::units::{Family, Network};

const APP_SETS: &str = include_str!("../../../nft-templates/app-sets.nft");
const MAP: &str = include_str!("../../../nft-templates/map.nft");

impl Renderer<'_> {
    pub(super) fn interface_sets(&self) -> String {
        let set = |name: &str, names: &mut dyn Iterator<Item = String>| {
            let names: Vec<String> = names.collect();
            format!("\tset {name} {{\n\t\ttype ifname\n\t\telements = {{ {} }}\n\t}}\n\n", names.join(", "))
        };
        let quoted = |name: &crate::units::IfName| format!("\"{name}\"");
        let mut out = set("ext", &mut self.layout.ext.iter().map(|name| quoted(name)));
        for app in &self.settings().apps {
            if let Some(name) = self.layout.own_interfaces(app) {
                out += &set(&name, &mut app.interface_ext.iter().map(quoted));
            }
        }
        out
    }

    pub(super) fn flow_sets(&self) -> String {
        if self.settings().global.step1_segments == 1 {
            return String::new();
        }
        ["4", "6"]
            .map(|n| {
                format!(
                    "\tset step1_flow_{n} {{\n\t\ttype ipv{n}_addr . inet_service\n\t\tsize 65536\n\t\tflags dynamic, timeout\n\t}}\n\n"
                )
            })
            .concat()
    }

    pub(super) fn echo_sets(&self) -> String {
        if !self.closed() {
            return String::new();
        }
        ["4", "6"]
            .map(|n| {
                format!(
                    "\tset echo_meter_{n} {{\n\t\ttype ipv{n}_addr\n\t\tsize 65536\n\t\tflags dynamic, timeout\n\t}}\n\n"
                )
            })
            .concat()
    }

    pub(super) fn app_sets(&self) -> Result<String, TemplateError> {
        self.settings()
            .apps
            .iter()
            .map(|app| {
                fill(
                    APP_SETS,
                    &[
                        ("slug", &app.slug),
                        ("flags", if app.once { "dynamic, timeout" } else { "timeout" }),
                        ("allow_4", &elements(&app.allow, Family::V4)),
                        ("allow_6", &elements(&app.allow, Family::V6)),
                    ],
                )
            })
            .collect()
    }

    pub(super) fn maps(&self) -> Result<String, TemplateError> {
        let mut out = map("services", "inet_proto . inet_service", &self.layout.services, "svc", |s| {
            format!("{} . {}", s.protocol, s.ports)
        })?;
        for protocol in PROTOCOLS {
            let of_protocol = |all: &[Segment]| -> Vec<Segment> {
                all.iter().filter(|segment| segment.protocol == protocol).cloned().collect()
            };
            let services = of_protocol(&self.layout.services);
            let by_port = |s: &Segment| s.ports.to_string();
            out += &map(&format!("reply_{protocol}"), "inet_service", &services, "rep", by_port)?;
            out += &map(&format!("in_{protocol}"), "inet_service", &services, "inp", by_port)?;
            if self.marks() {
                let local = of_protocol(&self.layout.local);
                out += &map(&format!("mark_{protocol}"), "inet_service", &local, "mrk", by_port)?;
            }
        }
        for family in Family::BOTH {
            let hosts: Vec<Segment> =
                self.layout.lan.iter().filter(|s| s.host.map(Family::of) == Some(family)).cloned().collect();
            if hosts.is_empty() {
                continue;
            }
            let digit = family.digit();
            let key = format!("ipv{digit}_addr . inet_proto . inet_service");
            let by_host = |s: &Segment| {
                format!(
                    "{} . {} . {}",
                    s.host.map(|h| h.to_string()).unwrap_or_default(),
                    s.protocol,
                    s.ports
                )
            };
            out += &map(&format!("lan_{digit}"), &key, &hosts, "lan", by_host)?;
            out += &map(&format!("lan_reply_{digit}"), &key, &hosts, "lrp", by_host)?;
            out += &map_to(&format!("lan_forged_{digit}"), &key, &hosts, |_| "forged".to_owned(), by_host)?;
        }
        Ok(out)
    }
}

pub(super) fn map(
    name: &str,
    key: &str,
    segments: &[Segment],
    stem: &str,
    key_of: impl Fn(&Segment) -> String,
) -> Result<String, TemplateError> {
    map_to(name, key, segments, |segment| format!("{stem}_{}", segment.name()), key_of)
}

fn map_to(
    name: &str,
    key: &str,
    segments: &[Segment],
    chain: impl Fn(&Segment) -> String,
    key_of: impl Fn(&Segment) -> String,
) -> Result<String, TemplateError> {
    let ranged = segments.iter().any(|segment| !segment.ports.is_single());
    let pairs: Vec<String> = segments.iter().map(|s| format!("{} : goto {}", key_of(s), chain(s))).collect();
    let elements =
        if pairs.is_empty() { String::new() } else { format!("\t\telements = {{ {} }}", pairs.join(", ")) };
    fill(
        MAP,
        &[
            ("name", name),
            ("key", key),
            ("flags", if ranged { "\t\tflags interval" } else { "" }),
            ("elements", &elements),
        ],
    )
}

/// The configured networks of one family, as they would be listed.
pub(super) fn elements(networks: &[Network], family: Family) -> String {
    let spans: Vec<Span> = networks.iter().map(|&network| Span::configured(network)).collect();
    let listed: Vec<String> = allow::elements(&spans, family)
        .into_iter()
        .filter_map(|(first, element)| {
            let from = key_address(&first)?;
            let to = element.last.as_deref().and_then(key_address);
            let range = to.map_or_else(|| from.to_string(), |to| format!("{from}-{to}"));
            Some(format!("{range} comment \"{}\"", element.comment.unwrap_or_default()))
        })
        .collect();
    if listed.is_empty() { String::new() } else { format!("\t\telements = {{ {} }}", listed.join(", ")) }
}
