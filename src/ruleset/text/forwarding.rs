//! Forwarding to LAN hosts.

use std::net::IpAddr;

use super::render::{CHAIN, Renderer};
use super::template::{TemplateError, fill};
use crate::config::App;
use crate::units::{Family, PortRange, Protocol};

impl Renderer<'_> {
    pub(super) fn forwarding(&self) -> Result<String, TemplateError> {
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
            let remapped: Vec<Option<Protocol>> = match app.destination.port() {
                Some(_) => app.protocol.each().iter().copied().map(Some).collect(),
                None => vec![None],
            };
            chains += &self.nat_chain(app, host, "dnat", &remapped, &format!("counter dnat {ip} to {to}"))?;
            if app.masquerade {
                let there = app.destination.port().and_then(|port| PortRange::new(port, port).ok());
                for (protocol, ports) in each_port(app, &app.ports) {
                    let to = there.unwrap_or(ports);
                    leaving += &format!(
                        "\t\tct status dnat {ip} daddr {host} {protocol} dport {to} ct original proto-dst {ports} jump snat_{slug} comment \"ka:snat:{slug}\"\n"
                    );
                }
                chains += &self.nat_chain(app, host, "snat", &[None], "counter masquerade")?;
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
        protocols: &[Option<Protocol>],
        action: &str,
    ) -> Result<String, TemplateError> {
        let family = [Family::of(host)];
        let mut rules = String::new();
        for &protocol in protocols {
            let begin = &protocol.map_or_else(String::new, |protocol| format!("meta l4proto {protocol} "));
            rules += &self.client_rules(begin, app, &family, ("saddr", protocol, false), action)?;
            rules += &self.allow_rules(begin, &app.slug, &family, ("saddr", None), action)?;
            rules += &self.allow_rules(begin, "all", &family, ("saddr", None), action)?;
        }
        fill(CHAIN, &[("name", &format!("{stem}_{}", app.slug)), ("rules", &rules)])
    }
}

fn each_port(app: &App, ports: &[PortRange]) -> Vec<(Protocol, PortRange)> {
    app.protocol.each().iter().flat_map(|&protocol| ports.iter().map(move |&p| (protocol, p))).collect()
}
