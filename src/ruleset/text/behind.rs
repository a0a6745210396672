//! Where others forward guarded ports of this host to.

use super::render::{PROTOCOLS, Renderer};
use super::sets::map;
use super::template::{TemplateError, fill};
use crate::ruleset::layout::Segment;
use crate::units::Protocol;

const SETS: &str = include_str!("../../../nft-templates/behind-sets.nft");
const LEARNT: &str = include_str!("../../../nft-templates/behind-learnt.nft");
const CHAINS: &str = include_str!("../../../nft-templates/behind.nft");

impl Renderer<'_> {
    fn behind(&self) -> impl Iterator<Item = &Segment> {
        self.layout.services.iter().filter(|segment| !self.layout.here(segment).apps.is_empty())
    }

    pub(super) fn behind_sets(&self) -> Result<String, TemplateError> {
        let mut out = String::new();
        for segment in self.behind() {
            out += &fill(SETS, &[("segment", &segment.name())])?;
        }
        for protocol in PROTOCOLS {
            let of_protocol: Vec<Segment> =
                self.behind().filter(|segment| segment.protocol == protocol).cloned().collect();
            let by_port = |segment: &Segment| segment.ports.to_string();
            out += &map(&format!("behind_{protocol}"), "inet_service", &of_protocol, "bhd", by_port)?;
        }
        Ok(out)
    }

    pub(super) fn behind_chains(&self) -> Result<String, TemplateError> {
        let (mut out, mut own, mut learnt) = (String::new(), String::new(), String::new());
        for segment in self.behind() {
            let (name, protocol) = (segment.name(), segment.protocol);
            for (ip, n) in [("ip", 4), ("ip6", 6)] {
                out += &format!(
                    "\t\t{ip} saddr . {protocol} sport @behind_{name}_{n} goto rep_{name} comment \"ka:replies:behind\"\n"
                );
                if protocol == Protocol::Udp {
                    own += &format!(
                        "\t\t{ip} daddr . udp dport @behind_{name}_{n} goto inp_{name} comment \"ka:behind:turned\"\n"
                    );
                }
            }
            learnt += &fill(LEARNT, &[("segment", &name), ("protocol", protocol.name())])?;
        }
        Ok(fill(CHAINS, &[("out", &out), ("own", &own), ("site", &self.site())])? + &learnt)
    }
}
