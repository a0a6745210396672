//! How the program is linked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::agent::PROGRAM;
use crate::process::{Finished, finish};
use crate::requirements;
use crate::temporary::TempDir;

fn check(words: &[&str], program: &Path) -> Finished {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/check-binary");
    let mut command = Command::new(script);
    command.args(words).arg(program);
    finish(command, b"", Duration::from_secs(60))
}

#[test]
fn the_program_is_position_independent_read_only_and_has_no_executable_stack() {
    requirements::demand();
    let words: &[&str] = if cfg!(debug_assertions) { &["--with-symbols"] } else { &[] };
    let told = check(words, Path::new(PROGRAM)).success().text();
    assert!(told.lines().count() >= 6 && told.lines().all(|line| line.starts_with("ok: ")), "{told}");
}

#[test]
fn a_program_that_is_linked_carelessly_is_found() {
    requirements::demand();
    let folder = TempDir::new();
    folder.write("a.c", "int main(void) { return 0; }\nvoid alone(void) { for (;;); }\n");
    let built = |flags: &[&str]| -> PathBuf {
        let out = folder.path().join("a.out");
        let mut command = Command::new("cc");
        command.arg(folder.path().join("a.c")).arg("-o").arg(&out).args(flags);
        finish(command, b"", Duration::from_secs(60)).success();
        out
    };
    let good = ["-pie", "-fPIE", "-Wl,-z,relro,-z,now,-z,noexecstack"];
    check(&["--with-symbols"], &built(&good)).success();
    check(&[], &built(&[&good[..], &["-s"]].concat())).success();
    for (flags, law) in [
        (&["-no-pie", "-Wl,-z,relro,-z,now"][..], "PIE"),
        (&["-pie", "-fPIE", "-Wl,-z,lazy"], "RELRO"),
        (&["-pie", "-fPIE", "-Wl,-z,norelro,-z,now"], "RELRO"),
        (&["-pie", "-fPIE", "-Wl,-z,now,-z,execstack"], "executable stack"),
        (&["-pie", "-fPIE", "-Wl,-z,now,-rpath,/opt/lib"], "RPATH"),
        (&["-pie", "-fPIE", "-Wl,-z,now"], "stripped"),
    ] {
        let told = check(&[], &built(flags)).exits(1).text();
        assert!(
            told.lines().any(|line| line.starts_with("FAILED") && line.contains(law)),
            "{flags:?}: {told}"
        );
    }
    // Sections that are written and run, in one segment.
    let told = check(&[], &built(&["-nostdlib", "-static", "-no-pie", "-Wl,-N,-e,alone"])).exits(1).text();
    assert!(told.contains("FAILED: no segment both writable and executable"), "{told}");
}

#[test]
fn a_release_is_stripped_and_its_own_numbers_do_not_wrap() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let text = std::fs::read_to_string(manifest).unwrap();
    let section = |name: &str| text.split_once(name).unwrap().1.split("\n[").next().unwrap();
    assert!(section("[profile.release]").contains("\nstrip = true\n"));
    assert!(section("[profile.release]").contains("\noverflow-checks = true\n"));
    // With a section of its own for this package, Cargo leaves the symbols in.
    assert!(!text.contains("[profile.release.package.knock-agent]"));
    assert!(!text.contains("relro-level") && !text.contains("relocation-model"), "{text}");
}
