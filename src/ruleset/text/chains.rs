//! The small chains that look a client up in sets.

use std::net::{IpAddr, Ipv6Addr};

use super::render::{CHAIN, Renderer, Way};
use super::template::{TemplateError, fill};
use crate::config::App;
use crate::ruleset::layout::Segment;
use crate::units::{Family, Network, Protocol};

const CLIENT: &str = include_str!("../../../nft-templates/client.nft");

impl Renderer<'_> {
    pub(super) fn segment_chains(
        &self,
        segments: &[Segment],
        stem: &str,
        way: Way,
        action: &str,
        otherwise: Option<&str>,
    ) -> Result<String, TemplateError> {
        segments
            .iter()
            .map(|segment| {
                let (tcp, udp) = (segment.protocol == Protocol::Tcp, segment.protocol == Protocol::Udp);
                let let_in = match stem {
                    "svc" | "lan" if udp => action.replace("accept", "goto spoke"),
                    "svc" => action.replace("accept", "goto passed"),
                    _ => action.to_owned(),
                };
                let clients = match stem {
                    "rep" | "inp" | "bho" | "bhi" => self.layout.here(segment),
                    _ => segment.clone(),
                };
                let mut rules = match stem {
                    "rep" | "lrp" => jump("adopted_out"),
                    _ => String::new(),
                };
                if tcp && matches!(stem, "rep" | "lrp") {
                    rules += "\t\tct state new counter drop comment \"ka:cut:stray\"\n";
                }
                let first = matches!(stem, "svc" | "lan").then_some(segment.protocol);
                rules += &self.clients(&clients, way, first, &let_in)?;
                if self.layout.keeps_established(segment) && !clients.apps.is_empty() {
                    if first.is_some() {
                        rules += &self.losers(segment, |app| self.interface(app, way).unwrap_or_default());
                    }
                    // The first packet of another connection between the same ports is established, too.
                    let goes_on =
                        if tcp && !matches!(stem, "rep" | "lrp") { "tcp flags & syn == 0 " } else { "" };
                    rules += &format!("\t\t{goes_on}ct state established {action} comment \"ka:keep\"\n");
                }
                match stem {
                    "svc" => rules += &jump("adopted_gate"),
                    "lan" | "inp" | "mrk" => rules += &jump("adopted_in"),
                    _ => {}
                }
                if let Some(what) = otherwise {
                    rules += &self.drop_rest(segment, way, what);
                }
                fill(CHAIN, &[("name", &format!("{stem}_{}", segment.name())), ("rules", &rules)])
            })
            .collect()
    }

    pub(super) fn interface(&self, app: &App, way: Way) -> Option<String> {
        let side = if way == Way::In { "iifname" } else { "oifname" };
        self.layout.own_interfaces(app).map(|set| format!("{side} @{set} "))
    }

    fn clients(
        &self,
        segment: &Segment,
        way: Way,
        first: Option<Protocol>,
        action: &str,
    ) -> Result<String, TemplateError> {
        let side = if way == Way::In { "saddr" } else { "daddr" };
        let log = first.filter(|_| segment.host.is_none());
        let mut out = String::new();
        for app in self.layout.apps(segment) {
            let interface = self.interface(app, way).filter(|_| way == Way::In).unwrap_or_default();
            let met = (side, Some(segment.protocol), first.is_some());
            out += &self.client_rules(&interface, app, app.families(), met, action)?;
            out += &self.allow_rules(&interface, &app.slug, app.families(), (side, log), action)?;
        }
        out += &self.allow_rules("", "all", &self.layout.families(segment), (side, log), action)?;
        Ok(out)
    }

    pub(super) fn client_rules(
        &self,
        interface: &str,
        app: &App,
        families: &[Family],
        (side, protocol, first): (&str, Option<Protocol>, bool),
        action: &str,
    ) -> Result<String, TemplateError> {
        let slug = &app.slug;
        if app.once {
            return Ok(self.once_rules(interface, app, families, (side, protocol, first), action));
        }
        let mut out = String::new();
        for &family in families {
            let set = format!("app_{slug}_{}", family.digit());
            let mask = self.v6_mask(family);
            out += &client(interface, family, side, &mask, &set, action, &format!("grant:{slug}"))?;
        }
        for grants in self.layout.knocking.of_app(app) {
            for &family in grants.families {
                let (mask, set) = (self.v6_mask(family), grants.set(family));
                let what = format!("knocked:{slug}");
                out += &client(interface, family, side, &mask, &set, action, &what)?;
            }
        }
        Ok(out)
    }

    /// With `log`, first packets of that protocol are written down, where that is wanted.
    pub(super) fn allow_rules(
        &self,
        interface: &str,
        slug: &str,
        families: &[Family],
        (side, log): (&str, Option<Protocol>),
        action: &str,
    ) -> Result<String, TemplateError> {
        let mut out = String::new();
        for &family in families {
            let set = format!("allow_{slug}_{}", family.digit());
            out.extend(log.and_then(|protocol| self.log_transient(protocol, family, &set, interface)));
            out += &client(interface, family, side, "", &set, action, &format!("allow:{slug}"))?;
        }
        Ok(out)
    }

    pub(super) fn v6_mask(&self, family: Family) -> String {
        let len = self.settings().global.ipv6_prefix;
        if family == Family::V4 || len >= 128 {
            return String::new();
        }
        format!("& {} ", ones(len))
    }

    /// The mask of an IPv6 site.
    pub(super) fn site(&self) -> String {
        ones(self.settings().global.ipv6_prefix.min(64))
    }

    fn drop_rest(&self, segment: &Segment, way: Way, what: &str) -> String {
        let line = |interface: &str| {
            format!("\t\t{interface}counter drop comment \"ka:{what}:{}\"\n", segment.name())
        };
        let own: Option<Vec<String>> =
            self.layout.apps(segment).map(|app| self.interface(app, way)).collect();
        match own {
            None => line(""),
            Some(interfaces) => {
                let own = interfaces.iter().map(|interface| line(interface));
                let spoken = [
                    "ip daddr . udp dport @spoken_4 ".to_owned(),
                    "ip6 daddr . udp dport @spoken_6 ".to_owned(),
                    "meta l4proto udp ip daddr @spoken_by_4 ".to_owned(),
                    format!("meta l4proto udp ip6 daddr & {} @spoken_by_6 ", self.site()),
                ];
                let others = spoken.iter().filter(|_| way == Way::Out && segment.protocol == Protocol::Udp);
                own.chain(others.map(|end| line(end))).collect()
            }
        }
    }

    /// Like those to LAN hosts, for clients to whom the service began to talk by itself.
    pub(super) fn turned_lan_rules(&self) -> String {
        let adopted = [(Family::V4, "ip", 4), (Family::V6, "ip6", 6)]
            .into_iter()
            .filter(|(family, ..)| self.layout.lan.iter().any(|s| s.host.map(Family::of) == Some(*family)))
            .map(|(_, ip, n)| {
                format!(
                    "\t\tiifname @ext meta l4proto . {ip} saddr . th sport . {ip} daddr . th dport @adopted_{n} {ip} daddr . meta l4proto . th dport vmap @lan_{n} comment \"ka:adopted:turned\"\n"
                )
            });
        let by = [(Family::V4, "ip", 4), (Family::V6, "ip6", 6)]
            .into_iter()
            .filter(|(family, ..)| self.layout.lan.iter().any(|s| s.host.map(Family::of) == Some(*family)))
            .map(|(_, ip, n)| {
                let mask = if n == 6 { format!("& {} ", self.site()) } else { String::new() };
                format!(
                    "\t\tiifname @ext meta l4proto udp {ip} saddr {mask}@spoken_by_{n} {ip} daddr . meta l4proto . th dport vmap @lan_{n} comment \"ka:turned\"\n"
                )
            });
        [(Family::V4, "ip", 4), (Family::V6, "ip6", 6)]
            .into_iter()
            .filter(|(family, ..)| self.layout.lan.iter().any(|s| s.host.map(Family::of) == Some(*family)))
            .map(|(_, ip, n)| {
                format!(
                    "\t\tiifname @ext {ip} saddr . udp sport @spoken_{n} {ip} daddr . meta l4proto . th dport vmap @lan_{n} comment \"ka:turned\"\n"
                )
            })
            .chain(by)
            .chain(adopted)
            .collect()
    }

    pub(super) fn lan_rules(&self, interface: &str, side: &str, port: &str, map: &str, what: &str) -> String {
        let any = |family| self.layout.lan.iter().any(|s| s.host.map(Family::of) == Some(family));
        [(Family::V4, "ip"), (Family::V6, "ip6")]
            .into_iter()
            .filter(|&(family, _)| any(family))
            .map(|(family, ip)| {
                format!(
                    "\t\t{interface}{ip} {side} . meta l4proto . th {port} vmap @{map}_{} comment \"ka:{what}\"\n",
                    family.digit()
                )
            })
            .collect()
    }
}

/// The mask of that many bits.
fn ones(len: u8) -> String {
    let all = IpAddr::V6(Ipv6Addr::from(u128::MAX));
    Network::around(all, len).map_or_else(|_| String::new(), |mask| mask.first().to_string())
}

fn jump(chain: &str) -> String {
    format!("\t\tjump {chain} comment \"ka:adopted\"\n")
}

fn client(
    interface: &str,
    family: Family,
    side: &str,
    mask: &str,
    set: &str,
    action: &str,
    what: &str,
) -> Result<String, TemplateError> {
    let ip = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    fill(
        CLIENT,
        &[
            ("interface", interface),
            ("ip", ip),
            ("side", side),
            ("mask", mask),
            ("set", set),
            ("action", action),
            ("what", what),
        ],
    )
}
