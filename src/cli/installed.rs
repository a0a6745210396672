//! The flags of the installed unit, for whoever checks something else than what systemd starts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cli::{DaemonArgs, Printer};
use crate::sys::files;

/// Where units are, the first one that has a file has the say (systemd.unit(5)).
const FOLDERS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
const UNIT: &str = "knock-agent.service";
/// Ours has 8 KB.
const MAX: u64 = 1 << 18;
/// What is looked at where nothing else is said.
const USUAL: (u16, u16) = (8080, 8443);

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

/// The command line of the unit with its drop-ins; none where it is not installed.
fn command(folders: &[&Path]) -> Option<String> {
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
    let lines = texts.map(|text| text.replace("\\\n", " ")).collect::<Vec<_>>().join("\n");
    let mut starts = lines.lines().filter_map(|line| line.trim().strip_prefix("ExecStart="));
    starts.next_back().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
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
        fs::remove_dir_all(top).unwrap();
    }
}
