//! The steps' ports at addresses that are this host's by another routing table.

use super::render::{CHAIN, Renderer};
use super::template::{TemplateError, fill};
use crate::config::Step1Reply;

impl Renderer<'_> {
    pub(super) fn to_routed(&self) -> String {
        let line = |port: &str| {
            format!(
                "iifname @ext tcp dport {port} fib daddr type unicast jump steps_here comment \"ka:routed\""
            )
        };
        self.of_steps(|port, _| line(&port.to_string())) + &self.of_backend(line)
    }

    pub(super) fn routed(&self) -> Result<String, TemplateError> {
        let global = &self.settings().global;
        let by_two_packets =
            global.steps && global.step1_reply == Step1Reply::Silent && global.step1_segments > 1;
        let line = |port: &str, chain: &str| format!("tcp dport {port} goto {chain} comment \"ka:routed\"");
        let mut rules = self.of_steps(|port, step| match step {
            1 if by_two_packets => line(&port.to_string(), "step1_here"),
            _ => line(&port.to_string(), &self.step_gate(step)),
        });
        rules += &self.of_backend(|port| line(port, "backend_gate"));
        if rules.is_empty() {
            return Ok(String::new());
        }
        let rules = "\t\tct direction reply return comment \"ka:own\"\n".to_owned() + &rules;
        let mut out = fill(CHAIN, &[("name", "steps_here"), ("rules", &rules)])?;
        if by_two_packets {
            let then = format!("\t\tgoto {} comment \"ka:routed\"\n", self.step_gate(1));
            let rules = self.path("jump step1_begun") + &then;
            out += &fill(CHAIN, &[("name", "step1_here"), ("rules", &rules)])?;
            out += &fill(CHAIN, &[("name", "step1_begun"), ("rules", &self.step1_flows())])?;
        }
        Ok(out)
    }
}
