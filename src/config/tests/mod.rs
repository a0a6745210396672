//! Laws of the configuration reader, from the operator's side.

mod broken;
mod good;
mod hostile;
mod manual;
mod metrics;
mod notify;
mod proxy;
mod rotation;
mod sequences;
mod time_sequence;

use super::{Checked, Problems, StepPorts, parse};

const PORTS: Option<StepPorts> = Some(StepPorts { http: 8080, https: 8443 });

/// A whole `global` section of three lines.
const GLOBAL: &str =
    "global: {interface_ext: eth0, http_post_path: /one-place, https_post_path: /two-place}\n";
/// An app without its last brace, so that tests can add keys.
const APP: &str =
    "ssh: {port: 22, duration: 1h, access_key_http: [first-secret], access_key_https: [other-secret]";

fn read(text: &str) -> Result<Checked, Problems> {
    parse("test.yaml", text, PORTS, &crate::config::Alone)
}

fn loads(text: &str) -> Checked {
    read(text).unwrap_or_else(|problems| panic!("{problems}\n--\n{text}"))
}
