//! The scripts of the packages, below a folder that stands for the host's root and with a `systemctl` that only takes notes.
//! `integration/packages` installs real packages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::namespace::Namespace;
use crate::process::Finished;
use crate::temporary::{Disk, TempDir};

const UNITS: [&str; 2] = ["knock-agent-guard.service", "knock-agent.service"];
/// What the scripts name of the host.
const PLACES: [&str; 5] =
    ["/usr/bin/knock-agent", "/usr/share/knock-agent", "/var/lib/knock-agent", "/etc/knock-agent", "/run/"];

const SYSTEMCTL: &str = r#"#!/bin/sh
case $1 in --*) shift ;; esac
verb=$1
shift
for unit; do
    case $verb in
        enable) : >"$UNITS/enabled.$unit" ;;
        disable) rm -f "$UNITS/enabled.$unit" ;;
        start) : >"$UNITS/active.$unit" ;;
        stop) rm -f "$UNITS/active.$unit" ;;
        is-enabled) [ -e "$UNITS/enabled.$unit" ] || exit 1 ;;
        is-active) if [ -e "$UNITS/active.$unit" ]; then echo active; else echo inactive; exit 3; fi ;;
    esac
done
"#;

struct Host {
    root: TempDir,
    namespace: Namespace,
}

impl Host {
    /// With a guard and a daemon that runs.
    fn new() -> Self {
        let host = Self { root: TempDir::new(), namespace: Namespace::new("package") };
        for folder in ["run/systemd/system", "units", "bin", "var/lib/knock-agent-removed"] {
            fs::create_dir_all(host.path(folder)).unwrap();
        }
        host.program("bin/systemctl", SYSTEMCTL);
        host.program("bin/deb-systemd-invoke", "#!/bin/sh\nexec systemctl \"$@\"\n");
        host.program("bin/getent", "#!/bin/sh\nexit 2\n");
        host.program(
            "usr/bin/knock-agent",
            &format!("#!/bin/sh\n{}\n", "# as large as a program\n".repeat(20_000)),
        );
        host.root.write("var/lib/knock-agent/last-good-plan", "a plan");
        host.root.write("usr/share/knock-agent/installed-files", "/usr/bin/knock-agent\n");
        for unit in UNITS {
            host.root.write(&format!("units/enabled.{unit}"), "");
            host.root.write(&format!("units/active.{unit}"), "");
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.root.write(name, text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs one of `packaging` on this host.
    fn script(&self, name: &str, words: &[&str]) -> Finished {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name);
        let mut text = fs::read_to_string(path).unwrap();
        for place in PLACES {
            text = text.replace(place, &format!("{}{place}", self.root.path().display()));
        }
        let here = self.root.write("script", text);
        let mut command = Command::new("sh");
        command.arg(here).args(words).env("UNITS", self.path("units"));
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path("bin").display()));
        self.namespace.finish(command, b"", Duration::from_secs(60))
    }

    /// How many units are enabled or run.
    fn notes(&self) -> usize {
        fs::read_dir(self.path("units")).unwrap().count()
    }

    fn kept(&self) -> PathBuf {
        self.path("var/lib/knock-agent-removed/knock-agent")
    }
}

#[test]
fn a_removal_for_which_the_disk_has_no_room_changes_nothing() {
    for (script, words) in
        [("deb/prerm", &["remove"][..]), ("rpm/preun.sh", &["0"]), ("tar/install", &["--remove"])]
    {
        let host = Host::new();
        let disk = Disk::over(host.path("var/lib/knock-agent-removed"));
        let done = host.script(script, words).exits(1);
        assert!(done.stderr.to_lowercase().contains("nothing was changed"), "{script}: {}", done.stderr);
        assert_eq!(host.notes(), 4, "{script}");
        assert!(host.path("usr/bin/knock-agent").exists(), "{script}");
        assert_eq!(fs::read_dir(host.path("var/lib/knock-agent-removed")).unwrap().count(), 0, "{script}");
        if script == "deb/prerm" {
            // What dpkg does then.
            host.script("deb/postinst", &["abort-remove"]).success();
            assert_eq!(host.notes(), 4);
        }
        drop(disk);
        host.script(script, words).success();
        assert_eq!(host.notes(), 0, "{script}");
        assert!(fs::metadata(host.kept()).unwrap().len() > 256 << 10, "{script}");
        assert!(!host.kept().with_extension("new").exists(), "{script}");
    }
}

#[test]
fn a_removal_that_fails_later_puts_back_what_ran_and_no_more() {
    for stopped in [None, Some("active.knock-agent.service"), Some("enabled.knock-agent-guard.service")] {
        let host = Host::new();
        if let Some(note) = stopped {
            fs::remove_file(host.path("units").join(note)).unwrap();
        }
        host.script("deb/prerm", &["remove"]).success();
        assert_eq!(host.notes(), 0);
        host.script("deb/postinst", &["abort-remove"]).success();
        assert_eq!(host.notes(), if stopped.is_some() { 3 } else { 4 }, "{stopped:?}");
        assert!(stopped.is_none_or(|note| !host.path("units").join(note).exists()), "{stopped:?}");
        assert!(!host.path("run/knock-agent-before-removal").exists());
    }
}

#[test]
fn a_copy_of_the_program_that_is_empty_has_not_taken_the_rules_away() {
    let host = Host::new();
    host.namespace.nft("table inet knock_agent {}");
    host.program("var/lib/knock-agent-removed/knock-agent", "");
    host.script("deb/postrm", &["purge"]).success();
    let tables = host.namespace.run("nft", &["list", "tables"]).success().text();
    assert_eq!(tables, "", "opened as purging promises");
}
