//! The programs as root, for a daemon that is not: a rule of sudo lets its user start this part of ours, which looks at what they are
//! asked before it starts them. A rule about the programs themselves would be as good as root.

use super::error::IptablesError;
use super::tools::{LIMIT, RESTORE, SAVE_SETS, SET_NAMES, SETS, TEST, Variant, found};
use crate::ruleset::iptables::permitted::{beyond_listing, beyond_sets, beyond_tables};
use crate::sys::command::{self, Finished};
use crate::units::Family;

/// The first word on the command line of this part.
pub const ROLE: &str = "iptables-as-root";

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum AsRootError {
    /// Another program, or other words behind it.
    #[error("only what knock-agent itself runs is run")]
    Command,
    /// What would change what is not ours, or do something else.
    #[error("line {0} is none of knock-agent's")]
    Line(usize),
    /// It could not be found or run.
    #[error(transparent)]
    Program(#[from] IptablesError),
}

/// Runs a program, which these words name and follow, with that input.
///
/// # Errors
/// [`AsRootError`]; nothing was changed then.
pub fn run(words: &[&str], input: &str) -> Result<Finished, AsRootError> {
    let (tool, arguments) = words.split_first().ok_or(AsRootError::Command)?;
    if let Some(line) = refused(tool, arguments, input).ok_or(AsRootError::Command)? {
        return Err(AsRootError::Line(line));
    }
    let program = found(tool)?;
    let path = program.to_string_lossy();
    let all: Vec<&str> = [path.as_ref()].into_iter().chain(arguments.iter().copied()).collect();
    let done = command::run(&all, input, LIMIT);
    Ok(done.map_err(|source| IptablesError::Run { tool: (*tool).to_owned(), source })?)
}

/// The line that may not be; none at all where no such command may be.
fn refused(tool: &str, arguments: &[&str], input: &str) -> Option<Option<usize>> {
    let is = |verb: &str| {
        let each = [Variant::Legacy, Variant::Nft, Variant::Plain].into_iter();
        each.flat_map(|variant| Family::BOTH.map(|family| variant.program(family, verb)))
            .any(|name| name == tool)
    };
    let silent = || (!input.is_empty()).then_some(1);
    match tool {
        "ipset" if arguments == SET_NAMES => Some(silent()),
        "ipset" if arguments == SAVE_SETS => Some(beyond_listing(input)),
        "ipset" if arguments == SETS => Some(beyond_sets(input)),
        _ if is("save") && arguments.is_empty() => Some(silent()),
        _ if is("restore") && [RESTORE, TEST].contains(&arguments) => Some(beyond_tables(input)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_commands_of_the_daemon_are_run() {
        let ask = |words: &str, input: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            refused(words[0], &words[1..], input)
        };
        for words in [
            "ipset list -n",
            "ipset restore -exist",
            "ipset -",
            "iptables-save",
            "ip6tables-legacy-save",
            "iptables-nft-restore --noflush -w 10",
            "ip6tables-restore --test --noflush -w 10",
        ] {
            assert_eq!(ask(words, ""), Some(None), "{words}");
        }
        for words in [
            "ipset save",
            "ipset restore",
            "ipset list -n -file /x",
            "ipset",
            "iptables-legacy-save --modprobe=/x",
            "iptables-legacy-restore --noflush -w 10 -M /x",
            "iptables-legacy-restore",
            "iptables --noflush -w 10",
            "sh",
            "",
        ] {
            assert_eq!(ask(words, ""), None, "{words}");
            let words: Vec<&str> = words.split(' ').collect();
            assert!(matches!(run(&words, ""), Err(AsRootError::Command)));
        }
        assert_eq!(ask("ipset -", "save ka_x\nsave -file /x\n"), Some(Some(2)));
        assert_eq!(ask("ipset restore -exist", "flush ka_x\nsave -file /x\n"), Some(Some(2)));
        assert_eq!(ask("iptables-nft-restore --noflush -w 10", "*raw\n-A KA-a -M /x\n"), Some(Some(2)));
        assert_eq!(ask("ipset list -n", "save -file /x\n"), Some(Some(1)));
        assert_eq!(ask("iptables-save", "x"), Some(Some(1)));
    }

    #[test]
    fn the_rule_of_sudo_names_these_commands_and_no_others() {
        let text = include_str!("../../../packaging/sudoers.d/knock-agent-iptables");
        let lines = text.replace("\\\n", " ");
        let aliases = lines.lines().filter_map(|line| line.strip_prefix("Cmnd_Alias ")?.split_once(" = "));
        let mut count = 0;
        for command in aliases.flat_map(|(_, commands)| commands.split(", ")) {
            let words: Vec<&str> = command.split_whitespace().collect();
            let ["/usr/bin/knock-agent", ROLE, tool, arguments @ ..] = words.as_slice() else {
                panic!("{command}");
            };
            assert!(refused(tool, arguments, "").is_some(), "{command}");
            count += 1;
        }
        assert_eq!(count, 3 + 3 * 2 * 3);
    }
}
