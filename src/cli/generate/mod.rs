//! `knock-agent generate`: manual pages, completions and schemas, all of them from what the program itself goes by.

mod man;
mod reference;
mod roff;

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::cli::{Cli, Exit, Printer};
use crate::config::manual;
use crate::sys::files;

/// The arguments of `generate`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The files are the same bytes each time, for the same program.\n\nExamples:\n  knock-agent generate man /usr/local/share/man/man8\n  knock-agent generate completions - --only knock-agent.bash\n  knock-agent generate schema - --only knock-agent.schema.json"
)]
pub struct GenerateArgs {
    /// What to write
    #[arg(value_name = "WHAT", value_enum)]
    pub what: What,

    /// The folder that the files go to, or - for standard output
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,

    /// Only the file of this name
    #[arg(long, value_name = "FILE")]
    pub only: Option<String>,
}

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Manual pages of every verb, of the configuration and of profiles
    Man,
    /// Completions for bash, zsh and fish
    Completions,
    /// JSON Schemas of the configuration and of profiles
    Schema,
}

/// The files of a kind, each with its name.
#[must_use]
pub fn generated(what: What) -> Vec<(String, String)> {
    match what {
        What::Man => {
            let mut pages = man::pages(&Cli::command());
            pages.extend([reference::configuration(), reference::profile()]);
            pages
        }
        What::Completions => [
            ("knock-agent.bash", Shell::Bash),
            ("_knock-agent", Shell::Zsh),
            ("knock-agent.fish", Shell::Fish),
        ]
        .map(|(name, shell)| (name.to_owned(), completions(shell)))
        .into(),
        What::Schema => {
            vec![
                ("knock-agent.schema.json".to_owned(), pretty(&manual::configuration())),
                ("knock-agent-profile.schema.json".to_owned(), pretty(&manual::profile())),
            ]
        }
    }
}

/// The command without what its help does not show either.
fn offered(command: &Command) -> Command {
    // What has been built knows its names for ever, what is made by hand has to say them so: a few, once.
    let mut out = Command::new(&*command.get_name().to_owned().leak())
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()).cloned())
        .subcommands(command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(offered));
    if let Some(about) = command.get_about() {
        out = out.about(about.clone());
    }
    if let Some(about) = command.get_long_about() {
        out = out.long_about(about.clone());
    }
    if let Some(version) = command.get_version() {
        out = out.version(&*version.to_owned().leak());
    }
    out
}

fn completions(shell: Shell) -> String {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut offered(&Cli::command()), "knock-agent", &mut out);
    // For bash it calls a program with a dash in its name one thing where it looks for the verb, and another where it
    // has one, so that nothing after the verb is completed.
    String::from_utf8_lossy(&out).replace("knock__subcmd__agent", "knock__agent")
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// Writes the files.
#[must_use]
pub fn run(args: GenerateArgs) -> Exit {
    let mut err = Printer::stderr();
    let mut all = generated(args.what);
    if let Some(only) = &args.only {
        let names: Vec<String> = all.iter().map(|(name, _)| name.clone()).collect();
        all.retain(|(name, _)| name == only);
        if all.is_empty() {
            err.line(format!("error: there is no `{only}`: it is one of {}", names.join(", ")));
            return err.finish(Exit::Usage);
        }
    }
    if args.folder.as_os_str() == "-" {
        let mut out = Printer::stdout();
        for (_, text) in &all {
            out.line(text.trim_end_matches('\n'));
        }
        return out.finish(err.finish(Exit::Done));
    }
    let made = files::make_directory(&args.folder, 0o755);
    let written = made.and_then(|()| {
        all.iter()
            .try_for_each(|(name, text)| files::replace(&args.folder.join(name), 0o644, text.as_bytes()))
    });
    match written {
        Ok(()) => err.finish(Exit::Done),
        Err(error) => {
            err.line(format!("error: {}: {error}", args.folder.display()));
            let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
            err.finish(if denied { Exit::NoPermission } else { Exit::Io })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    /// What is committed, and how it is made again.
    const COMMITTED: &[(What, &str)] = &[
        (What::Man, "packaging/man"),
        (What::Completions, "packaging/completions"),
        (What::Schema, "config"),
    ];

    #[test]
    fn what_is_committed_is_what_the_program_generates() {
        for (what, folder) in COMMITTED {
            let made: BTreeMap<String, String> = generated(*what).into_iter().collect();
            let at = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            let there: BTreeMap<String, String> = std::fs::read_dir(&at)
                .unwrap_or_else(|error| panic!("{folder}: {error}"))
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
                .filter(|(name, _)| *what != What::Schema || name.ends_with(".schema.json"))
                .map(|(name, path)| (name, std::fs::read_to_string(path).unwrap()))
                .collect();
            let word = format!("{what:?}").to_lowercase();
            let again = format!("cargo run -- generate {word} {folder}");
            let names = |all: &BTreeMap<String, String>| all.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&there), names(&made), "{folder} is out of date: {again}");
            for (name, text) in &made {
                assert!(there.get(name) == Some(text), "{folder}/{name} is out of date: {again}");
            }
        }
    }

    #[test]
    fn completions_offer_what_help_shows_and_nothing_else() {
        for (name, text) in generated(What::Completions) {
            assert!(text.contains("config") && text.contains("http-port"), "{name}");
            for hidden in ["runtime-dir", "state-dir"] {
                assert!(!text.contains(hidden), "{name}: {hidden}");
            }
        }
    }

    #[test]
    fn every_page_has_what_a_reader_looks_for() {
        for (name, text) in generated(What::Man) {
            for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "FILES", "SEE ALSO"] {
                assert!(text.contains(&format!("\n.SH \"{heading}\"\n")), "{name}: {heading}");
            }
            let verb = !name.ends_with(".5");
            assert_eq!(text.contains("\n.SH \"EXIT STATUS\"\n"), verb, "{name}");
            assert!(!text.contains("\n\n"), "{name}: an empty line is a space that nobody asked for");
        }
    }
}
