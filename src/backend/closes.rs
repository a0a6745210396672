//! Whether the rules are there that close ports: as far as that can be told of what is in force alone, without the settings
//! that it was made by.

use super::planned::Plan;
use super::{BackendError, Firewall};
use crate::ruleset::diff::Live;
use crate::ruleset::expr::Verdict;
use crate::ruleset::model::Ruleset;

impl Firewall {
    /// Whether every port that what was just read guards is closed by its rules, but for those that are let in.
    ///
    /// # Errors
    /// [`BackendError`] where that cannot be told.
    pub fn closes(&self, live: &Live) -> Result<bool, BackendError> {
        match self {
            Self::Nftables(_) => Ok(!live.flagged && nftables(live)),
            Self::Iptables(iptables) => Ok(iptables.closes()?),
        }
    }

    /// Puts in place what closes, and nothing else, where the plan as a whole cannot be put in force.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn close(&mut self, wanted: &Plan) -> Result<(), BackendError> {
        match (self, wanted) {
            (Self::Iptables(iptables), Plan::Iptables(wanted)) => Ok(iptables.close(wanted)?),
            // A transaction of nftables is carried out as a whole, or not at all.
            (Self::Nftables(_) | Self::Iptables(_), _) => Ok(()),
        }
    }
}

fn nftables(live: &Live) -> bool {
    let ruleset = &live.ruleset;
    let maps = ["services", "lan_4", "lan_6"];
    let led_to = maps.iter().filter_map(|map| live.elements.get(*map)).flatten();
    let mut ports = led_to.filter_map(|(_, element)| match &element.verdict {
        Some(Verdict::Goto(chain)) => Some(chain),
        _ => None,
    });
    let lan = maps.iter().skip(1).any(|map| live.elements.get(*map).is_some_and(|map| !map.is_empty()));
    is_hooked(ruleset, "gate", Some("ka:services"))
        && (ruleset.chain("step2_gate").is_none() || has(ruleset, "gate", "ka:step2"))
        && is_hooked(ruleset, "gate_forward", lan.then_some("ka:lan"))
        && ports.all(|chain| ruleset.chain(chain).is_some_and(|chain| !chain.rules.is_empty()))
}

fn is_hooked(ruleset: &Ruleset, chain: &str, rule: Option<&str>) -> bool {
    let hooked = ruleset.chain(chain).is_some_and(|chain| chain.base.is_some());
    hooked && rule.is_none_or(|rule| has(ruleset, chain, rule))
}

fn has(ruleset: &Ruleset, chain: &str, comment: &str) -> bool {
    let rules = ruleset.chain(chain).into_iter().flat_map(|chain| &chain.rules);
    rules.into_iter().any(|rule| rule.comment.as_deref() == Some(comment))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::config::{Alone, parse};
    use crate::ruleset::layout::Options;
    use crate::ruleset::model::Content;
    use crate::ruleset::plan::plan;

    /// What the kernel would list of an app here and one on a LAN host.
    fn live() -> Live {
        let keys = "  duration: 1h\n  access_key_http: [first-key-N]\n  access_key_https: [second-key-N]\n";
        let text = format!(
            "global:\n  interface_ext: eth0\n  interface_int: eth1\n  http_post_path: /a-path\n  https_post_path: /b-path\n\
             ssh:\n  port: 22\n{}lan:\n  port: 2222\n  destination: 10.0.0.5:22\n{}",
            keys.replace('N', "1"),
            keys.replace('N', "2"),
        );
        let settings = parse("x", &text, None, &Alone).unwrap().settings;
        let port = NonZeroU16::MIN;
        let options = Options { http_port: port, https_port: port, inner_header: true, log: true };
        let mut live = Live { ruleset: plan(&settings, options), ..Live::default() };
        for set in &live.ruleset.sets {
            if let Content::Planned(planned) = &set.content {
                live.elements.insert(set.name.clone(), planned.clone());
            }
        }
        live
    }

    #[test]
    fn rules_that_are_missing_leave_ports_open() {
        assert!(nftables(&live()));
        let without = |chain: &str, comment: Option<&str>| {
            let mut live = live();
            let found = live.ruleset.chains.iter_mut().find(|have| have.name == chain).unwrap();
            found
                .rules
                .retain(|rule| comment.is_some_and(|comment| rule.comment.as_deref() != Some(comment)));
            nftables(&live)
        };
        for (chain, comment) in [
            ("gate", None),
            ("gate", Some("ka:services")),
            ("gate", Some("ka:step2")),
            ("gate_forward", Some("ka:lan")),
            ("svc_tcp_22", None),
            ("lan_tcp_10_0_0_5_22", None),
        ] {
            assert!(!without(chain, comment), "{chain} {comment:?}");
        }
        let mut flushed = live();
        flushed.ruleset.chains.iter_mut().for_each(|chain| chain.rules.clear());
        assert!(!nftables(&flushed));
    }
}
