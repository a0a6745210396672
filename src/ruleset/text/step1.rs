//! The step-1 filter.

use super::render::Renderer;
use super::template::{TemplateError, fill};
use crate::config::Step1Reply;
use crate::units::HttpPath;

const SILENT: &str = include_str!("../../../nft-templates/step1-silent.nft");
const HTTP: &str = include_str!("../../../nft-templates/step1-http.nft");

impl Renderer<'_> {
    pub(super) fn step1(&self) -> Result<String, TemplateError> {
        let global = &self.settings().global;
        if !global.steps {
            return Ok(String::new());
        }
        let silent = global.step1_reply == Step1Reply::Silent;
        let later = u32::from(global.step1_segments) - 1;
        let meter = global.step1_2_rate_limit_per_minute.saturating_mul(10).max(60).to_string();
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
        let port = self.layout.options.http_port.to_string();
        fill(
            if silent { SILENT } else { HTTP },
            &[
                ("http_port", &port),
                ("meter", &meter),
                ("flows", &self.step1_flows()),
                ("path_raw", &self.path("goto step1_path")),
                ("path_gate", &self.path("accept")),
                ("segments_raw", &segment("counter notrack accept")),
                ("segments_gate", &segment("accept")),
                ("segments_answering", &segment("counter accept")),
                ("payload_drop", &self.payload("@{base},{at},8 >= 0 counter drop", "drop:step1")),
            ],
        )
    }

    /// What remembers a connection whose first packet was right.
    pub(super) fn step1_flows(&self) -> String {
        let global = &self.settings().global;
        let later = u32::from(global.step1_segments) - 1;
        if later == 0 {
            return String::new();
        }
        let burst = 1 + later * if global.step1_reply == Step1Reply::Silent { 2 } else { 1 };
        let flow = |(n, ip)| {
            format!(
                "\t\tupdate @step1_flow_{n} {{ {ip} saddr . tcp sport timeout 3s limit rate 1/minute burst {burst} packets }} comment \"ka:step1:flow\"\n"
            )
        };
        [("4", "ip"), ("6", "ip6")].map(flow).concat()
    }

    /// `POST <path> ` at the beginning of the data, 16 bytes a comparison, for each of the paths.
    pub(super) fn path(&self, action: &str) -> String {
        self.settings().global.step1_paths.iter().map(|path| self.one_path(path, action)).collect()
    }

    fn one_path(&self, path: &HttpPath, action: &str) -> String {
        let global = &self.settings().global;
        let wanted = format!("POST {} ", path.expose());
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
}
