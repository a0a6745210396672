//! What stands open for whom, from the kernel, explained by the ledger where there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::connected::{end_address, once_set};
use super::standing::{Standing, Traffic};
use crate::grant::{How, Ledger, Note};
use crate::knock::LockedOut;
use crate::ruleset::allow::{Origin, address_key, key_address, networks};
use crate::ruleset::diff::Live;
use crate::ruleset::expr::{Expr, Verdict};
use crate::ruleset::model::{Element, Elements, KNOCKED_SETS};
use crate::units::{Family, Now, PortRange, Protocol};

/// `knock-agent status --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this layout.
    pub version: u32,
    /// What enforces: `nftables` or `iptables`.
    pub backend: String,
    /// What this firewall cannot do here; none: nothing to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<String>,
    /// What stands open.
    pub grants: Vec<Row>,
    /// How many addresses are let in to each app, where `grants` has the newest of them only; none where it has all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<BTreeMap<String, u64>>,
    /// Who is locked out; nobody where no daemon runs, as nobody can knock there.
    #[serde(default)]
    pub locked_out: Vec<Locked>,
    /// How many attempts the daemon refused since its start, by reason.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// What passed for each app; nothing where the firewall does not tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<Traffic>,
    /// Whether the firewall does not tell what passed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub traffic_unknown: bool,
    /// Whether the table is there, but does nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub switched_off: bool,
    /// Without a daemon: whether rules are missing, so that ports may stand open.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rules_missing: bool,
    /// Why a daemon that is there could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// The running daemon; none where none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon: Option<Box<Standing>>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// An address that is locked out after repeated failures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Locked {
    /// The address, or the IPv6 network in CIDR notation.
    pub address: String,
    /// Seconds until it may knock again.
    pub expires_in_s: f64,
    /// Seconds it was locked out for.
    pub lifetime_s: u64,
    /// How often it was locked out, this time included.
    pub times: u32,
}

impl Locked {
    /// A row for an address that is locked out.
    #[must_use]
    pub fn row(locked: &LockedOut) -> Self {
        let prefix = if locked.client.family() == Family::V6 { "/64" } else { "" };
        Self {
            address: format!("{}{prefix}", locked.client),
            expires_in_s: tenths(locked.left),
            lifetime_s: locked.whole.as_secs(),
            times: locked.times,
        }
    }
}

/// One address or network and what it may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What kind of opening it is.
    pub kind: Kind,
    /// The app; `*` for every app.
    pub app: String,
    /// The address, or the network in CIDR notation.
    pub address: String,
    /// The guarded ports it may reach.
    pub services: Vec<Service>,
    /// Seconds until the kernel ends it; none: never.
    pub expires_in_s: Option<f64>,
    /// Seconds it was given; none: for ever.
    pub lifetime_s: Option<u64>,
    /// Who; empty where nobody knows.
    pub by: String,
    /// How it came about.
    pub how: String,
}

/// Kinds of openings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A service is open.
    Service,
    /// Step 2 may begin.
    Step2,
    /// A network is allowed.
    Allow,
    /// What was begun by a grant for one connection may go on.
    Once,
}

/// Guarded ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// First port.
    pub first: u16,
    /// Last port, included.
    pub last: u16,
}

impl Service {
    /// These ports.
    pub(super) fn of(protocol: Protocol, ports: PortRange) -> Self {
        Self { protocol: protocol.name().to_owned(), first: ports.first(), last: ports.last() }
    }
}

/// Works the status out of what was read from the kernel.
///
/// `names` maps slugs to the apps' names, as far as they are known; `ipv6_prefix` is how many leading bits of an
/// IPv6 address a grant covers.
#[must_use]
pub fn status(
    backend: &str,
    live: &Live,
    names: &BTreeMap<String, String>,
    ipv6_prefix: u8,
    ledger: Option<(&Ledger, Now)>,
) -> Status {
    let mut grants = Vec::new();
    let none = Elements::new();
    let of = |set: &str| live.elements.get(set).unwrap_or(&none);
    for slug in slugs(live) {
        let app = names.get(&slug).cloned().unwrap_or_else(|| slug.clone());
        let services = services(live, &slug);
        for family in Family::BOTH {
            for (key, element) in of(&format!("app_{slug}_{}", family.digit())) {
                let rows = service_rows(&slug, &app, &services, key, element, ledger);
                grants.extend(rows.into_iter().map(|row| with_prefix(row, family, ipv6_prefix)));
            }
        }
    }
    for (stem, slug) in knocked(live) {
        let app = names.get(&slug).cloned().unwrap_or_else(|| slug.clone());
        let services = services(live, &slug);
        for family in Family::BOTH {
            for (key, element) in of(&format!("{stem}_{}", family.digit())) {
                let rows = service_rows(&format!(".{stem}"), &app, &services, key, element, ledger);
                let by_packets =
                    rows.into_iter().map(|row| Row { how: How::Sequence.word().to_owned(), ..row });
                grants.extend(by_packets.map(|row| with_prefix(row, family, ipv6_prefix)));
            }
        }
    }
    for slug in slugs(live) {
        let app = names.get(&slug).cloned().unwrap_or_else(|| slug.clone());
        for family in Family::BOTH {
            grants.extend(once_rows(&app, &services(live, &slug), of(&once_set(&slug, family).name)));
        }
    }
    for family in Family::BOTH {
        for (key, element) in of(&format!("step2_{}", family.digit())) {
            let slug = element.comment.clone().unwrap_or_default();
            let app = names.get(&slug).cloned().unwrap_or(slug);
            let note = Note { by: String::new(), how: How::TwoStep };
            grants.extend(row(Kind::Step2, &app, &[], key, element, &note));
        }
    }
    for slug in slugs(live).into_iter().chain(["all".to_owned()]) {
        let all = slug == "all" && !live.elements.contains_key("app_all_4");
        let app =
            if all { "*".to_owned() } else { names.get(&slug).cloned().unwrap_or_else(|| slug.clone()) };
        let services = if all { Vec::new() } else { services(live, &slug) };
        for family in Family::BOTH {
            grants.extend(allow_rows(&app, &services, of(&format!("allow_{slug}_{}", family.digit()))));
        }
    }
    Status { version: 1, backend: backend.to_owned(), grants, ..Status::default() }
}

/// The apps that have a set of grants.
pub(super) fn slugs(live: &Live) -> Vec<String> {
    stems(live).into_iter().filter_map(|stem| stem.strip_prefix("app_")).map(str::to_owned).collect()
}

/// The names of sets without the family at their ends, each once: lists that stand in for sets may be of one family alone.
fn stems(live: &Live) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    let names = live.ruleset.sets.iter().map(|set| set.name.as_str());
    let stems = names.filter_map(|name| name.strip_suffix("_4").or_else(|| name.strip_suffix("_6")));
    stems.filter(|stem| seen.insert(*stem)).collect()
}

/// What the names of the sets of grants begin with that packets fill, each with the slug of its app.
fn knocked(live: &Live) -> Vec<(String, String)> {
    stems(live)
        .into_iter()
        .filter_map(|stem| {
            let slug = stem.strip_prefix(KNOCKED_SETS)?.split('.').next()?;
            Some((stem.to_owned(), slug.to_owned()))
        })
        .collect()
}

/// The ports whose chain asks for the app's set.
pub(super) fn services(live: &Live, slug: &str) -> Vec<Service> {
    let asks = |expr: &Expr| match expr {
        Expr::Lookup { set, .. } => {
            Family::BOTH.iter().any(|family| *set == format!("app_{slug}_{}", family.digit()))
        }
        _ => false,
    };
    let Some(map) = live.elements.get("services") else {
        return Vec::new();
    };
    map.iter()
        .filter_map(|(key, element)| {
            let Some(Verdict::Goto(chain)) = &element.verdict else {
                return None;
            };
            let rules = &live.ruleset.chain(chain)?.rules;
            rules.iter().any(|rule| rule.exprs.iter().any(asks)).then_some(())?;
            let (protocol, first) = service_key(key)?;
            let (_, last) = service_key(element.last.as_ref().unwrap_or(key))?;
            Some(Service { protocol, first, last })
        })
        .collect()
}

/// The protocol and the port in a key of the map of services.
pub(super) fn service_key(key: &[u8]) -> Option<(String, u16)> {
    let &[number, _, _, _, high, low, ..] = key else {
        return None;
    };
    let protocol = match number {
        6 => "tcp",
        17 => "udp",
        _ => return None,
    };
    Some((protocol.to_owned(), u16::from_be_bytes([high, low])))
}

/// One row per user; a user's time never exceeds what the kernel gives.
pub(super) fn service_rows(
    slug: &str,
    app: &str,
    services: &[Service],
    key: &[u8],
    element: &Element,
    ledger: Option<(&Ledger, Now)>,
) -> Vec<Row> {
    let known = match (ledger, key_address(key)) {
        (Some((ledger, now)), Some(addr)) => ledger.users(slug, addr, now),
        (None, _) | (_, None) => Vec::new(),
    };
    if known.is_empty() {
        let note = Note::parse(element.comment.as_deref());
        return row(Kind::Service, app, services, key, element, &note).into_iter().collect();
    }
    known
        .into_iter()
        .filter_map(|(note, left, lifetime)| {
            let mut row = row(Kind::Service, app, services, key, element, &note)?;
            if let Some(kernel) = row.expires_in_s {
                row.expires_in_s = Some(tenths(left).min(kernel));
                row.lifetime_s = Some(lifetime.as_secs());
            }
            Some(row)
        })
        .collect()
}

/// One row per client and grant, however many connections it made of late: which of them are over is not known.
fn once_rows(app: &str, services: &[Service], elements: &Elements) -> Vec<Row> {
    let mut rows: BTreeMap<(IpAddr, Note), Row> = BTreeMap::new();
    for (key, element) in elements {
        let note = Note::parse(element.comment.as_deref());
        let Some(addr) = end_address(key) else { continue };
        let Some(new) = row(Kind::Once, app, services, &address_key(addr), element, &note) else { continue };
        let longest = rows.entry((addr, note)).or_insert_with(|| new.clone());
        if new.expires_in_s > longest.expires_in_s {
            *longest = new;
        }
    }
    rows.into_values().collect()
}

/// One row per network as it was allowed, however many elements stand for it.
fn allow_rows(app: &str, services: &[Service], elements: &Elements) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for (first, element) in elements {
        let origin = Origin::parse(element.comment.as_deref());
        let how = match origin {
            Some(Origin { by_config: true, .. }) => How::Config,
            Some(Origin { by_config: false, .. }) => How::Operator,
            None => How::Unknown,
        };
        let note = Note { by: String::new(), how };
        let last = element.last.as_deref().unwrap_or(first);
        let found = origin.map_or_else(|| networks(first, last), |origin| origin.networks(first, last));
        for network in found {
            let Some(row) = row(Kind::Allow, app, services, first, element, &note) else { continue };
            let address = network.to_string();
            if seen.insert((address.clone(), row.how.clone())) {
                rows.push(Row { address, ..row });
            }
        }
    }
    rows
}

fn row(
    kind: Kind,
    app: &str,
    services: &[Service],
    key: &[u8],
    element: &Element,
    note: &Note,
) -> Option<Row> {
    Some(Row {
        kind,
        app: app.to_owned(),
        address: key_address(key)?.to_string(),
        services: services.to_vec(),
        expires_in_s: element.timeout.map(|timeout| tenths(Duration::from_millis(timeout.left_ms))),
        lifetime_s: element.timeout.map(|timeout| timeout.total_ms.div_ceil(1_000)),
        by: note.by.clone(),
        how: note.how.word().to_owned(),
    })
}

/// The row, its address with the prefix that a grant is for.
pub(super) fn with_prefix(row: Row, family: Family, ipv6_prefix: u8) -> Row {
    if family == Family::V4 || ipv6_prefix >= family.bits() {
        return row;
    }
    Row { address: format!("{}/{ipv6_prefix}", row.address), ..row }
}

/// Seconds with one decimal, which is as exact as reading takes.
fn tenths(left: Duration) -> f64 {
    (left.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::layout::Options;
    use crate::ruleset::model::{Content, Timeout};
    use crate::ruleset::plan::plan;
    use crate::units::Lifetime;

    const TEXT: &str = "global:\n  interface_ext: eth0\n  http_post_path: /a-path\n  https_post_path: /b-path\nMy-App:\n  port: [22, \"6000-6010\"]\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [other-secret]\n";

    /// What the kernel would list for that configuration, with one grant and one allowed network.
    fn live() -> Live {
        let settings = crate::config::parse("x", TEXT, None, &crate::config::Alone).unwrap().settings;
        let port = |n| std::num::NonZeroU16::new(n).unwrap();
        let options = Options { http_port: port(80), https_port: port(443), inner_header: true, log: true };
        let ruleset = plan(&settings, options);
        let mut elements: BTreeMap<String, Elements> = BTreeMap::new();
        for set in &ruleset.sets {
            if let Content::Planned(planned) = &set.content {
                elements.insert(set.name.clone(), planned.clone());
            }
        }
        let timeout = Some(Timeout { total_ms: 3_600_000, left_ms: 3_599_240 });
        let grant = Element { timeout, comment: Some("alice two-step".into()), ..Element::default() };
        let key = address_key("2001:db8:1::".parse().unwrap());
        elements.insert("app_my_app_6".into(), Elements::from([(key, grant)]));
        let network = Element {
            last: Some(address_key("10.255.255.255".parse().unwrap())),
            comment: Some("config 10.0.0.0/8".into()),
            ..Element::default()
        };
        let key = address_key("10.0.0.0".parse().unwrap());
        elements.insert("allow_all_4".into(), Elements::from([(key, network)]));
        Live { ruleset, elements, ..Live::default() }
    }

    fn names() -> BTreeMap<String, String> {
        BTreeMap::from([("my_app".to_owned(), "My-App".to_owned())])
    }

    #[test]
    fn the_kernel_alone_tells_who_what_and_how_long() {
        let status = status("nftables", &live(), &names(), 64, None);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"version": 1, "backend": "nftables", "grants": [
                {"kind": "service", "app": "My-App", "address": "2001:db8:1::/64",
                 "services": [{"protocol": "tcp", "first": 22, "last": 22}, {"protocol": "tcp", "first": 6000, "last": 6010}],
                 "expires_in_s": 3599.2, "lifetime_s": 3600, "by": "alice", "how": "two-step"},
                {"kind": "allow", "app": "*", "address": "10.0.0.0/8", "services": [],
                 "expires_in_s": null, "lifetime_s": null, "by": "", "how": "config"},
            ], "locked_out": [], "refused": {}})
        );
    }

    #[test]
    fn an_app_with_a_set_for_one_family_only_is_told() {
        for gone in ["_4", "_6"] {
            let mut live = live();
            let of_app = |name: &str| name.starts_with("app_") || name.starts_with(KNOCKED_SETS);
            live.ruleset.sets.retain(|set| !of_app(&set.name) || !set.name.ends_with(gone));
            assert_eq!(slugs(&live), ["my_app"]);
        }
        assert_eq!(slugs(&live()), ["my_app"]);
        let mut live = live();
        let mut knocked = live.ruleset.set("app_my_app_6").unwrap().clone();
        knocked.name = "seq_my_app.600_6".into();
        live.ruleset.sets.push(knocked);
        assert_eq!(super::knocked(&live), [("seq_my_app.600".to_owned(), "my_app".to_owned())]);
    }

    #[test]
    fn the_ledger_names_every_user_and_never_more_time_than_the_kernel_gives() {
        let addr = "2001:db8:1::".parse().unwrap();
        let mut ledger = Ledger::default();
        let note = |by: &str| Note { by: by.into(), how: How::TwoStep };
        ledger.grant("my_app", addr, &note("alice"), Lifetime::from_secs(7_200).unwrap(), Now::at_secs(0));
        ledger.grant("my_app", addr, &note("bob"), Lifetime::from_secs(60).unwrap(), Now::at_secs(0));
        let status = status("nftables", &live(), &names(), 128, Some((&ledger, Now::at_secs(10))));
        let rows: Vec<_> = status
            .grants
            .iter()
            .filter(|row| row.kind == Kind::Service)
            .map(|row| (row.by.as_str(), row.expires_in_s))
            .collect();
        assert_eq!(rows, [("alice", Some(3_599.2)), ("bob", Some(50.0))]);
    }
}
