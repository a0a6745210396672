//! Where others forward guarded ports of this host to.

use super::render::{PROTOCOLS, Renderer, Way};
use super::sets::map;
use super::template::{TemplateError, fill};
use crate::ruleset::layout::Segment;
use crate::units::Protocol;

const SETS: &str = include_str!("../../../nft-templates/behind-sets.nft");
const CLIENTS: &str = include_str!("../../../nft-templates/behind-clients.nft");
const LEARNT: &str = include_str!("../../../nft-templates/behind-learnt.nft");
const CAME: &str = include_str!("../../../nft-templates/behind-came.nft");
const CHAINS: &str = include_str!("../../../nft-templates/behind.nft");
const FAMILIES: [(&str, u8); 2] = [("ip", 4), ("ip6", 6)];

impl Renderer<'_> {
    fn behind(&self) -> impl Iterator<Item = &Segment> {
        self.layout.services.iter().filter(|segment| !self.layout.here(segment).apps.is_empty())
    }

    fn behind_of(&self, protocol: Protocol) -> Vec<Segment> {
        self.behind().filter(|segment| segment.protocol == protocol).cloned().collect()
    }

    pub(super) fn behind_sets(&self) -> Result<String, TemplateError> {
        let mut out = String::new();
        for segment in self.behind() {
            let name = segment.name();
            out += &fill(SETS, &[("segment", &name)])?;
            if segment.protocol == Protocol::Udp {
                out += &fill(CLIENTS, &[("segment", &name)])?;
            }
        }
        for protocol in PROTOCOLS {
            let by_port = |segment: &Segment| segment.ports.to_string();
            let segments = self.behind_of(protocol);
            out += &map(&format!("behind_{protocol}"), "inet_service", &segments, "bhd", by_port)?;
        }
        Ok(out)
    }

    pub(super) fn behind_chains(&self, marked: &str, action: &str) -> Result<String, TemplateError> {
        let (site, udp) = (self.site(), self.behind_of(Protocol::Udp));
        let mut tcp = String::new();
        for name in self.behind_of(Protocol::Tcp).iter().map(Segment::name) {
            for (ip, n) in FAMILIES {
                tcp += &format!(
                    "\t\t{ip} saddr . tcp sport @behind_{name}_{n} goto rep_{name} comment \"ka:replies:behind\"\n"
                );
            }
        }
        let out = self.behind_judged(
            &udp,
            ["saddr . udp sport", "daddr", "dport"],
            ["bho", "behind_cut", "replies:behind"],
        );
        let own = self.behind_judged(
            &udp,
            ["daddr . udp dport", "saddr", "sport"],
            ["bhi", "behind_drop", "behind:turned"],
        );
        let (cut, drop) = (self.behind_rest(&udp, Way::Out), self.behind_rest(&udp, Way::In));
        let values =
            [("tcp", tcp), ("out", out), ("own", own), ("cut", cut), ("drop", drop), ("site", site.clone())];
        let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut chains = fill(CHAINS, &values)?;
        for segment in self.behind() {
            let (name, protocol) = (segment.name(), segment.protocol.name());
            let came = fill(CAME, &[("segment", &name), ("site", &site)])?;
            let clients = if segment.protocol == Protocol::Udp { came } else { String::new() };
            chains += &fill(LEARNT, &[("segment", &name), ("protocol", protocol), ("clients", &clients)])?;
        }
        chains += &self.segment_chains(&udp, "bho", Way::Out, marked, None)?;
        chains += &self.segment_chains(&udp, "bhi", Way::In, action, None)?;
        Ok(chains)
    }

    /// By the ports that the client came by; where it came by none, by any that lead there.
    fn behind_judged(
        &self,
        udp: &[Segment],
        [end, addr, port]: [&str; 3],
        [stem, rest, what]: [&str; 3],
    ) -> String {
        let (mut came, mut known, mut any) = (String::new(), String::new(), String::new());
        for name in udp.iter().map(Segment::name) {
            for (ip, n) in FAMILIES {
                let mask = if n == 6 { format!("& {} ", self.site()) } else { String::new() };
                let there = format!("{ip} {end} @behind_{name}_{n}");
                let of = format!("{ip} {addr} . udp {port} @behind_of_{name}_{n}");
                let by = format!("{ip} {addr} {mask}@behind_by_{name}_{n}");
                for client in [&of, &by] {
                    came += &format!("\t\t{there} {client} jump {stem}_{name} comment \"ka:{what}\"\n");
                }
                known += &format!("\t\t{of} goto {rest} comment \"ka:{what}\"\n");
                known += &format!("\t\tmeta l4proto udp {by} goto {rest} comment \"ka:{what}\"\n");
                any += &format!("\t\t{there} jump {stem}_{name} comment \"ka:{what}\"\n");
            }
        }
        came + &known + &any
    }

    fn behind_rest(&self, udp: &[Segment], way: Way) -> String {
        let (end, what) = match way {
            Way::Out => ("saddr . udp sport", "cut"),
            Way::In => ("daddr . udp dport", "drop:here"),
        };
        let mut out = String::new();
        for segment in udp {
            let name = segment.name();
            let own: Option<Vec<String>> = match way {
                Way::Out => None,
                Way::In => self.layout.apps(segment).map(|app| self.interface(app, way)).collect(),
            };
            for interface in own.unwrap_or_else(|| vec![String::new()]) {
                for (ip, n) in FAMILIES {
                    out += &format!(
                        "\t\t{interface}{ip} {end} @behind_{name}_{n} counter drop comment \"ka:{what}:{name}\"\n"
                    );
                }
            }
        }
        out
    }
}
