//! Settings as far as the rules in force tell them, for a question that must be answered while the configuration cannot
//! be read. They guard nothing: what is not in the kernel is as where nothing is said.

use std::net::IpAddr;

use super::bare;
use super::status::{self, Service};
use crate::backend::{BackendError, Firewall};
use crate::config::{Alone, App, Destination, Settings, parse};
use crate::ruleset::allow::key_address;
use crate::ruleset::diff::Live;
use crate::ruleset::expr::{Expr, Verdict};
use crate::ruleset::iptables::names;
use crate::ruleset::model::ONCE_SETS;
use crate::ruleset::plan::app_set;
use crate::units::{Family, IfName, PortRange, Protocol, Protocols};

/// What every configuration must say; none of these paths and keys opens anything.
const FORM: &str = "global:\n  http_post_path: /not-known-1\n  https_post_path: /not-known-2\n  interface_ext: none\n\
                    app:\n  port: 1\n  duration: 60\n  access_key_http: [not-known-3]\n  access_key_https: [not-known-4]\n";

/// Reads them; without apps, or none, where nothing of ours is in force.
///
/// # Errors
/// [`BackendError`] when the rules in force cannot be read.
pub fn settings() -> Result<Option<Settings>, BackendError> {
    let mut firewall = Firewall::in_place()?;
    let live = firewall.read()?.unwrap_or_default();
    let interfaces = match &firewall {
        Firewall::Iptables(iptables) => {
            let tables = iptables.seen().listings.iter().filter_map(|listing| listing.tables.get("mangle"));
            let gate = names::chain("gate_here");
            let rules = tables.filter_map(|table| table.chains.get(&gate)).flatten();
            interfaces(rules.filter_map(|rule| rule.split_once("-i ")?.1.split(' ').next()))
        }
        Firewall::Nftables(_) => {
            let ext = live.elements.get("ext").into_iter().flatten();
            let names: Vec<String> = ext.filter_map(|(key, _)| text(key)).collect();
            interfaces(names.iter().map(String::as_str))
        }
    };
    Ok(of(&live, interfaces))
}

fn interfaces<'n>(names: impl Iterator<Item = &'n str>) -> Vec<IfName> {
    let mut found: Vec<IfName> = names.filter_map(|name| name.parse().ok()).collect();
    found.sort();
    found.dedup();
    found
}

fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8(bytes.get(..end)?.to_vec()).ok()
}

/// What a listing says; names of apps are as the kernel has them.
fn of(live: &Live, interface_ext: Vec<IfName>) -> Option<Settings> {
    let mut settings = parse("recovered", FORM, None, &Alone).ok()?.settings;
    let form = settings.apps.pop()?;
    settings.global.interface_ext = interface_ext;
    // Who is in front, and at which ports, rules do not tell.
    let fronted = live.elements.contains_key("proxy_4");
    let has = |name: &str| live.elements.contains_key(name) || live.ruleset.set(name).is_some();
    // Sets of both steps are there without steps, too; the chains are not, and iptables has no such sets then.
    let heard = match live.ruleset.chain("gate") {
        Some(_) => live.ruleset.chain("step2_gate").is_some(),
        None => has("step2_4"),
    };
    settings.global.steps = heard && !fronted;
    let slugs = status::slugs(live);
    if let Some(slug) = slugs.first() {
        settings.global.ipv6_prefix = bare::prefix(live, &app_set(slug, Family::V6));
    }
    let ext = &settings.global.interface_ext;
    settings.apps = slugs.iter().filter_map(|slug| app(live, slug, &form, ext)).collect();
    Some(settings)
}

fn app(live: &Live, slug: &str, form: &App, interface_ext: &[IfName]) -> Option<App> {
    let services = status::services(live, slug);
    let ports = |protocol: Protocol| {
        let of = services.iter().filter(move |service| service.protocol == protocol.name());
        of.filter_map(|Service { first, last, .. }| PortRange::new(*first, *last).ok())
    };
    let protocol = match (ports(Protocol::Tcp).next(), ports(Protocol::Udp).next()) {
        (Some(_), Some(_)) => Protocols::Both,
        (Some(_), None) => Protocols::Tcp,
        (None, Some(_)) => Protocols::Udp,
        (None, None) => return None,
    };
    let ports = match protocol {
        Protocols::Udp => ports(Protocol::Udp).collect(),
        Protocols::Tcp | Protocols::Both => ports(Protocol::Tcp).collect(),
    };
    let has_chain = |name: String| live.ruleset.chain(&name).is_some();
    let once = Family::BOTH.iter().any(|family| {
        let name = format!("{ONCE_SETS}{slug}_{}", family.digit());
        live.elements.contains_key(&name) || live.ruleset.set(&name).is_some()
    });
    let destination = lan_host(live, slug);
    Some(App {
        name: slug.parse().ok()?,
        slug: slug.to_owned(),
        ports,
        protocol,
        masquerade: destination.is_some() && has_chain(format!("snat_{slug}")),
        destination: match destination {
            None => Destination::Local,
            Some((host, None)) => Destination::Host(host),
            Some((host, Some(port))) => Destination::HostPort((host, port).into()),
        },
        interface_ext: interface_ext.to_vec(),
        once,
        ..form.clone()
    })
}

/// The LAN host whose gate asks for the app's grants, and its port where that is a single one.
fn lan_host(live: &Live, slug: &str) -> Option<(IpAddr, Option<u16>)> {
    let asks = |expr: &Expr| match expr {
        Expr::Lookup { set, .. } => Family::BOTH.iter().any(|&family| *set == app_set(slug, family)),
        _ => false,
    };
    for family in Family::BOTH {
        let len = usize::from(family.bits() / 8);
        let map = live.elements.get(&format!("lan_{}", family.digit())).into_iter().flatten();
        for (key, element) in map {
            let Some(Verdict::Goto(chain)) = &element.verdict else { continue };
            let Some(chain) = live.ruleset.chain(chain) else { continue };
            if !chain.rules.iter().flat_map(|rule| &rule.exprs).any(asks) {
                continue;
            }
            let host = key_address(key.get(..len)?)?;
            let port = status::service_key(key.get(len..)?).map(|(_, port)| port);
            return Some((host, port.filter(|_| element.last.is_none())));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::ruleset::layout::Options;
    use crate::ruleset::model::Content;
    use crate::ruleset::plan::plan;

    #[test]
    fn apps_ports_interfaces_and_lan_hosts_are_read_from_rules() {
        let text = "global:\n  interface_ext: [eth0, wan1]\n  interface_int: eth1\n  http_post_path: /a-path\n  https_post_path: /b-path\n  ipv6_prefix: 64\n\
                    My-App:\n  port: [22, \"6000-6010\"]\n  protocol: both\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [other-secret]\n\
                    rdp:\n  port: 3389\n  destination: 10.0.0.5:3390\n  once: true\n  duration: 1h\n  access_key_http: [third-secret]\n  access_key_https: [fourth-secret]\n";
        let wanted = parse("x", text, None, &Alone).unwrap().settings;
        let port = NonZeroU16::MIN;
        let options = Options { http_port: port, https_port: port, inner_header: true, log: true };
        let ruleset = plan(&wanted, options);
        let mut live = Live::default();
        for set in &ruleset.sets {
            if let Content::Planned(planned) = &set.content {
                live.elements.insert(set.name.clone(), planned.clone());
            }
        }
        live.ruleset = ruleset;
        let ext = interfaces(["eth0", "wan1"].into_iter());
        let found = of(&live, ext.clone()).unwrap();
        assert_eq!((found.global.ipv6_prefix, found.global.steps), (64, true));
        let [first, second] = found.apps.as_slice() else { panic!("{:?}", found.apps) };
        assert_eq!((first.slug.as_str(), first.services()), ("my_app", wanted.apps[0].services()));
        assert_eq!((first.destination, first.once), (Destination::Local, false));
        assert_eq!((second.destination, second.once), (wanted.apps[1].destination, true));
        assert!(second.masquerade && first.interface_ext == ext);
        assert!(of(&Live::default(), Vec::new()).unwrap().apps.is_empty());

        let quick = "global: {interface_ext: eth0, steps: off}\nssh: {port: 22, sequence: {knocks: [1, 5], duration: 1h}}\n";
        let wanted = parse("x", quick, None, &Alone).unwrap().settings;
        live.ruleset = plan(&wanted, options);
        assert!(!of(&live, Vec::new()).unwrap().global.steps);
    }
}
