//! What `iptables-save -c` says was counted at our rules.

use super::model::CHAIN_PREFIX;
use crate::ruleset::model::KNOCKED_SETS;
use crate::ruleset::wire::RuleCounter;

/// What was counted at each rule of ours, the rules named as in nftables; nothing where the text has no counts.
#[must_use]
pub fn counters(text: &str) -> Vec<RuleCounter> {
    text.lines().filter_map(counter).collect()
}

fn counter(line: &str) -> Option<RuleCounter> {
    let (counts, rule) = line.strip_prefix('[')?.split_once("] -A ")?;
    let (packets, bytes) = counts.split_once(':')?;
    let (chain, rule) = rule.strip_prefix(CHAIN_PREFIX)?.split_once(' ')?;
    let comment = rule.split_once("--comment ")?.1.trim_start_matches('"');
    let what = comment.strip_prefix("ka:")?.split(['"', ' ']).next()?;
    let verdict = match rule.rsplit_once(" -j ").and_then(|(_, target)| target.split(' ').next()) {
        Some("DROP") => "drop",
        Some("ACCEPT") => "accept",
        Some(_) | None => "other",
    };
    // Rules about what sequences open name the set, which tells one of several times from the others.
    let set = what.strip_prefix("knocked:").and_then(|set| set.strip_prefix(KNOCKED_SETS));
    let knocked = set.and_then(|set| set.split('.').next()).map(|slug| format!("knocked:{slug}"));
    let (chain, what) = (chain.to_owned(), knocked.unwrap_or_else(|| what.to_owned()));
    Some(RuleCounter { chain, what, verdict, packets: packets.parse().ok()?, bytes: bytes.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_our_rules_are_read_and_no_others() {
        let text = "*mangle\n:KA-gate - [0:0]\n[9:99] -A PREROUTING -m comment --comment knock-agent -j KA-gate\n[7:420] -A KA-svc_tcp_22 -m set --match-set ka_app_ssh_4 src -m comment --comment \"ka:grant:ssh\" -g KA-talk\n[1:60] -A KA-svc_tcp_22 -m comment --comment \"ka:drop:tcp_22\" -j DROP\n[3:180] -A KA-svc_tcp_22 -m set --match-set ka_seq_ssh.600_4 src -m comment --comment \"ka:knocked:seq_ssh.600\" -g KA-talk\n[5:6] -A THEIRS -m comment --comment \"ka:grant:ssh\" -j DROP\n-A KA-svc_tcp_22 -m comment --comment \"ka:allow:all\" -g KA-talk\nCOMMIT\n";
        let counter = |what: &str, verdict, packets, bytes| RuleCounter {
            chain: "svc_tcp_22".to_owned(),
            what: what.to_owned(),
            verdict,
            packets,
            bytes,
        };
        assert_eq!(
            counters(text),
            [
                counter("grant:ssh", "other", 7, 420),
                counter("drop:tcp_22", "drop", 1, 60),
                counter("knocked:ssh", "other", 3, 180)
            ]
        );
    }
}
