//! The scripts that put knock-agent on a VyOS router, below a folder that stands for its root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::agent::PROGRAM;
use crate::configuration::Config;
use crate::firewall::is_guarded;
use crate::hosts::{Vyos, our_rules};
use crate::namespace::Namespace;
use crate::process::Finished;
use crate::temporary::TempDir;

const SCRIPTS: [(&str, &str); 2] = [
    ("vyos-preconfig-bootup.script", "/config/knock-agent/boot preconfig"),
    ("vyos-postconfig-bootup.script", "/config/knock-agent/boot postconfig"),
];

struct Router {
    root: TempDir,
    host: Namespace,
}

impl Router {
    fn new() -> Self {
        let router = Self { root: TempDir::new(), host: Namespace::new("vyos") };
        fs::create_dir_all(router.path("config/scripts")).unwrap();
        router
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn install(&self, words: &[&str]) -> Finished {
        let mut command = Command::new(packaged("install"));
        command.arg("--prefix").arg(self.root.path()).args(words);
        self.host.finish(command, b"", Duration::from_secs(60))
    }

    /// Runs our boot script as VyOS does, at that moment of its boot.
    fn boot(&self, moment: &str) -> Finished {
        let mut command = Command::new(self.path("config/knock-agent/boot"));
        command.arg(moment).env("KNOCK_AGENT_PREFIX", self.root.path());
        self.host.finish(command, b"", Duration::from_secs(60))
    }

    /// Every file below the root with its mode and length, the program apart.
    fn files(&self) -> Vec<String> {
        let mut command = Command::new("find");
        command.arg(self.root.path()).args(["-type", "f", "-printf", "%P %m %s\n"]);
        let listing = self.host.finish(command, b"", Duration::from_secs(10)).success().text();
        let mut files: Vec<String> = listing.lines().map(str::to_owned).collect();
        files.sort();
        files
    }
}

fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/vyos").join(name)
}

fn executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o100 != 0)
}

#[test]
fn installing_twice_is_installing_once_and_keeps_what_the_operator_has() {
    let router = Router::new();
    // VyOS's own script, with a line of the operator's, and an end before the end.
    let own = "#!/bin/sh\n# VyOS's words\necho mine\nexit 0\n";
    router.root.write("config/scripts/vyos-postconfig-bootup.script", own);
    router.install(&[PROGRAM]).success();
    let once = router.files();
    for (script, line) in SCRIPTS {
        let text = router.text(&format!("config/scripts/{script}"));
        assert!(text.starts_with("#!/bin/sh\n# knock-agent\n"), "{text}");
        assert_eq!(text.lines().filter(|have| *have == line).count(), 1, "{text}");
        assert!(executable(&router.path(&format!("config/scripts/{script}"))));
    }
    let post = router.text("config/scripts/vyos-postconfig-bootup.script");
    assert!(post.ends_with("echo mine\nexit 0\n") && post.contains("# VyOS's words\n"), "{post}");
    router.root.write("config/knock-agent/options", "KNOCK_AGENT_OPTIONS=\"--http-port 81\"\n");
    let changed = router.files();
    router.install(&[PROGRAM]).success();
    assert_eq!(router.files(), changed);
    assert_ne!(changed, once, "the operator's options were kept");
    router.install(&["--remove"]).success();
    assert_eq!(router.text("config/scripts/vyos-postconfig-bootup.script"), own);
    assert!(!router.text("config/scripts/vyos-preconfig-bootup.script").contains("knock-agent"));
    assert!(router.path("config/knock-agent/options").exists());
    router.install(&["--remove"]).success();
    router.install(&["--purge"]).success();
    assert!(!router.path("config/knock-agent").exists());
}

#[test]
fn a_boot_script_whose_only_line_has_no_end_or_that_nobody_may_run_is_run_at_boot() {
    let script = "config/scripts/vyos-preconfig-bootup.script";
    for own in ["#!/bin/sh", ""] {
        let router = Router::new();
        router.root.write(script, own);
        for _ in 0..2 {
            router.install(&[PROGRAM]).success();
            let wanted = "#!/bin/sh\n# knock-agent\n/config/knock-agent/boot preconfig\n";
            assert_eq!(router.text(script), wanted);
            assert!(executable(&router.path(script)));
            // Put back by somebody, with another mode.
            fs::set_permissions(router.path(script), fs::Permissions::from_mode(0o644)).unwrap();
        }
        router.install(&["--remove"]).success();
        assert_eq!(router.text(script), "#!/bin/sh\n");
    }
}

#[test]
fn a_program_that_does_not_run_here_replaces_nothing() {
    let router = Router::new();
    router.install(&[PROGRAM]).success();
    let before = router.files();
    let bad = router.root.write("bad", "#!/bin/sh\nexit 1\n");
    let done = router.install(&[bad.to_str().unwrap()]).exits(1);
    assert!(done.stderr.contains("does not run here"), "{}", done.stderr);
    fs::remove_file(bad).unwrap();
    assert_eq!(router.files(), before);
    for words in [&[][..], &["--what"], &["/nonexistent"], &[PROGRAM, PROGRAM]] {
        router.install(words).exits(1);
    }
}

#[test]
fn a_boot_guards_before_the_network_and_has_the_unit_when_vyos_is_done() {
    let router = Router::new();
    router.install(&[PROGRAM]).success();
    router.root.write("config/knock-agent/config.yaml", Config::ssh(&[]).text());
    router.boot("preconfig").success();
    assert!(is_guarded(&router.host));
    assert!(
        router.path("config/knock-agent/state/last-good-plan").exists(),
        "kept where an upgrade keeps it"
    );
    assert_eq!(our_rules(&router.host), Vec::<String>::new(), "VyOS has no table yet");
    Vyos::boot(&router.host, "14", "stateful").commit(&router.host, "firewall");
    router.boot("postconfig").success();
    let unit = router.text("run/systemd/system/knock-agent.service");
    assert_eq!(unit, fs::read_to_string(packaged("knock-agent.service")).unwrap());
    router.boot("now").success();
    assert!(!our_rules(&router.host).is_empty(), "by the flags in `options`");
    // A typo neither opens the ports nor fails the boot.
    router.root.write("config/knock-agent/config.yaml", "global: [\n");
    router.host.run("nft", &["flush", "ruleset"]).success();
    let done = router.boot("preconfig").success();
    assert!(done.stderr.contains("THE CONFIGURATION IS NOT IN FORCE"), "{}", done.stderr);
    assert!(is_guarded(&router.host));
}
