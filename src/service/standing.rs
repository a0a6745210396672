//! How the daemon stands, and what the kernel has counted, as `status` tells it.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use super::health::Ailment;
use crate::ruleset::explain::Newer;
use crate::ruleset::wire::RuleCounter;

/// The running daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it was started, in UTC (RFC 3339).
    pub started: String,
    /// Seconds since then.
    pub uptime_s: u64,
    /// Seconds until all is put back as it was, where `run --confirm` waits for its confirmation; none: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_ends_in_s: Option<u64>,
    /// Whether the rules in the kernel are those that the configuration wants; none where it was not looked at.
    pub rules_as_wanted: Option<bool>,
    /// The rule in the host's chains that accepts what is let in; none where nobody asked for one.
    pub host_rule: Option<HostRule>,
    /// Where knocks are heard, such as `tcp/80`; nowhere without steps.
    pub listens: Vec<String>,
    /// The ports of both steps that clients use; none where there are no steps, and from a daemon of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<(NonZeroU16, NonZeroU16)>,
    /// The process that hears them; none without steps.
    pub front: Option<FrontState>,
    /// Its configuration.
    pub configuration: Configuration,
    /// When the first certificate of step 2 ends, in UTC (RFC 3339); none where none is served, or it cannot be told.
    pub certificate_ends: Option<String>,
    /// Seconds until then; less than none where that is past.
    pub certificate_ends_in_s: Option<i64>,
    /// Why the certificate and key on the disk cannot be used, where those of before are served; none where they can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_refused: Option<String>,
    /// What is wrong, as `health` tells it.
    pub problems: Vec<Ailment>,
}

/// The rule in chains of the host that accepts our mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRule {
    /// Where it was asked for, such as `filter input`.
    pub chains: Vec<String>,
    /// Whether a change is due that could not be made.
    pub pending: bool,
    /// What is wrong, in sentences.
    pub troubles: Vec<String>,
}

/// The process that hears strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontState {
    /// Whether it serves.
    pub serves: bool,
    /// How often it was started anew.
    pub restarts: u64,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Since when, in UTC (RFC 3339).
    pub since: String,
    /// Whether the last reload was carried out; also before the first one.
    pub last_reload_good: bool,
    /// Reloads that were carried out since the start.
    pub reloads: u64,
    /// Reloads that were refused since the start.
    pub refused: u64,
    /// What on the disk is not in force; none where all of it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer: Option<Newer>,
}

/// What passed for an app, as the kernel counted it since its rules were made: by a start without a guard, or by a reload
/// that changed them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// The app.
    pub app: String,
    /// Packets of clients that were let in.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets to them.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets to its ports that were dropped; of all apps at a port that they share.
    pub packets_dropped: u64,
}

/// The chains that judge each packet to a service once, and those that judge what services send.
const IN: &str = "svc_";
const OUT: [&str; 2] = ["rep_", "lrp_"];
/// What rules are for that let clients of an app pass, before its slug.
const LET_IN: [&str; 4] = ["grant", "knocked", "once", "allow"];

/// What the kernel counted for each app; `names` maps slugs to names.
#[must_use]
pub fn traffic(counters: &[RuleCounter], names: &BTreeMap<String, String>) -> Vec<Traffic> {
    let mut apps: BTreeMap<&str, Traffic> = BTreeMap::new();
    let mut at_chain: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for counter in counters {
        let Some((_, slug)) = counter.what.split_once(':').filter(|(kind, _)| LET_IN.contains(kind)) else {
            continue;
        };
        let name = names.get(slug).map_or(slug, String::as_str);
        // Networks that may reach every app are of none.
        if slug == "all" && !names.contains_key(slug) {
            continue;
        }
        let app = apps.entry(slug).or_insert_with(|| Traffic { app: name.to_owned(), ..Traffic::default() });
        if counter.chain.starts_with(IN) {
            app.packets_in += counter.packets;
            app.bytes_in += counter.bytes;
            at_chain.entry(&counter.chain).or_default().push(slug);
        } else if OUT.iter().any(|stem| counter.chain.starts_with(stem)) {
            app.packets_out += counter.packets;
            app.bytes_out += counter.bytes;
        }
    }
    for counter in counters.iter().filter(|counter| counter.what.starts_with("drop:")) {
        let mut slugs = at_chain.get(counter.chain.as_str()).cloned().unwrap_or_default();
        slugs.sort_unstable();
        slugs.dedup();
        for slug in slugs {
            if let Some(app) = apps.get_mut(slug) {
                app.packets_dropped += counter.packets;
            }
        }
    }
    apps.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(chain: &str, what: &str, packets: u64) -> RuleCounter {
        RuleCounter {
            chain: chain.to_owned(),
            what: what.to_owned(),
            verdict: "other",
            packets,
            bytes: packets * 100,
        }
    }

    #[test]
    fn each_packet_is_counted_once_for_its_app() {
        let counters = [
            counter("svc_tcp_22", "grant:my_app", 10),
            counter("svc_tcp_22", "knocked:my_app", 1),
            counter("svc_tcp_22", "allow:all", 1_000),
            counter("svc_tcp_22", "drop:tcp_22", 7),
            counter("svc_tcp_3389", "grant:lan", 20),
            counter("svc_tcp_3389", "drop:tcp_3389", 0),
            // The same packets at other places of their way.
            counter("lan_tcp_192_168_1_5_3389", "grant:lan", 20),
            counter("dnat_lan", "grant:lan", 1),
            counter("rep_tcp_22", "grant:my_app", 5),
            counter("lrp_tcp_192_168_1_5_3389", "grant:lan", 30),
        ];
        let names = BTreeMap::from([
            ("my_app".to_owned(), "My-App".to_owned()),
            ("lan".to_owned(), "lan".to_owned()),
        ]);
        let app = |app: &str, packets_in, packets_out, packets_dropped| Traffic {
            app: app.to_owned(),
            packets_in,
            bytes_in: packets_in * 100,
            packets_out,
            bytes_out: packets_out * 100,
            packets_dropped,
        };
        assert_eq!(traffic(&counters, &names), [app("lan", 20, 30, 0), app("My-App", 11, 5, 7)]);
    }
}
