//! Apps whose grants end with the first connection.

use super::render::{CHAIN, Renderer};
use super::template::{TemplateError, fill};
use crate::config::App;
use crate::ruleset::knocking::LOG_USED;
use crate::ruleset::layout::Segment;
use crate::units::{Family, Protocol};

const SETS: &str = include_str!("../../../nft-templates/once-sets.nft");
const TRIED: &str = include_str!("../../../nft-templates/tried-sets.nft");
const AWAITED: &str = include_str!("../../../nft-templates/awaited-sets.nft");
const SYN: &str = "tcp flags & (fin|syn|rst|ack) == syn ";
const SYN_ACK: &str = "tcp flags & (fin|syn|rst|ack) == (syn|ack) ";

impl Renderer<'_> {
    pub(super) fn once_sets(&self) -> Result<String, TemplateError> {
        let mut out = String::new();
        for app in self.settings().apps.iter().filter(|app| app.once) {
            out += &fill(SETS, &[("slug", &app.slug)])?;
            if has_tcp(app) {
                out += &fill(TRIED, &[("slug", &app.slug)])?;
            }
        }
        if self.with_handshake().next().is_some() {
            out += AWAITED;
        }
        Ok(out)
    }

    fn with_handshake(&self) -> impl Iterator<Item = &App> {
        self.settings().apps.iter().filter(|app| app.once && has_tcp(app))
    }

    /// The connections there are and those on the way there; where first packets are met, what makes a grant into one.
    /// Without a protocol, it is any of the app's.
    pub(super) fn once_rules(
        &self,
        begin: &str,
        app: &App,
        families: &[Family],
        (side, protocol, first): (&str, Option<Protocol>, bool),
        action: &str,
    ) -> String {
        let slug = &app.slug;
        let rule = |text: String| format!("\t\t{begin}{text}{action} comment \"ka:once:{slug}\"\n");
        let known = |&family: &Family| {
            let n = family.digit();
            rule(format!("{} @once_{slug}_{n} ", end(family, side)))
        };
        let mut out: String = families.iter().map(known).collect();
        let trying = || families.iter().flat_map(|&family| self.trying(app, family, side));
        let sets = self.sets_of(app);
        match (protocol, first) {
            (Some(Protocol::Udp), false) => {}
            (Some(Protocol::Tcp) | None, false) => out.extend(trying().map(rule)),
            (Some(Protocol::Udp) | None, true) => {
                out.extend(sets.iter().map(|at| rule(self.granted(at) + &self.used_up(app, at, false))));
            }
            (Some(Protocol::Tcp), true) => {
                out.extend(sets.iter().map(|at| self.too_early(begin, app, at)));
                out.extend(sets.iter().map(|at| {
                    let (granted, end, n) = (self.granted(at), end(at.0, "saddr"), at.0.digit());
                    rule(format!("{SYN}{granted}update @tried_{slug}_{n} {{ {end} timeout 3m }} "))
                }));
                out.extend(sets.iter().map(|at| {
                    let (granted, end, n) = (self.granted(at), end(at.0, "saddr"), at.0.digit());
                    let proven = format!("{end} @tried_{slug}_{n} {end} . tcp ackseq @awaited_{n} {granted}");
                    rule(format!("tcp flags & (syn|rst|ack) == ack {proven}{}", self.used_up(app, at, true)))
                }));
                out.extend(trying().map(|text| rule(format!("tcp flags & rst != 0 {text}"))));
            }
        }
        out
    }

    /// Every set of grants.
    fn sets_of(&self, app: &App) -> Vec<(Family, String)> {
        let mut stems = vec![(format!("app_{}", app.slug), app.families())];
        stems.extend(self.layout.knocking.of_app(app).map(|grants| (grants.stem.clone(), grants.families)));
        let sets = |(stem, families): &(String, &[Family])| -> Vec<(Family, String)> {
            families.iter().map(|&family| (family, format!("{stem}_{}", family.digit()))).collect()
        };
        stems.iter().flat_map(sets).collect()
    }

    fn granted(&self, (family, set): &(Family, String)) -> String {
        format!("{} saddr {}@{set} ", ip(*family), self.v6_mask(*family))
    }

    /// Those who begin while their grant stands.
    fn trying(&self, app: &App, family: Family, side: &str) -> Vec<String> {
        if !has_tcp(app) {
            return Vec::new();
        }
        let (slug, n, mask) = (&app.slug, family.digit(), self.v6_mask(family));
        let (ip, end) = (ip(family), end(family, side));
        let sets = self.sets_of(app).into_iter().filter(|(of, _)| *of == family);
        sets.map(|(_, set)| format!("{end} @tried_{slug}_{n} {ip} {side} {mask}@{set} ")).collect()
    }

    /// First packets with data, once or once per length of the TCP header.
    fn too_early(&self, begin: &str, app: &App, at: &(Family, String)) -> String {
        let granted = self.granted(at);
        let rule = |words: &str, base: &str, bit: usize| {
            format!(
                "\t\t{begin}{SYN}{words}{granted}@{base},{bit},8 >= 0 counter drop comment \"ka:drop:early:{}\"\n",
                app.slug
            )
        };
        if self.layout.options.inner_header {
            return rule("", "ih", 0);
        }
        (5..=15).map(|words| rule(&format!("tcp doff {words} "), "th", words * 32)).collect()
    }

    /// Ends every grant of the client's, and keeps the connection.
    fn used_up(&self, app: &App, (family, _): &(Family, String), handshake: bool) -> String {
        let (slug, n, end) = (&app.slug, family.digit(), end(*family, "saddr"));
        let address = format!("{} saddr {}", ip(*family), self.v6_mask(*family));
        let here = self.sets_of(app).into_iter().filter(|(of, _)| of == family);
        let forget: String = here.map(|(_, set)| format!("delete @{set} {{ {address}}} ")).collect();
        let tried = if handshake { format!("delete @tried_{slug}_{n} {{ {end} }} ") } else { String::new() };
        format!(
            "update @once_{slug}_{n} {{ {end} timeout {}s }} {forget}{tried}{}",
            app.duration.as_secs(),
            self.log(LOG_USED, slug)
        )
    }

    /// Those who began and were too late, where established connections live on.
    pub(super) fn losers(&self, segment: &Segment, interface: impl Fn(&App) -> String) -> String {
        let mut out = String::new();
        for app in self.layout.apps(segment).filter(|app| app.once && segment.protocol == Protocol::Tcp) {
            for &family in app.families() {
                let set = format!("tried_{}_{}", app.slug, family.digit());
                let (begin, end) = (interface(app), end(family, "saddr"));
                out += &format!(
                    "\t\t{begin}{end} @{set} update @{set} {{ {end} timeout 3m }} counter drop comment \"ka:drop:late:{}\"\n",
                    app.slug
                );
            }
        }
        out
    }

    /// Where answers to first packets are looked at, of this host.
    pub(super) fn answers_here(&self) -> String {
        if self.with_handshake().next().is_some() { answer("") } else { String::new() }
    }

    /// The same, of connections and hosts that are forwarded.
    pub(super) fn answers_forwarded(&self) -> String {
        if self.with_handshake().next().is_none() {
            return String::new();
        }
        let mut hosts: Vec<_> = self.with_handshake().filter_map(|app| app.destination.host()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let of_host = |host| answer(&format!("ct state untracked {} saddr {host} ", ip(Family::of(host))));
        answer("ct direction reply ") + &hosts.into_iter().map(of_host).collect::<String>()
    }

    /// What clients have to acknowledge.
    pub(super) fn awaited_chains(&self) -> Result<String, TemplateError> {
        let mut rules = String::new();
        for app in self.with_handshake() {
            for &family in app.families() {
                let (slug, n, end) = (&app.slug, family.digit(), end(family, "daddr"));
                rules +=
                    &format!("\t\t{end} @tried_{slug}_{n} jump awaited_{n} comment \"ka:once:{slug}\"\n");
            }
        }
        if rules.is_empty() {
            return Ok(String::new());
        }
        let mut out = fill(CHAIN, &[("name", "awaits"), ("rules", &rules)])?;
        for family in Family::BOTH {
            let (n, end) = (family.digit(), end(family, "daddr"));
            let remember =
                |flip: u32| format!("update @awaited_{n} {{ {end} . tcp sequence ^ {flip:#x} timeout 3m }}");
            let mut rules: String = (1..32)
                .map(|bits| u32::MAX >> (32 - bits))
                .map(|flip| {
                    let last = format!("tcp sequence & {flip:#x} == {:#x}", flip >> 1);
                    format!("\t\t{last} {} return comment \"ka:once:awaited\"\n", remember(flip))
                })
                .collect();
            rules += &format!("\t\tmeta l4proto tcp {} comment \"ka:once:awaited\"\n", remember(u32::MAX));
            out += &fill(CHAIN, &[("name", &format!("awaited_{n}")), ("rules", &rules)])?;
        }
        Ok(out)
    }
}

fn has_tcp(app: &App) -> bool {
    app.protocol.each().contains(&Protocol::Tcp)
}

fn answer(begin: &str) -> String {
    format!("\t\t{begin}{SYN_ACK}jump awaits comment \"ka:once:answer\"\n")
}

fn end(family: Family, side: &str) -> String {
    let port = if side == "saddr" { "sport" } else { "dport" };
    format!("meta l4proto . {} {side} . th {port}", ip(family))
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
