//! Whether the rules are there that close ports: as far as that can be told of what is in force alone, without the settings
//! that it was made by.

use std::collections::BTreeSet;

use super::planned::Plan;
use super::{BackendError, Firewall};
use crate::ruleset::diff::Live;
use crate::ruleset::expr::{Expr, Verdict};
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
    let ports: BTreeSet<&str> =
        led_to.filter_map(|(_, element)| goes_to(element.verdict.as_ref()?)).collect();
    let lan = maps.iter().skip(1).any(|map| live.elements.get(*map).is_some_and(|map| !map.is_empty()));
    is_hooked(ruleset, "gate", Some("ka:services"))
        && (ruleset.chain("step2_gate").is_none() || has(ruleset, "gate", "ka:step2"))
        && is_hooked(ruleset, "gate_forward", lan.then_some("ka:lan"))
        && ports.iter().all(|chain| ruleset.chain(chain).is_some_and(|chain| !chain.rules.is_empty()))
        && judged(ruleset).all(|chain| ports.contains(chain))
        && live.elements.get("ext").is_some_and(|names| !names.is_empty())
        && !lets_others_pass(ruleset)
}

/// The chains that judge who comes to a guarded port: each is there for a port that a map has.
fn judged(ruleset: &Ruleset) -> impl Iterator<Item = &str> {
    let names = ruleset.chains.iter().map(|chain| chain.name.as_str());
    names.filter(|name| name.starts_with("svc_") || name.starts_with("lan_"))
}

/// Whether somebody put a rule of theirs where packets are judged that ends the judging for what it lets pass.
fn lets_others_pass(ruleset: &Ruleset) -> bool {
    let gates = ["gate", "gate_forward"].into_iter().chain(judged(ruleset));
    let mut rules = gates.filter_map(|chain| ruleset.chain(chain)).flat_map(|chain| &chain.rules);
    rules.any(|rule| {
        let ours = rule.comment.as_deref().is_some_and(|comment| comment.starts_with("ka:"));
        !ours && rule.exprs.iter().any(lets_pass)
    })
}

fn lets_pass(expr: &Expr) -> bool {
    matches!(expr, Expr::Verdict(verdict) if !matches!(verdict, Verdict::Drop))
}

fn goes_to(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Goto(chain) => Some(chain),
        _ => None,
    }
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

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Alone, parse};
    use crate::ruleset::layout::Options;
    use crate::ruleset::model::{Content, Rule};
    use crate::ruleset::plan::{arbitrary, plan};

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
        listed(plan(&settings, options))
    }

    fn listed(ruleset: Ruleset) -> Live {
        let mut live = Live { ruleset, ..Live::default() };
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

    #[test]
    fn rules_that_are_told_of_no_interface_or_port_leave_ports_open() {
        for map in ["ext", "services", "lan_4"] {
            let mut emptied = live();
            emptied.elements.get_mut(map).unwrap().clear();
            assert!(!nftables(&emptied), "{map}");
            emptied.elements.remove(map);
            assert!(!nftables(&emptied), "{map}");
        }
    }

    #[test]
    fn rules_of_others_that_let_pass_leave_ports_open() {
        let with = |chain: &str, expr: Expr| {
            let mut live = live();
            let found = live.ruleset.chains.iter_mut().find(|have| have.name == chain).unwrap();
            found.rules.insert(0, Rule { comment: None, exprs: vec![Expr::Counter, expr] });
            nftables(&live)
        };
        for chain in ["gate", "gate_forward", "svc_tcp_22", "lan_tcp_10_0_0_5_22"] {
            for passes in [Verdict::Accept, Verdict::Return, Verdict::Goto("theirs".to_owned())] {
                assert!(!with(chain, Expr::Verdict(passes)), "{chain}");
            }
            assert!(with(chain, Expr::Verdict(Verdict::Drop)), "{chain}");
            assert!(with(chain, Expr::Counter), "{chain}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_configured_is_closed(settings in arbitrary::settings(), options in arbitrary::options()) {
            prop_assert!(nftables(&listed(plan(&settings, options))));
        }
    }
}
