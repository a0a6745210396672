//! The flags of the installed unit, for whoever checks something else than what systemd starts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cli::{DaemonArgs, Printer, proxy_flags};
use crate::sys::files;

/// Where units are, the first one that has a file has the say (systemd.unit(5)).
const FOLDERS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
const UNIT: &str = "knock-agent.service";
/// What our own unit says, for where others start the daemon.
const USER: &str = "knock-agent";
const CONFIG: &str = "/etc/knock-agent/config.yaml";
const TLS: [&str; 2] = ["/etc/knock-agent/cert.pem", "/etc/knock-agent/key.pem"];
/// Ours has 8 KB.
const MAX: u64 = 1 << 18;
/// What is looked at where nothing else is said.
const USUAL: (u16, u16) = (proxy_flags::USUAL.0.get(), proxy_flags::USUAL.1.get());

/// Says so, where the usual ports were looked at, and the unit that is installed for this configuration has others.
pub(super) fn note(args: &DaemonArgs, verb: &str, err: &mut Printer) {
    let (http, https) = args.public_ports();
    let config = std::path::absolute(&args.file.config).unwrap_or_else(|_| args.file.config.clone());
    let folders = FOLDERS.map(Path::new);
    if (http.get(), https.get()) != USUAL || args.cert.is_some() {
        return;
    }
    if let Some(flags) = other_flags(&folders, &config) {
        err.line(format!(
            "note: this looks at ports {http} and {https}, and {UNIT} has others; for what it starts:"
        ));
        err.line(format!("  knock-agent {verb} {flags}"));
    }
}

/// The flags with which the unit starts the daemon for that configuration, where they name other ports than the usual.
fn other_flags(folders: &[&Path], config: &Path) -> Option<String> {
    let command = command(folders)?;
    let (_, flags) = command.split_once(" run ")?;
    let words: Vec<&str> = flags.split_whitespace().collect();
    let value = |flag: &str| {
        let at = words.iter().position(|word| *word == flag)?;
        words.get(at + 1).copied()
    };
    let port = |flag: &str, usual: u16| value(flag).map_or(Some(usual), |port| port.parse().ok());
    let ports = match (value("--waf-http-port"), value("--waf-https-port")) {
        (None, None) => (port("--http-port", USUAL.0)?, port("--https-port", USUAL.1)?),
        _ => (port("--waf-http-port", 0)?, port("--waf-https-port", 0)?),
    };
    (value("--config").map(Path::new) == Some(config) && ports != USUAL).then(|| words.join(" "))
}

/// Whom the installed unit starts the daemon as, for a configuration, and with which files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Started {
    /// Whether a unit says so; else it is what ours would say.
    pub by_unit: bool,
    /// The user.
    pub user: String,
    /// Groups besides the user's own.
    pub groups: Vec<String>,
    /// Certificate and key.
    pub tls: Vec<PathBuf>,
    /// Whether nothing in home folders is seen.
    pub without_homes: bool,
}

/// That, where the unit is for this configuration and starts the daemon as a user who is not told to read everything. Without
/// a unit, the user is the one that was made for the daemon, if there is one, and the configuration that in its usual place.
pub(super) fn started(config: &Path) -> Option<Started> {
    started_in(&FOLDERS.map(Path::new), config)
}

fn started_in(folders: &[&Path], config: &Path) -> Option<Started> {
    let Some(lines) = lines(folders) else { return as_usual(config) };
    let command = said(&lines, "ExecStart=").pop()?;
    let words: Vec<&str> = command.split_whitespace().collect();
    let value = |flag: &str| {
        let at = words.iter().position(|word| *word == flag)?;
        words.get(at + 1).map(PathBuf::from)
    };
    let user = said(&lines, "User=").pop().filter(|user| user != "root")?;
    let capable = said(&lines, "AmbientCapabilities=").iter().any(|all| all.contains("CAP_DAC_"));
    if capable || value("--config").as_deref() != Some(config) {
        return None;
    }
    let mut groups: Vec<String> = said(&lines, "Group=");
    groups.drain(..groups.len().saturating_sub(1));
    let more = said(&lines, "SupplementaryGroups=");
    groups.extend(more.iter().flat_map(|all| all.split_whitespace()).map(str::to_owned));
    let without_homes =
        said(&lines, "ProtectHome=").pop().is_some_and(|home| home == "yes" || home == "true");
    Some(Started {
        by_unit: true,
        user,
        groups,
        tls: ["--cert", "--key"].into_iter().filter_map(value).collect(),
        without_homes,
    })
}

fn as_usual(config: &Path) -> Option<Started> {
    (config == Path::new(CONFIG)).then(|| Started {
        by_unit: false,
        user: USER.to_owned(),
        groups: Vec::new(),
        tls: TLS.map(PathBuf::from).to_vec(),
        without_homes: false,
    })
}

/// What the unit says of a key; an empty value takes back what was said before.
fn said(lines: &str, key: &str) -> Vec<String> {
    let mut all = Vec::new();
    for value in lines.lines().filter_map(|line| line.trim().strip_prefix(key)) {
        match value.trim() {
            "" => all.clear(),
            value => all.push(value.to_owned()),
        }
    }
    all
}

/// The command line of the unit with its drop-ins; none where it is not installed.
fn command(folders: &[&Path]) -> Option<String> {
    said(&lines(folders)?, "ExecStart=").pop()
}

/// The lines of the unit with its drop-ins.
fn lines(folders: &[&Path]) -> Option<String> {
    let unit = folders.iter().map(|folder| folder.join(UNIT)).find(|unit| unit.is_file())?;
    let mut drop_ins: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in folders {
        let entries = std::fs::read_dir(folder.join(format!("{UNIT}.d"))).into_iter().flatten().flatten();
        for path in
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "conf"))
        {
            let name = path.file_name().unwrap_or_default().to_owned();
            drop_ins.entry(name).or_insert(path);
        }
    }
    let texts =
        std::iter::once(&unit).chain(drop_ins.values()).filter_map(|path| files::read_text(path, MAX).ok());
    Some(texts.map(|text| text.replace("\\\n", " ")).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_unit_with_its_drop_ins_says_which_ports_will_be_used() {
        let top = std::env::temp_dir().join(format!("knock-agent-installed-{}", std::process::id()));
        let (etc, lib) = (top.join("etc"), top.join("lib"));
        fs::create_dir_all(etc.join("knock-agent.service.d")).unwrap();
        fs::create_dir_all(&lib).unwrap();
        let folders = [etc.as_path(), lib.as_path()];
        let config = Path::new("/etc/knock-agent/config.yaml");
        assert_eq!(other_flags(&folders, config), None, "not installed");
        let usual = started_in(&folders, config).unwrap();
        assert_eq!((usual.by_unit, usual.user.as_str(), usual.tls.len()), (false, "knock-agent", 2));
        assert_eq!(started_in(&folders, Path::new("/tmp/other.yaml")), None, "somebody's trial");
        let shipped = include_str!("../../packaging/systemd/knock-agent.service");
        fs::write(lib.join(UNIT), shipped).unwrap();
        let flags = other_flags(&folders, config).unwrap();
        assert!(
            flags.contains("--http-port 80 --https-port 443 --cert /etc/knock-agent/cert.pem"),
            "{flags}"
        );
        assert_eq!(other_flags(&folders, Path::new("/tmp/other.yaml")), None, "another configuration");
        let drop_in = "[Service]\nExecStart=\nExecStart=/usr/bin/knock-agent run --config /etc/knock-agent/config.yaml \\\n --http-port 8080 --https-port 8443\n";
        fs::write(etc.join("knock-agent.service.d/init.conf"), drop_in).unwrap();
        assert_eq!(other_flags(&folders, config), None, "the usual ones");
        let run = started_in(&folders, config).unwrap();
        assert_eq!(
            (run.user.as_str(), run.groups, run.tls.len()),
            ("knock-agent", vec!["knock-agent".to_owned()], 0)
        );
        assert!(run.without_homes);
        for (more, of) in [
            ("User=", None),
            ("User=root", None),
            ("AmbientCapabilities=CAP_DAC_READ_SEARCH", None),
            ("User=gate\nSupplementaryGroups=ssl-cert tls\nProtectHome=no", Some("gate")),
        ] {
            fs::write(etc.join("knock-agent.service.d/more.conf"), format!("[Service]\n{more}\n")).unwrap();
            let run = started_in(&folders, config);
            assert_eq!(run.as_ref().map(|run| run.user.as_str()), of, "{more}");
            assert!(
                run.is_none_or(|run| run.groups == ["knock-agent", "ssl-cert", "tls"] && !run.without_homes)
            );
        }
        fs::remove_file(etc.join("knock-agent.service.d/more.conf")).unwrap();
        assert_eq!(started_in(&folders, Path::new("/tmp/other.yaml")), None);
        fs::remove_dir_all(top).unwrap();
    }
}
