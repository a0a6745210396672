//! What the kernel has counted at a rule.

use super::attr::Attributes;
use super::objects::rule;
use crate::ruleset::expr::{Expr, Verdict};

/// What passed a rule of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleCounter {
    /// The chain it is in.
    pub chain: String,
    /// What it is for: its comment without `ka:`.
    pub what: String,
    /// What becomes of the packets: `accept`, `drop`, or `other` where they go on.
    pub verdict: &'static str,
    /// Packets, since the rule was made.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The counter of a rule; none for a rule of another table, without a counter, or that is not one of ours.
#[must_use]
pub fn counter(payload: &[u8], table: &str) -> Option<RuleCounter> {
    let decoded = rule(payload, table)?;
    let what = decoded.rule.comment?.strip_prefix("ka:")?.to_owned();
    let mut exprs = Attributes(payload).nested(4).map(|(_, item)| Attributes(item));
    // `NFTA_COUNTER_BYTES` and `NFTA_COUNTER_PACKETS` (`linux/netfilter/nf_tables.h`).
    let data = exprs.find(|expr| expr.text(1) == Some("counter"))?.nested(2);
    let (bytes, packets) = (data.be64(1)?, data.be64(2)?);
    let verdict = match decoded.rule.exprs.last() {
        Some(Expr::Verdict(Verdict::Drop)) => "drop",
        Some(Expr::Verdict(Verdict::Accept)) => "accept",
        Some(_) | None => "other",
    };
    Some(RuleCounter { chain: decoded.chain, what, verdict, packets, bytes })
}

#[cfg(test)]
mod tests {
    use super::super::attr::attribute;
    use super::*;

    fn expr(name: &str, data: &[u8]) -> Vec<u8> {
        attribute(1, &[attribute(1, format!("{name}\0").as_bytes()), attribute(2, data)].concat())
    }

    fn message(comment: &str, exprs: &[Vec<u8>]) -> Vec<u8> {
        let text = [comment.as_bytes(), &[0]].concat();
        let user = [&[0, u8::try_from(text.len()).unwrap()], text.as_slice()].concat();
        [attribute(1, b"ours\0"), attribute(2, b"gate\0"), attribute(4, &exprs.concat()), attribute(7, &user)]
            .concat()
    }

    fn counted() -> Vec<u8> {
        expr("counter", &[attribute(1, &900_u64.to_be_bytes()), attribute(2, &7_u64.to_be_bytes())].concat())
    }

    fn verdict(code: i32) -> Vec<u8> {
        let verdict = attribute(2, &attribute(2, &attribute(1, &code.to_be_bytes())));
        expr("immediate", &[attribute(1, &0_u32.to_be_bytes()), verdict].concat())
    }

    #[test]
    fn packets_and_bytes_are_told_with_what_becomes_of_them() {
        let read = |code: i32| counter(&message("ka:tcp 22", &[counted(), verdict(code)]), "ours").unwrap();
        let drop = read(0);
        assert_eq!((drop.chain.as_str(), drop.what.as_str(), drop.verdict), ("gate", "tcp 22", "drop"));
        assert_eq!((drop.packets, drop.bytes), (7, 900));
        assert_eq!((read(1).verdict, read(-5).verdict), ("accept", "other"));
    }

    #[test]
    fn rules_of_others_and_without_a_counter_are_nothing() {
        assert_eq!(counter(&message("ka:x", &[verdict(0)]), "ours"), None);
        assert_eq!(counter(&message("of the host", &[counted()]), "ours"), None);
        assert_eq!(counter(&message("ka:x", &[counted()]), "theirs"), None);
        let whole = message("ka:x", &[counted(), verdict(0)]);
        for end in 0..whole.len() {
            let _ = counter(&whole[..end], "ours");
        }
    }
}
