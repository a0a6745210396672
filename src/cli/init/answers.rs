//! What was answered, and the texts that it comes to: the configuration, a profile, commands. Without input or output.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use crate::config::Destination;
use crate::units::{AppName, IfName, Lifetime, Network, Protocols, Secret, UserName};

/// A service as it is named: its port and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The port that clients use.
    pub port: NonZeroU16,
    /// Its protocol.
    pub protocol: Protocols,
}

/// Everything that was answered.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The name of the app.
    pub app: AppName,
    /// What it is.
    pub service: Service,
    /// Where it is.
    pub destination: Destination,
    /// The interfaces towards the internet.
    pub ext: Vec<IfName>,
    /// The interface towards a LAN host.
    pub int: Option<IfName>,
    /// How clients call this host: names or addresses.
    pub hosts: Vec<String>,
    /// How long it is open.
    pub duration: Lifetime,
    /// Who need not knock.
    pub allow: Vec<Network>,
    /// Who has to give one-time codes, and the file with their secret.
    pub codes: Option<(UserName, PathBuf)>,
    /// The ports of the two steps.
    pub ports: (NonZeroU16, NonZeroU16),
    /// Where certificate and key are.
    pub tls: (PathBuf, PathBuf),
}

/// What was made by chance. Printing it for debugging does not tell it.
#[derive(Debug)]
pub struct Chance {
    /// The paths of both steps.
    pub paths: (Secret, Secret),
    /// The keys of both steps.
    pub keys: (Secret, Secret),
    /// What the configuration has instead of them.
    pub stored: (String, String),
    /// Who knocks, for proofs: the id of the key of step 1.
    pub id: String,
}

/// The configuration.
pub fn configuration(of: &Answers, chance: &Chance, state_dir: &Path) -> Secret {
    let ext: Vec<String> = of.ext.iter().map(|name| word(name.as_str())).collect();
    let mut text = format!(
        "# Made by `knock-agent init`; knock-agent.yaml(5) explains every key. The clients' keys are not in here.\n\
         # yaml-language-server: $schema=/usr/share/knock-agent/knock-agent.schema.json\n\
         global:\n  http_post_path: {}\n  https_post_path: {}\n  interface_ext: [{}]\n",
        chance.paths.0.expose(),
        chance.paths.1.expose(),
        ext.join(", ")
    );
    if let Some(int) = &of.int {
        text.push_str(&format!("  interface_int: {}\n", word(int.as_str())));
    }
    text.push_str(&format!("  state_file: {}\n", word(&state_dir.join("grants").display().to_string())));
    let keys = |indent: &str| {
        format!(
            "{indent}access_key_http: \"{}\"\n{indent}access_key_https: \"{}\"\n",
            chance.stored.0, chance.stored.1
        )
    };
    if let Some((user, file)) = &of.codes {
        let file = word(&file.display().to_string());
        text.push_str(&format!("  2fa_step: https\n  users:\n    {}:\n", word(user.as_str())));
        text.push_str(&keys("      "));
        text.push_str(&format!("      totp: {{file: {file}}}\n"));
    }
    text.push_str(&format!("\n{}:\n  port: {}\n", word(of.app.as_str()), of.service.port));
    text.push_str(&format!("  protocol: {}\n", protocol_word(of.service.protocol)));
    if of.codes.is_none() {
        text.push_str(&keys("  "));
    }
    match of.destination {
        Destination::Local => {}
        Destination::Host(at) => text.push_str(&format!("  destination: \"{at}\"\n")),
        Destination::HostPort(at) => text.push_str(&format!("  destination: \"{at}\"\n")),
    }
    text.push_str(&format!("  duration: {}\n", of.duration));
    if !of.allow.is_empty() {
        let list: Vec<String> = of.allow.iter().map(|network| format!("\"{network}\"")).collect();
        text.push_str(&format!("  allow: [{}]\n", list.join(", ")));
    }
    Secret::new(text)
}

/// The word for a protocol.
pub fn protocol_word(protocol: Protocols) -> &'static str {
    match protocol {
        Protocols::Tcp => "tcp",
        Protocols::Udp => "udp",
        Protocols::Both => "both",
    }
}

/// A text of YAML, in quotes unless it cannot be taken for anything else.
fn word(text: &str) -> String {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.-".contains(&b));
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    // JSON's strings are YAML's.
    let taken = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if plain && begins && !taken.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// The profile of the client that knocks at a host.
pub fn profile(of: &Answers, chance: &Chance, host: &str, pin: Option<&str>) -> Secret {
    let who = of.codes.as_ref().map_or(chance.id.as_str(), |(user, _)| user.as_str());
    let mut text = format!(
        "# ~/.config/knock-agent/NAME.yaml on the client, mode 0600: `knock-agent knock NAME`\n\
         host: {}\nhttp_port: {}\nhttps_port: {}\nhttp_post_path: {}\nhttps_post_path: {}\napp: {}\nuser: {}\n\
         access_key_http: \"{}\"\naccess_key_https: \"{}\"\n",
        word(host),
        of.ports.0,
        of.ports.1,
        chance.paths.0.expose(),
        chance.paths.1.expose(),
        word(of.app.as_str()),
        word(who),
        chance.keys.0.expose(),
        chance.keys.1.expose(),
    );
    if let Some(pin) = pin {
        text.push_str(&format!("pin: {pin}\n"));
    }
    if of.service.protocol != Protocols::Udp {
        text.push_str(&format!("check: {}\n", of.service.port));
    }
    Secret::new(text)
}

/// Two commands for a shell, which have curl knock at a host. No secret is in the list of processes: curl reads all from its
/// standard input.
pub fn curl(of: &Answers, chance: &Chance, host: &str, pin: Option<&str>) -> Secret {
    let at = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host.to_owned(),
    };
    let app = serde_json::Value::from(format!("app={}", of.app)).to_string();
    let form =
        |key: &Secret| format!("data-urlencode = {app}\ndata-urlencode = \"access_key={}\"\n", key.expose());
    let code = if of.codes.is_some() { "data-urlencode = \"token=THE-CODE-OF-THE-MOMENT\"\n" } else { "" };
    let trust = pin.map(|pin| format!("insecure\npinnedpubkey = \"{pin}\"\n")).unwrap_or_default();
    Secret::new(format!(
        "# step 1 is never answered: curl gives up after a second\n\
         curl -s -K - <<'END'\nurl = \"http://{at}:{}{}\"\n{}max-time = 1\nEND\n\
         # step 2 answers OK\n\
         curl -sS -K - <<'END'\nurl = \"https://{at}:{}{}\"\n{}{code}{trust}max-time = 10\nEND\n",
        of.ports.0,
        chance.paths.0.expose(),
        form(&chance.keys.0),
        of.ports.1,
        chance.paths.1.expose(),
        form(&chance.keys.1),
    ))
}

/// The arguments with which the daemon starts as the configuration wants it.
pub fn start(of: &Answers, config: &Path) -> Vec<String> {
    let text = |path: &Path| path.display().to_string();
    let mut line = vec!["run".to_owned(), "--config".to_owned(), text(config)];
    line.extend([
        "--http-port".to_owned(),
        of.ports.0.to_string(),
        "--https-port".to_owned(),
        of.ports.1.to_string(),
    ]);
    line.extend(["--cert".to_owned(), text(&of.tls.0), "--key".to_owned(), text(&of.tls.1)]);
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Alone, StepPorts, Way, parse, parse_profile};

    fn answers() -> Answers {
        Answers {
            app: "ssh".parse().unwrap(),
            service: Service { port: NonZeroU16::new(22).unwrap(), protocol: Protocols::Tcp },
            destination: Destination::Local,
            ext: vec!["eth0".parse().unwrap(), "1e3".parse().unwrap()],
            int: None,
            hosts: vec!["gate.example.com".to_owned()],
            duration: "24h".parse().unwrap(),
            allow: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            codes: None,
            ports: (NonZeroU16::new(80).unwrap(), NonZeroU16::new(443).unwrap()),
            tls: ("/etc/knock-agent/cert.pem".into(), "/etc/knock-agent/key.pem".into()),
        }
    }

    fn chance() -> Chance {
        let secret = |text: &str| Secret::new(text.to_owned());
        let stored = format!("$ka1$abcdefgh${}", "ab".repeat(32));
        Chance {
            paths: (secret("/one-secret"), secret("/two-secret")),
            keys: (
                secret("abcdefgh.aaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
                secret("ijklmnop.bbbbbbbbbbbbbbbbbbbbbbbbbbbb"),
            ),
            stored: (stored.clone(), stored.replace("ab", "cd").replace("cdcdefgh", "ijklmnop")),
            id: "abcdefgh".to_owned(),
        }
    }

    const PORTS: Option<StepPorts> = Some(StepPorts { http: 80, https: 443 });

    #[test]
    fn what_was_answered_is_what_the_daemon_reads() {
        let mut of = answers();
        for (app, destination) in [
            ("ssh", Destination::Local),
            ("off", Destination::Host("fd00::5".parse().unwrap())),
            ("a: \"b\" #c", Destination::HostPort("192.168.0.4:2222".parse().unwrap())),
        ] {
            (of.app, of.destination) = (app.parse().unwrap(), destination);
            of.int = destination.host().map(|_| "eth1".parse().unwrap());
            let text = configuration(&of, &chance(), Path::new("/var/lib/knock-agent"));
            let checked =
                parse("x", text.expose(), PORTS, &Alone).unwrap_or_else(|e| panic!("{e}\n{}", text.expose()));
            // A LAN host has one family; who named networks of both is told.
            let other =
                checked.warnings.iter().filter(|warning| !warning.message.contains("address families"));
            assert_eq!(other.count(), 0, "{:?}", checked.warnings);
            let settings = checked.settings;
            assert_eq!(settings.apps[0].name.as_str(), app);
            assert_eq!(settings.apps[0].destination, destination);
            assert_eq!(settings.apps[0].allow.len(), 2);
            assert_eq!(settings.global.interface_ext[1].as_str(), "1e3");
            assert_eq!(settings.apps[0].access_key_http[0].id.as_deref(), Some("abcdefgh"));
            assert!(!text.expose().contains("aaaaaaaa"), "a key of the client is in the configuration");
        }
    }

    #[test]
    fn the_profile_is_one_that_the_client_reads() {
        let pin = format!("sha256//{}=", "A".repeat(43));
        let text = profile(&answers(), &chance(), "2001:db8::1", Some(&pin));
        let (way, warnings) = parse_profile("x", text.expose(), None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(warnings, []);
        let Way::Steps(profile) = way else { panic!("{way:?}") };
        assert_eq!((profile.host.as_str(), profile.check), ("2001:db8::1", Some(22)));
    }
}
