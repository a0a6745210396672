//! Settings into the templates. Decides nothing that the templates could say themselves.

use std::net::IpAddr;

use super::template::{TemplateError, fill};
use crate::config::{App, Settings, Step1Reply};
use crate::ruleset::layout::{Layout, Options, Segment};
use crate::units::{Family, Network, PortRange, Protocol};

const TABLE: &str = include_str!("../../../nft-templates/table.nft");
const STEP1_SILENT: &str = include_str!("../../../nft-templates/step1-silent.nft");
const STEP1_HTTP: &str = include_str!("../../../nft-templates/step1-http.nft");
const APP_SETS: &str = include_str!("../../../nft-templates/app-sets.nft");
const MAP: &str = include_str!("../../../nft-templates/map.nft");
const CHAIN: &str = include_str!("../../../nft-templates/chain.nft");
const CLIENT: &str = include_str!("../../../nft-templates/client.nft");
const MARKS: &str = include_str!("../../../nft-templates/marks.nft");

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The ruleset that these settings want, as text for `nft -f`.
///
/// # Errors
/// [`TemplateError`] only if a template names something that does not exist.
pub fn render(settings: &Settings, options: Options) -> Result<String, TemplateError> {
    Renderer { layout: Layout::new(settings, options) }.table()
}

/// Which way the packets of a chain go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

struct Renderer<'a> {
    layout: Layout<'a>,
}

impl Renderer<'_> {
    fn settings(&self) -> &Settings {
        self.layout.settings
    }

    fn table(&self) -> Result<String, TemplateError> {
        let global = &self.settings().global;
        let counted = "counter accept";
        let marked = format!("{}counter accept", self.mark());
        let http_port = self.layout.options.http_port.to_string();
        let https_port = self.layout.options.https_port.to_string();
        let marks_in = if self.marks() {
            fill(
                MARKS,
                &[("http_port", &http_port), ("https_port", &https_port), ("mark", self.mark().trim())],
            )?
        } else {
            String::new()
        };
        fill(
            TABLE,
            &[
                ("interface_sets", &self.interface_sets()),
                ("allow_all_4", &elements(&global.allow, Family::V4)),
                ("allow_all_6", &elements(&global.allow, Family::V6)),
                ("flow_sets", &self.flow_sets()),
                ("app_sets", &self.app_sets()?),
                ("maps", &self.maps()?),
                ("step1", &self.step1()?),
                ("http_port", &http_port),
                ("https_port", &https_port),
                (
                    "service_chains",
                    &self.segment_chains(&self.layout.services, "svc", Way::In, counted, Some("drop"))?,
                ),
                ("to_lan", &self.lan_rules("iifname @ext ", "daddr", "dport", "lan", "lan")),
                (
                    "lan_chains",
                    &self.segment_chains(&self.layout.lan, "lan", Way::In, &marked, Some("drop"))?,
                ),
                ("from_lan", &self.lan_rules("", "saddr", "sport", "lan_reply", "replies:lan")),
                ("reply_chains", &{
                    let mut chains =
                        self.segment_chains(&self.layout.services, "rep", Way::Out, &marked, Some("cut"))?;
                    chains +=
                        &self.segment_chains(&self.layout.lan, "lrp", Way::Out, &marked, Some("cut"))?;
                    chains
                }),
                ("marks_in", &marks_in),
                ("marks_forwarded", &self.marks_forwarded()),
                ("marks_out", &self.marks_out()),
                ("mark_chains", &{
                    let action = format!("{}accept", self.mark());
                    if self.marks() {
                        self.segment_chains(&self.layout.local, "mrk", Way::In, &action, None)?
                    } else {
                        String::new()
                    }
                }),
                ("forwarding", &self.forwarding()?),
            ],
        )
    }

    fn marks(&self) -> bool {
        self.settings().global.mark.is_some()
    }

    /// `meta mark set … `, or nothing.
    fn mark(&self) -> String {
        match self.settings().global.mark {
            None => String::new(),
            Some(mark) if mark.mask() == u32::MAX => format!("meta mark set {:#x} ", mark.value()),
            Some(mark) => format!("meta mark set meta mark & {:#x} | {:#x} ", !mark.mask(), mark.value()),
        }
    }

    fn interface_sets(&self) -> String {
        let set = |name: &str, names: &mut dyn Iterator<Item = String>| {
            let names: Vec<String> = names.collect();
            format!("\tset {name} {{\n\t\ttype ifname\n\t\telements = {{ {} }}\n\t}}\n\n", names.join(", "))
        };
        let quoted = |name: &crate::units::IfName| format!("\"{name}\"");
        let mut out = set("ext", &mut self.layout.ext.iter().map(|name| quoted(name)));
        for app in &self.settings().apps {
            if let Some(name) = self.layout.own_interfaces(app) {
                out += &set(&name, &mut app.interface_ext.iter().map(quoted));
            }
        }
        out
    }

    fn flow_sets(&self) -> String {
        if self.settings().global.step1_segments == 1 {
            return String::new();
        }
        ["4", "6"]
            .map(|n| {
                format!(
                    "\tset step1_flow_{n} {{\n\t\ttype ipv{n}_addr . inet_service\n\t\tsize 65536\n\t\tflags dynamic, timeout\n\t}}\n\n"
                )
            })
            .concat()
    }

    fn app_sets(&self) -> Result<String, TemplateError> {
        self.settings()
            .apps
            .iter()
            .map(|app| {
                fill(
                    APP_SETS,
                    &[
                        ("slug", &app.slug),
                        ("allow_4", &elements(&app.allow, Family::V4)),
                        ("allow_6", &elements(&app.allow, Family::V6)),
                    ],
                )
            })
            .collect()
    }

    fn maps(&self) -> Result<String, TemplateError> {
        let mut out = map("services", "inet_proto . inet_service", &self.layout.services, "svc", |s| {
            format!("{} . {}", s.protocol, s.ports)
        })?;
        for protocol in PROTOCOLS {
            let of_protocol = |all: &[Segment]| -> Vec<Segment> {
                all.iter().filter(|segment| segment.protocol == protocol).cloned().collect()
            };
            let services = of_protocol(&self.layout.services);
            let by_port = |s: &Segment| s.ports.to_string();
            out += &map(&format!("reply_{protocol}"), "inet_service", &services, "rep", by_port)?;
            if self.marks() {
                let local = of_protocol(&self.layout.local);
                out += &map(&format!("mark_{protocol}"), "inet_service", &local, "mrk", by_port)?;
            }
        }
        for family in Family::BOTH {
            let hosts: Vec<Segment> =
                self.layout.lan.iter().filter(|s| s.host.map(Family::of) == Some(family)).cloned().collect();
            if hosts.is_empty() {
                continue;
            }
            let digit = family.digit();
            let key = format!("ipv{digit}_addr . inet_proto . inet_service");
            let by_host = |s: &Segment| {
                format!(
                    "{} . {} . {}",
                    s.host.map(|h| h.to_string()).unwrap_or_default(),
                    s.protocol,
                    s.ports
                )
            };
            out += &map(&format!("lan_{digit}"), &key, &hosts, "lan", by_host)?;
            out += &map(&format!("lan_reply_{digit}"), &key, &hosts, "lrp", by_host)?;
        }
        Ok(out)
    }

    fn step1(&self) -> Result<String, TemplateError> {
        let global = &self.settings().global;
        let silent = global.step1_reply == Step1Reply::Silent;
        let later = u32::from(global.step1_segments) - 1;
        let burst = 1 + later * if silent { 2 } else { 1 };
        let meter = global.step1_2_rate_limit_per_minute.saturating_mul(10).max(60).to_string();
        let flow = |n: &str, ip: &str| {
            format!(
                "\t\tupdate @step1_flow_{n} {{ {ip} saddr . tcp sport timeout 3s limit rate 1/minute burst {burst} packets }} comment \"ka:step1:flow\"\n"
            )
        };
        let segment = |action: &str| {
            if later == 0 {
                return String::new();
            }
            [("4", "ip"), ("6", "ip6")]
                .map(|(n, ip)| {
                    format!(
                        "\t\t{ip} saddr . tcp sport @step1_flow_{n} meta length <= {} {action} comment \"ka:step1:segment\"\n",
                        global.step1_max_bytes
                    )
                })
                .concat()
        };
        let flows = if later == 0 { String::new() } else { flow("4", "ip") + &flow("6", "ip6") };
        let port = self.layout.options.http_port.to_string();
        fill(
            if silent { STEP1_SILENT } else { STEP1_HTTP },
            &[
                ("http_port", &port),
                ("meter", &meter),
                ("flows", &flows),
                ("path_raw", &self.path("goto step1_path")),
                ("path_gate", &self.path("accept")),
                ("segments_raw", &segment("counter notrack accept")),
                ("segments_gate", &segment("accept")),
                ("segments_answering", &segment("counter accept")),
                ("payload_drop", &self.payload("@{base},{at},8 >= 0 counter drop", "drop:step1")),
            ],
        )
    }

    /// `POST <path> ` at the beginning of the data, 16 bytes a comparison.
    fn path(&self, action: &str) -> String {
        let global = &self.settings().global;
        let wanted = format!("POST {} ", global.http_post_path.expose());
        let mut pieces = format!("meta length <= {} ", global.step1_max_bytes);
        for (index, piece) in wanted.as_bytes().chunks(16).enumerate() {
            let hex: String = piece.iter().map(|byte| format!("{byte:02x}")).collect();
            pieces += &format!("@{{base}},{{at+{}}},{} 0x{hex} ", index * 128, piece.len() * 8);
        }
        self.payload(&(pieces + action), "step1:path")
    }

    /// A rule on the data of a TCP packet: once, or once per length of the TCP header.
    fn payload(&self, rule: &str, what: &str) -> String {
        let at_base = |base: &str, start: usize| {
            let mut out = String::new();
            let mut rest = rule;
            while let Some((before, after)) = rest.split_once("{base},{at") {
                let (offset, behind) = after.split_once('}').unwrap_or((after, ""));
                let offset: usize = offset.trim_start_matches('+').parse().unwrap_or(0);
                out += &format!("{before}{base},{}", start + offset);
                rest = behind;
            }
            out + rest
        };
        if self.layout.options.inner_header {
            return format!("\t\tmeta l4proto tcp {} comment \"ka:{what}\"\n", at_base("ih", 0));
        }
        (5..=15)
            .map(|words| {
                format!("\t\ttcp doff {words} {} comment \"ka:{what}\"\n", at_base("th", words * 32))
            })
            .collect()
    }

    fn segment_chains(
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
                let mut rules = self.clients(segment, way, action)?;
                if self.layout.keeps_established(segment) {
                    rules += &format!("\t\tct state established,related {action} comment \"ka:keep\"\n");
                }
                if let Some(what) = otherwise {
                    rules += &self.drop_rest(segment, way, what);
                }
                fill(CHAIN, &[("name", &format!("{stem}_{}", segment.name())), ("rules", &rules)])
            })
            .collect()
    }

    fn interface(&self, app: &App, way: Way) -> Option<String> {
        let side = if way == Way::In { "iifname" } else { "oifname" };
        self.layout.own_interfaces(app).map(|set| format!("{side} @{set} "))
    }

    fn clients(&self, segment: &Segment, way: Way, action: &str) -> Result<String, TemplateError> {
        let side = if way == Way::In { "saddr" } else { "daddr" };
        let mut out = String::new();
        for app in self.layout.apps(segment) {
            let interface = self.interface(app, way).unwrap_or_default();
            out += &self.client_rules(&interface, &app.slug, app.families(), side, action)?;
        }
        out += &allow_rules("", "all", &self.layout.families(segment), side, action)?;
        Ok(out)
    }

    fn client_rules(
        &self,
        interface: &str,
        slug: &str,
        families: &[Family],
        side: &str,
        action: &str,
    ) -> Result<String, TemplateError> {
        let mut out = String::new();
        for &family in families {
            let set = format!("app_{slug}_{}", family.digit());
            let mask = self.v6_mask(family);
            out += &client(interface, family, side, &mask, &set, action, &format!("grant:{slug}"))?;
        }
        Ok(out + &allow_rules(interface, slug, families, side, action)?)
    }

    fn v6_mask(&self, family: Family) -> String {
        let len = self.settings().global.ipv6_prefix;
        if family == Family::V4 || len >= 128 {
            return String::new();
        }
        let all_ones = IpAddr::V6(std::net::Ipv6Addr::from(u128::MAX));
        Network::around(all_ones, len).map_or_else(|_| String::new(), |mask| format!("& {} ", mask.first()))
    }

    fn drop_rest(&self, segment: &Segment, way: Way, what: &str) -> String {
        let line = |interface: &str| {
            format!("\t\t{interface}counter drop comment \"ka:{what}:{}\"\n", segment.name())
        };
        let own: Option<Vec<String>> =
            self.layout.apps(segment).map(|app| self.interface(app, way)).collect();
        match own {
            None => line(""),
            Some(interfaces) => interfaces.iter().map(|interface| line(interface)).collect(),
        }
    }

    fn lan_rules(&self, interface: &str, side: &str, port: &str, map: &str, what: &str) -> String {
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

    fn marks_forwarded(&self) -> String {
        if !self.marks() {
            return String::new();
        }
        PROTOCOLS
            .map(|protocol| {
                format!(
                    "\t\tiifname @ext ct direction original ct status dnat meta l4proto {protocol} ct original proto-dst vmap @mark_{protocol} comment \"ka:mark:forwarded\"\n"
                )
            })
            .concat()
    }

    fn marks_out(&self) -> String {
        if !self.marks() {
            return String::new();
        }
        let options = self.layout.options;
        [(options.http_port, "step1"), (options.https_port, "step2")]
            .map(|(port, step)| {
                format!("\t\ttcp sport {port} {}accept comment \"ka:mark:{step}\"\n", self.mark())
            })
            .concat()
    }

    fn forwarding(&self) -> Result<String, TemplateError> {
        let forwarded: Vec<_> = self.layout.forwarded().collect();
        if forwarded.is_empty() {
            return Ok(String::new());
        }
        let mut arriving = "\t\ttype nat hook prerouting priority dstnat - 10; policy accept;\n".to_owned();
        let mut leaving = "\t\ttype nat hook postrouting priority srcnat - 10; policy accept;\n".to_owned();
        let mut chains = String::new();
        for &(app, host) in &forwarded {
            let slug = &app.slug;
            let interfaces = self.layout.own_interfaces(app).unwrap_or_else(|| "ext".to_owned());
            for (protocol, ports) in each_port(app, &app.ports) {
                arriving += &format!(
                    "\t\tiifname @{interfaces} fib daddr type local {protocol} dport {ports} jump dnat_{slug} comment \"ka:dnat:{slug}\"\n"
                );
            }
            let (ip, to) = match (host, app.destination.port()) {
                (IpAddr::V4(_), None) => ("ip", host.to_string()),
                (IpAddr::V4(_), Some(port)) => ("ip", format!("{host}:{port}")),
                (IpAddr::V6(_), None) => ("ip6", host.to_string()),
                (IpAddr::V6(_), Some(port)) => ("ip6", format!("[{host}]:{port}")),
            };
            let remapped: Vec<String> = match app.destination.port() {
                Some(_) => app.protocol.each().iter().map(|p| format!("meta l4proto {p} ")).collect(),
                None => vec![String::new()],
            };
            chains += &self.nat_chain(app, host, "dnat", &remapped, &format!("counter dnat {ip} to {to}"))?;
            if app.masquerade {
                let there = app.destination.port().and_then(|port| PortRange::new(port, port).ok());
                for (protocol, ports) in each_port(app, &there.map_or_else(|| app.ports.clone(), |p| vec![p]))
                {
                    leaving += &format!(
                        "\t\tct status dnat {ip} daddr {host} {protocol} dport {ports} jump snat_{slug} comment \"ka:snat:{slug}\"\n"
                    );
                }
                chains += &self.nat_chain(app, host, "snat", &[String::new()], "counter masquerade")?;
            }
        }
        let mut out = fill(CHAIN, &[("name", "dstnat"), ("rules", &arriving)])?;
        out += &fill(CHAIN, &[("name", "srcnat"), ("rules", &leaving)])?;
        Ok(out + &chains)
    }

    fn nat_chain(
        &self,
        app: &App,
        host: IpAddr,
        stem: &str,
        begin: &[String],
        action: &str,
    ) -> Result<String, TemplateError> {
        let family = [Family::of(host)];
        let mut rules = String::new();
        for begin in begin {
            rules += &self.client_rules(begin, &app.slug, &family, "saddr", action)?;
            rules += &allow_rules(begin, "all", &family, "saddr", action)?;
        }
        fill(CHAIN, &[("name", &format!("{stem}_{}", app.slug)), ("rules", &rules)])
    }
}

fn each_port(app: &App, ports: &[PortRange]) -> Vec<(Protocol, PortRange)> {
    app.protocol.each().iter().flat_map(|&protocol| ports.iter().map(move |&p| (protocol, p))).collect()
}

fn allow_rules(
    interface: &str,
    slug: &str,
    families: &[Family],
    side: &str,
    action: &str,
) -> Result<String, TemplateError> {
    families
        .iter()
        .map(|&family| {
            let set = format!("allow_{slug}_{}", family.digit());
            client(interface, family, side, "", &set, action, &format!("allow:{slug}"))
        })
        .collect()
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

fn map(
    name: &str,
    key: &str,
    segments: &[Segment],
    stem: &str,
    key_of: impl Fn(&Segment) -> String,
) -> Result<String, TemplateError> {
    let ranged = segments.iter().any(|segment| !segment.ports.is_single());
    let pairs: Vec<String> =
        segments.iter().map(|s| format!("{} : goto {stem}_{}", key_of(s), s.name())).collect();
    let elements =
        if pairs.is_empty() { String::new() } else { format!("\t\telements = {{ {} }}", pairs.join(", ")) };
    fill(
        MAP,
        &[
            ("name", name),
            ("key", key),
            ("flags", if ranged { "\t\tflags interval" } else { "" }),
            ("elements", &elements),
        ],
    )
}

/// The configured networks of one family, as they would be listed.
fn elements(networks: &[Network], family: Family) -> String {
    use crate::ruleset::allow::{BY_CONFIG, Span, elements, key_address};
    let spans: Vec<Span> = networks.iter().map(|&network| Span::configured(network)).collect();
    let listed: Vec<String> = elements(&spans, family)
        .into_iter()
        .filter_map(|(first, element)| {
            let from = key_address(&first)?;
            let to = element.last.as_deref().and_then(key_address);
            let range = to.map_or_else(|| from.to_string(), |to| format!("{from}-{to}"));
            Some(format!("{range} comment \"{BY_CONFIG}\""))
        })
        .collect();
    if listed.is_empty() { String::new() } else { format!("\t\telements = {{ {} }}", listed.join(", ")) }
}
