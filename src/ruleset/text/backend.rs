//! The ports behind a proxy.

use super::render::Renderer;
use super::sets::elements;
use super::template::{TemplateError, fill};
use crate::units::Family;

const GATE: &str = include_str!("../../../nft-templates/backend-gate.nft");
const SETS: &str = include_str!("../../../nft-templates/proxy-sets.nft");

impl Renderer<'_> {
    pub(super) fn backend_gate(&self) -> &'static str {
        if self.layout.backend_ports().is_empty() { "" } else { GATE }
    }

    pub(super) fn proxy_sets(&self) -> Result<String, TemplateError> {
        if self.layout.backend_ports().is_empty() {
            return Ok(String::new());
        }
        let proxies = self.layout.proxies();
        fill(
            SETS,
            &[("proxies_4", &elements(&proxies, Family::V4)), ("proxies_6", &elements(&proxies, Family::V6))],
        )
    }

    /// A rule for each of these ports.
    pub(super) fn of_backend(&self, rule: impl Fn(&str) -> String) -> String {
        self.layout.backend_ports().iter().map(|port| format!("\t\t{}\n", rule(&port.to_string()))).collect()
    }
}
