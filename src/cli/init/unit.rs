//! How systemd is told to start it as it was tried: as the package's units do, or with drop-ins that say otherwise.

use std::path::{Path, PathBuf};

use super::answers::{self, Answers};

/// Where drop-ins of this host are.
pub const FOLDER: &str = "/etc/systemd/system";
/// The name of ours: before `override.conf`, which `systemctl edit` makes and which goes on having the last word.
const NAME: &str = "init.conf";
/// The units, and what they start.
const UNITS: [(&str, Verb); 2] = [("knock-agent-guard", Verb::Guard), ("knock-agent", Verb::Run)];
const PROGRAM: &str = "/usr/bin/knock-agent";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Guard,
    Run,
}

/// The commands after which systemd runs both, now and after each boot; `folder` as [`FOLDER`].
pub fn commands(of: &Answers, config: &Path, folder: &Path) -> Vec<String> {
    let enable = "sudo systemctl enable --now knock-agent-guard knock-agent".to_owned();
    let drop_in = |unit: &str| -> PathBuf { folder.join(format!("{unit}.service.d")) };
    let earlier = UNITS.iter().any(|(unit, _)| drop_in(unit).join(NAME).exists());
    if is_as_shipped(of, config) && !earlier {
        return vec![enable];
    }
    let mut lines = Vec::new();
    for (unit, verb) in UNITS {
        let folder = drop_in(unit);
        lines.push(format!("sudo mkdir -p {}", folder.display()));
        lines.push(format!("sudo tee {} >/dev/null <<'END'", folder.join(NAME).display()));
        lines.push("[Service]".to_owned());
        lines.push("ExecStart=".to_owned());
        let words: Vec<String> = words(of, config, verb).iter().map(|word| escaped(word)).collect();
        lines.push(format!("ExecStart={PROGRAM} {}", words.join(" ")));
        lines.push("END".to_owned());
    }
    lines.push("sudo systemctl daemon-reload".to_owned());
    // Restarted, as what runs already has the flags of before.
    lines.push("sudo systemctl enable knock-agent-guard knock-agent".to_owned());
    lines.push("sudo systemctl restart knock-agent-guard knock-agent".to_owned());
    lines
}

/// Whether the package's units start it like that.
fn is_as_shipped(of: &Answers, config: &Path) -> bool {
    (of.ports.0.get(), of.ports.1.get()) == (80, 443)
        && config == Path::new("/etc/knock-agent/config.yaml")
        && of.tls.0 == Path::new("/etc/knock-agent/cert.pem")
        && of.tls.1 == Path::new("/etc/knock-agent/key.pem")
}

/// What the guard is given is what the daemon is, but for the certificate, which it has no use for.
fn words(of: &Answers, config: &Path, verb: Verb) -> Vec<String> {
    let mut words = answers::start(of, config);
    if verb == Verb::Guard {
        let end = words.iter().position(|word| word == "--cert").unwrap_or(words.len());
        words.truncate(end);
        if let Some(first) = words.first_mut() {
            *first = "guard".to_owned();
        }
    }
    words
}

/// A word of a command line as systemd reads it (systemd.service(5)).
fn escaped(word: &str) -> String {
    let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.-:".contains(&b));
    if plain && !word.is_empty() {
        return word.to_owned();
    }
    let text = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_word_for_systemd() {
        assert_eq!(escaped("/etc/knock-agent/cert.pem"), "/etc/knock-agent/cert.pem");
        assert_eq!(escaped("/srv/my $certs/100%.pem"), "\"/srv/my $$certs/100%%.pem\"");
        assert_eq!(escaped("a\"b\\"), "\"a\\\"b\\\\\"");
    }
}
