//! What of knocks is written into a log.

use super::render::{CHAIN, Renderer};
use super::template::{TemplateError, fill};
use crate::config::KnockEvent;
use crate::units::{Family, Protocol};

impl Renderer<'_> {
    /// The chain that writes it down, if that is wanted.
    pub(super) fn logging(&self, event: KnockEvent) -> Option<String> {
        let wanted = self.settings().global.knock_log.events.contains(&event)
            && (event == KnockEvent::Transient || !self.layout.knocking.is_empty());
        wanted.then(|| format!("log_{}", event.name()))
    }

    /// What becomes of a packet that is dropped and perhaps written down.
    pub(super) fn dropped(&self, event: KnockEvent) -> String {
        self.logging(event).map_or_else(|| "drop".to_owned(), |chain| format!("goto {chain}"))
    }

    pub(super) fn log_chains(&self) -> Result<String, TemplateError> {
        let log = &self.settings().global.knock_log;
        let group = log.group.map_or_else(String::new, |group| format!(" group {group} snaplen 128"));
        let mut out = String::new();
        for &event in &log.events {
            let Some(chain) = self.logging(event) else { continue };
            let name = event.name();
            let mut rules = format!(
                "\t\tlimit rate 10/minute burst 10 packets log prefix \"knock-agent {name}: \"{group} comment \"ka:log:{name}\"\n"
            );
            if matches!(event, KnockEvent::Ignored | KnockEvent::Invalid) {
                rules += "\t\tdrop comment \"ka:drop:knock\"\n";
            }
            out += &fill(CHAIN, &[("name", &chain), ("rules", &rules)])?;
        }
        Ok(out)
    }

    /// Before the rule that lets in a network in this set.
    pub(super) fn log_transient(
        &self,
        protocol: Protocol,
        family: Family,
        set: &str,
        begin: &str,
    ) -> Option<String> {
        let chain = self.logging(KnockEvent::Transient)?;
        let first = match protocol {
            Protocol::Tcp => "tcp flags & (fin|syn|rst|ack) == syn",
            Protocol::Udp => "ct state new,untracked",
        };
        let ip = if family == Family::V4 { "ip" } else { "ip6" };
        let jump = format!("{ip} saddr @{set} jump {chain} comment \"ka:log:transient\"");
        Some(format!("\t\t{begin}{first} {jump}\n"))
    }
}
