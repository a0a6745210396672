//! Every figure there is; `docs/metrics.md` lists the same.

use super::exposition::{Family, Kind};

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, kind, labels, help }
}

use Kind::{Counter, Gauge, Histogram};

pub const BUILD: Family = family(
    "knock_agent_build_info",
    Gauge,
    &["version", "backend"],
    "What runs, and what enforces; always 1.",
);
pub const STARTED: Family = family(
    "knock_agent_start_time_seconds",
    Gauge,
    &[],
    "When the daemon was started, in seconds since 1970.",
);
pub const MEMORY: Family =
    family("knock_agent_resident_memory_bytes", Gauge, &[], "Memory that the enforcer takes.");
pub const GUARDED: Family = family(
    "knock_agent_guarded",
    Gauge,
    &[],
    "Whether the rules are in the kernel: 1, else 0 and ports may stand open.",
);
pub const GRANTS: Family =
    family("knock_agent_grants", Gauge, &["app"], "Grants that run, as far as the daemon knows.");
pub const GRANTS_LIMIT: Family = family(
    "knock_agent_grants_limit",
    Gauge,
    &[],
    "How many addresses of one family can be let in to one app at a time.",
);
pub const OPENED: Family = family(
    "knock_agent_grants_opened_total",
    Counter,
    &["app", "how"],
    "Grants that began, by how they came about.",
);
pub const RENEWED: Family = family(
    "knock_agent_grants_renewed_total",
    Counter,
    &["app", "how"],
    "Grants that were made to last longer, by how they came about.",
);
pub const CLOSED: Family =
    family("knock_agent_grants_closed_total", Counter, &["app", "reason"], "Grants that ended, by why.");
pub const KNOCKS: Family = family(
    "knock_agent_knocks_total",
    Counter,
    &["step", "result"],
    "Requests at either step that were answered.",
);
pub const DENIALS: Family =
    family("knock_agent_denials_total", Counter, &["reason"], "Requests that were refused, by why.");
pub const LOCKOUTS: Family =
    family("knock_agent_lockouts_total", Counter, &[], "How often an address was locked out.");
pub const LOCKED_OUT: Family =
    family("knock_agent_locked_out", Gauge, &[], "Addresses that are locked out now.");
pub const PACKETS: Family = family(
    "knock_agent_rule_packets_total",
    Counter,
    &["chain", "rule", "verdict"],
    "Packets that came to a rule, as the kernel counts them.",
);
pub const BYTES: Family = family(
    "knock_agent_rule_bytes_total",
    Counter,
    &["chain", "rule", "verdict"],
    "Bytes of packets that came to a rule, as the kernel counts them.",
);
pub const REPAIRS: Family = family(
    "knock_agent_repairs_total",
    Counter,
    &["where"],
    "How often rules were put right that somebody had changed.",
);
pub const RELOADS: Family =
    family("knock_agent_config_reloads_total", Counter, &["result"], "Reloads of the configuration.");
pub const LAST_RELOAD: Family = family(
    "knock_agent_config_last_reload_successful",
    Gauge,
    &[],
    "Whether the last reload was carried out: 1, else 0 and the configuration of before is in force.",
);
pub const CONFIGURED: Family = family(
    "knock_agent_config_last_reload_success_timestamp_seconds",
    Gauge,
    &[],
    "When the configuration in force was taken over, in seconds since 1970.",
);
pub const COMMITS: Family = family(
    "knock_agent_commit_duration_seconds",
    Histogram,
    &[],
    "How long the kernel took to carry changes out.",
);
pub const CERTIFICATE: Family = family(
    "knock_agent_certificate_expiry_timestamp_seconds",
    Gauge,
    &[],
    "When the certificate of step 2, or one of its issuers, ends first, in seconds since 1970.",
);
pub const FRONT: Family =
    family("knock_agent_front_up", Gauge, &[], "Whether the process that hears clients serves: 1, else 0.");
pub const FRONT_RESTARTS: Family = family(
    "knock_agent_front_restarts_total",
    Counter,
    &[],
    "How often the process that hears clients was started anew.",
);

/// All of them, in the order of a page.
#[cfg(test)]
pub const ALL: [&Family; 23] = [
    &BUILD,
    &STARTED,
    &MEMORY,
    &GUARDED,
    &GRANTS,
    &GRANTS_LIMIT,
    &OPENED,
    &RENEWED,
    &CLOSED,
    &KNOCKS,
    &DENIALS,
    &LOCKOUTS,
    &LOCKED_OUT,
    &PACKETS,
    &BYTES,
    &REPAIRS,
    &RELOADS,
    &LAST_RELOAD,
    &CONFIGURED,
    &COMMITS,
    &CERTIFICATE,
    &FRONT,
    &FRONT_RESTARTS,
];
