use std::net::IpAddr;

use crate::ruleset::expr::Verdict;
use crate::ruleset::layout::{Layout, Segment};
use crate::ruleset::model::{ADOPTED_SET, Content, Element, Elements, KeyPart, Set, SetFlags, Value};
use crate::units::{Family, IfName};

use super::default_input::{self, ECHO_SET};
use super::replies::{OWN_SET, SPOKEN_BY_SET, SPOKEN_SET};
use super::step1::{FLOW_SET, METER_SET, SEEN_SET};

/// Room in each set of grants, in addresses.
pub const GRANTS: u32 = 1_048_576;
/// Room in each set that strangers' or half-known clients' packets fill.
pub(super) const CLIENTS: u32 = 65_536;

/// The set of an app's grants.
#[must_use]
pub fn app_set(slug: &str, family: Family) -> String {
    format!("app_{slug}_{}", family.digit())
}

/// The set of networks that may always reach an app; slug `all` stands for every app.
#[must_use]
pub fn allow_set(slug: &str, family: Family) -> String {
    format!("allow_{slug}_{}", family.digit())
}

/// The set of addresses that may begin step 2.
#[must_use]
pub fn step2_set(family: Family) -> String {
    format!("step2_{}", family.digit())
}

pub(super) fn sets(layout: &Layout<'_>) -> Vec<Set> {
    let mut out = vec![interfaces("ext", layout.ext.iter().copied())];
    for app in &layout.settings.apps {
        if let Some(name) = layout.own_interfaces(app) {
            out.push(interfaces(&name, app.interface_ext.iter()));
        }
    }
    for family in Family::BOTH {
        out.push(networks(&allow_set("all", family), family));
    }
    for family in Family::BOTH {
        out.push(clients(step2_set(family), family, CLIENTS));
    }
    for family in Family::BOTH {
        out.push(from_packets(SEEN_SET, vec![address(family)], family));
    }
    for family in Family::BOTH {
        out.push(from_packets(METER_SET, vec![address(family)], family));
    }
    for family in Family::BOTH {
        out.push(from_packets(SPOKEN_SET, vec![address(family), KeyPart::Port], family));
    }
    for family in Family::BOTH {
        // A place for every client that a set of grants has room for.
        let set = from_packets(SPOKEN_BY_SET, vec![address(family)], family);
        out.push(Set { size: Some(GRANTS), ..set });
    }
    for family in Family::BOTH {
        out.push(from_packets(OWN_SET, vec![address(family)], family));
    }
    out.extend(super::behind::sets(layout));
    out.extend(super::backend::sets(layout));
    for family in Family::BOTH {
        let key = [KeyPart::Protocol, address(family), KeyPart::Port, address(family), KeyPart::Port];
        out.push(from_packets(ADOPTED_SET, key.to_vec(), family));
    }
    if default_input::wanted(layout) {
        for family in Family::BOTH {
            out.push(from_packets(ECHO_SET, vec![address(family)], family));
        }
    }
    if layout.settings.global.step1_segments > 1 {
        for family in Family::BOTH {
            out.push(from_packets(FLOW_SET, vec![address(family), KeyPart::Port], family));
        }
    }
    for app in &layout.settings.apps {
        for family in Family::BOTH {
            let mut grants = clients(app_set(&app.slug, family), family, GRANTS);
            grants.flags.dynamic = app.once;
            out.push(grants);
        }
        for family in Family::BOTH {
            out.push(networks(&allow_set(&app.slug, family), family));
        }
    }
    out.extend(maps(layout));
    out.extend(super::once::sets(layout));
    out.extend(super::knock::sets(layout));
    out
}

fn maps(layout: &Layout<'_>) -> Vec<Set> {
    let service = vec![KeyPart::Protocol, KeyPart::Port];
    let mut out = vec![verdicts("services", service, &layout.services, "svc")];
    for protocol in [crate::units::Protocol::Tcp, crate::units::Protocol::Udp] {
        let of_protocol = |all: &[Segment]| -> Vec<Segment> {
            all.iter().filter(|segment| segment.protocol == protocol).cloned().collect()
        };
        let port = || vec![KeyPart::Port];
        out.push(verdicts(&format!("reply_{protocol}"), port(), &of_protocol(&layout.services), "rep"));
        out.push(verdicts(&format!("in_{protocol}"), port(), &of_protocol(&layout.services), "inp"));
        if layout.settings.global.mark.is_some() {
            out.push(verdicts(&format!("mark_{protocol}"), port(), &of_protocol(&layout.local), "mrk"));
        }
    }
    for family in Family::BOTH {
        let of_family: Vec<Segment> = layout
            .lan
            .iter()
            .filter(|segment| segment.host.map(Family::of) == Some(family))
            .cloned()
            .collect();
        if of_family.is_empty() {
            continue;
        }
        let key = || vec![address(family), KeyPart::Protocol, KeyPart::Port];
        out.push(verdicts(&format!("lan_{}", family.digit()), key(), &of_family, "lan"));
        out.push(verdicts(&format!("lan_reply_{}", family.digit()), key(), &of_family, "lrp"));
        let name = format!("lan_forged_{}", family.digit());
        out.push(map(&name, key(), &of_family, |_| "forged".to_owned()));
    }
    out
}

pub(super) fn address(family: Family) -> KeyPart {
    match family {
        Family::V4 => KeyPart::Ipv4,
        Family::V6 => KeyPart::Ipv6,
    }
}

fn interfaces<'a>(name: &str, names: impl Iterator<Item = &'a IfName>) -> Set {
    let elements = names.map(|name| (interface_key(name), Element::default())).collect();
    Set {
        name: name.to_owned(),
        key: vec![KeyPart::IfName],
        value: Value::Nothing,
        flags: SetFlags::default(),
        size: None,
        content: Content::Planned(elements),
    }
}

/// The key of an interface in a set of their names.
#[must_use]
pub fn interface_key(name: &IfName) -> Vec<u8> {
    let mut key = name.as_str().as_bytes().to_vec();
    key.resize(KeyPart::IfName.length(), 0);
    key
}

fn clients(name: String, family: Family, size: u32) -> Set {
    Set {
        name,
        key: vec![address(family)],
        value: Value::Nothing,
        flags: SetFlags { timeout: true, ..SetFlags::default() },
        size: Some(size),
        content: Content::Living,
    }
}

fn networks(name: &str, family: Family) -> Set {
    Set {
        name: name.to_owned(),
        key: vec![address(family)],
        value: Value::Nothing,
        flags: SetFlags { interval: true, timeout: true, ..SetFlags::default() },
        size: None,
        content: Content::Living,
    }
}

pub(super) fn from_packets(stem: &str, key: Vec<KeyPart>, family: Family) -> Set {
    Set {
        name: format!("{stem}_{}", family.digit()),
        key,
        value: Value::Nothing,
        flags: SetFlags { dynamic: true, timeout: true, ..SetFlags::default() },
        size: Some(CLIENTS),
        content: Content::Living,
    }
}

/// A map from segments to the chains `<stem>_<segment>`.
pub(super) fn verdicts(name: &str, key: Vec<KeyPart>, segments: &[Segment], stem: &str) -> Set {
    map(name, key, segments, |segment| format!("{stem}_{}", segment.name()))
}

/// A map from segments to chains; ranges only where there are any,
/// because concatenated ranges need Linux 5.6.
fn map(name: &str, key: Vec<KeyPart>, segments: &[Segment], chain: impl Fn(&Segment) -> String) -> Set {
    let ranged = segments.iter().any(|segment| !segment.ports.is_single());
    let elements: Elements = segments
        .iter()
        .map(|segment| {
            let at = |port| segment_key(&key, segment, port);
            let element = Element {
                last: (!segment.ports.is_single()).then(|| at(segment.ports.last())),
                verdict: Some(Verdict::Goto(chain(segment))),
                ..Element::default()
            };
            (at(segment.ports.first()), element)
        })
        .collect();
    Set {
        name: name.to_owned(),
        key,
        value: Value::Verdict,
        flags: SetFlags { interval: ranged, ..SetFlags::default() },
        size: None,
        content: Content::Planned(elements),
    }
}

fn segment_key(parts: &[KeyPart], segment: &Segment, port: u16) -> Vec<u8> {
    let single = parts.len() == 1;
    let mut key = Vec::new();
    for part in parts {
        match part {
            KeyPart::Protocol => key.push(segment.protocol.number()),
            KeyPart::Port => key.extend(port.to_be_bytes()),
            KeyPart::Mark | KeyPart::UdpLength | KeyPart::TcpAck => {}
            KeyPart::Ipv4 | KeyPart::Ipv6 | KeyPart::IfName => match segment.host {
                Some(IpAddr::V4(v4)) => key.extend(v4.octets()),
                Some(IpAddr::V6(v6)) => key.extend(v6.octets()),
                None => {}
            },
        }
        if !single {
            key.resize(key.len().next_multiple_of(4), 0);
        }
    }
    key
}
