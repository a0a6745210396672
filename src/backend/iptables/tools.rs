//! The programs: which of their variants this host uses, and how they are run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::as_root::ROLE;
use super::boot::Boot;
use super::error::IptablesError;
use crate::ruleset::iptables::plan::Matcher;
use crate::ruleset::iptables::save::{Listing, listing};
use crate::sys::{command, files};
use crate::units::Family;

/// Longer than a million elements take.
pub(super) const LIMIT: Duration = Duration::from_secs(25);
/// Loads text into tables, waiting for others who change them; or has it checked only.
pub(super) const RESTORE: &[&str] = &["--noflush", "-w", "10"];
pub(super) const TEST: &[&str] = &["--test", "--noflush", "-w", "10"];
/// Tells the names of sets, lists sets, and changes them.
pub(super) const SET_NAMES: &[&str] = &["list", "-n"];
pub(super) const SAVE_SETS: &[&str] = &["-"];
pub(super) const SETS: &[&str] = &["restore", "-exist"];

/// Which iptables: the kernel's old tables, or nf_tables under the same commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// `iptables-legacy-restore`
    Legacy,
    /// `iptables-nft-restore`
    Nft,
    /// `iptables-restore`, where neither goes by its own name.
    Plain,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "iptables-legacy",
            Self::Nft => "iptables-nft",
            Self::Plain => "iptables",
        })
    }
}

impl Variant {
    pub(super) fn program(self, family: Family, verb: &str) -> String {
        let stem = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        match self {
            Self::Legacy => format!("{stem}-legacy-{verb}"),
            Self::Nft => format!("{stem}-nft-{verb}"),
            Self::Plain => format!("{stem}-{verb}"),
        }
    }

    fn exists(self) -> bool {
        command::find(&self.program(Family::V4, "restore")).is_some()
    }
}

/// The programs of one variant, by absolute path.
#[derive(Debug)]
pub struct Tools {
    /// Which.
    pub variant: Variant,
    restore: [PathBuf; 2],
    save: [PathBuf; 2],
    ipset: Option<PathBuf>,
    sudo: Option<Sudo>,
    /// Which run of the kernel this is.
    pub(super) boot: Boot,
}

impl Tools {
    /// Finds the programs of the variant that the host uses, unless one is named.
    ///
    /// # Errors
    /// [`IptablesError::Missing`] names what is not installed and its package.
    pub fn find(variant: Option<Variant>, use_sudo: bool) -> Result<Self, IptablesError> {
        let sudo = if use_sudo { Some(Sudo::find()?) } else { None };
        match variant {
            Some(variant) => Self::of(variant, sudo)?.alone(),
            None => Self::in_use(sudo),
        }
    }

    /// Those of the kernel's old tables, whatever is in the others.
    ///
    /// # Errors
    /// As [`Tools::find`].
    pub fn legacy() -> Result<Self, IptablesError> {
        Self::of(Variant::Legacy, None)
    }

    /// Unless only the other variant guards: each would drop what the other lets in.
    fn alone(self) -> Result<Self, IptablesError> {
        let has_ours =
            |tools: &Self| tools.listings().is_ok_and(|listings| listings.iter().any(Listing::has_ours));
        match self.others().iter().find(|other| has_ours(other)) {
            Some(other) if has_ours(&self) => {
                tracing::warn!(
                    "a guard by {} is in place as well: it is not kept up to date, and may drop what is let in; stop, `knock-agent teardown` removes both, and start again",
                    other.variant
                );
                Ok(self)
            }
            Some(other) => Err(IptablesError::BesideVariant(other.variant)),
            None => Ok(self),
        }
    }

    /// Those of the other variant, where it is installed.
    pub(super) fn others(&self) -> Vec<Self> {
        let other = match self.variant {
            Variant::Legacy => Variant::Nft,
            Variant::Nft => Variant::Legacy,
            // Whichever that is.
            Variant::Plain => return Vec::new(),
        };
        Self::of(other, self.sudo.clone()).into_iter().collect()
    }

    fn of(variant: Variant, sudo: Option<Sudo>) -> Result<Self, IptablesError> {
        let missing = IptablesError::Missing {
            tool: match variant {
                Variant::Legacy => "iptables-legacy-restore",
                Variant::Nft => "iptables-nft-restore",
                Variant::Plain => "iptables-restore",
            },
            package: "iptables",
        };
        let of = |verb: &str| {
            let [v4, v6] = Family::BOTH.map(|family| command::find(&variant.program(family, verb)));
            Some([v4?, v6?])
        };
        let (Some(restore), Some(save)) = (of("restore"), of("save")) else { return Err(missing) };
        // Through sudo nothing else could be written.
        let ipset = if sudo.is_some() { Some(found("ipset")?) } else { command::find("ipset") };
        Ok(Self { variant, restore, save, ipset, sudo, boot: Boot::this() })
    }

    /// The variant in which ours is already; else the one that has rules; else the one that `iptables` is.
    fn in_use(sudo: Option<Sudo>) -> Result<Self, IptablesError> {
        let named: Vec<Variant> =
            [Variant::Legacy, Variant::Nft].into_iter().filter(|variant| variant.exists()).collect();
        let mut used = Vec::new();
        for &variant in &named {
            let tools = Self::of(variant, sudo.clone())?;
            // A kernel without the one or the other refuses even to list it.
            let Ok(listings) = tools.listings() else { continue };
            if listings.iter().any(Listing::has_ours) {
                return Ok(tools);
            }
            if listings.iter().any(|listing| listing.used) {
                used.push(variant);
            }
        }
        match used.as_slice() {
            [only] => Self::of(*only, sudo),
            _ => Self::of(default(&named), sudo),
        }
    }

    /// Whether the programs are run through sudo.
    #[must_use]
    pub fn uses_sudo(&self) -> bool {
        self.sudo.is_some()
    }

    /// Whether the kernel knows IPv6 at all; without, there is nothing to guard and ip6tables fails.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        files::exists(Path::new("/proc/net/if_inet6"))
    }

    /// What both families' tables hold.
    ///
    /// # Errors
    /// [`IptablesError`] when they cannot be listed.
    pub fn listings(&self) -> Result<[Listing; 2], IptablesError> {
        Ok(self.saved()?.map(|text| listing(&text)))
    }

    /// The same as it is written, with what was counted; through sudo without, as sudoers name the program without
    /// arguments.
    ///
    /// # Errors
    /// [`IptablesError`] when they cannot be listed.
    pub fn saved(&self) -> Result<[String; 2], IptablesError> {
        let [v4, v6] = &self.save;
        let counted: &[&str] = if self.uses_sudo() { &[] } else { &["--counters"] };
        let v6 = if self.has_ipv6() { self.run(v6, counted, "")? } else { String::new() };
        Ok([self.run(v4, counted, "")?, v6])
    }

    /// Loads text into a family's tables; what it does not name stays.
    ///
    /// # Errors
    /// [`IptablesError`]; tables before the one that was refused are changed.
    pub fn restore(&self, family: Family, text: &str) -> Result<(), IptablesError> {
        self.run(self.restorer(family), RESTORE, text).map(drop)
    }

    /// Has text checked and loads nothing.
    ///
    /// # Errors
    /// [`IptablesError::Refused`] with the reason.
    pub fn test(&self, family: Family, text: &str) -> Result<(), IptablesError> {
        self.run(self.restorer(family), TEST, text).map(drop)
    }

    fn restorer(&self, family: Family) -> &PathBuf {
        let [v4, v6] = &self.restore;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// The names of all sets.
    ///
    /// # Errors
    /// [`IptablesError`] when they cannot be listed.
    pub fn set_names(&self) -> Result<Vec<String>, IptablesError> {
        let Some(ipset) = &self.ipset else { return Ok(Vec::new()) };
        Ok(self.run(ipset, SET_NAMES, "")?.lines().map(str::to_owned).collect())
    }

    /// These sets with their elements, as `ipset save` writes them.
    ///
    /// # Errors
    /// [`IptablesError`] when one of them is gone.
    pub fn save_sets(&self, names: &[&str]) -> Result<String, IptablesError> {
        if names.is_empty() {
            return Ok(String::new());
        }
        let commands: String = names.iter().map(|name| format!("save {name}\n")).collect();
        self.run(self.ipset()?, SAVE_SETS, &commands)
    }

    /// The same of one set; none where somebody removed it.
    ///
    /// # Errors
    /// [`IptablesError`] when nobody can tell.
    pub fn save_set(&self, name: &str) -> Result<Option<String>, IptablesError> {
        match self.save_sets(&[name]) {
            Err(_) if !self.set_names()?.iter().any(|have| have == name) => Ok(None),
            saved => saved.map(Some),
        }
    }

    /// Carries out commands for sets; what is there already, or gone already, is no error.
    ///
    /// # Errors
    /// [`IptablesError`]; the commands before the one that was refused are carried out.
    pub fn sets(&self, commands: &str) -> Result<(), IptablesError> {
        if commands.is_empty() {
            return Ok(());
        }
        let commands = self.boot.sign(commands.to_owned());
        self.run(self.ipset()?, SETS, &commands).map(drop)
    }

    /// Goes on without ipset where the program is missing or the kernel has none; whether it does.
    ///
    /// # Errors
    /// [`IptablesError`] where nobody can tell.
    pub fn without_ipset(&mut self) -> Result<bool, IptablesError> {
        match self.set_names() {
            Err(IptablesError::Refused { .. }) if !self.uses_sudo() => self.ipset = None,
            Ok(_) | Err(IptablesError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(self.ipset.is_none())
    }

    /// `-m bpf` where the kernel has it.
    #[must_use]
    pub fn matcher(&self) -> Matcher {
        match self.probe("-m bpf --bytecode \"1,6 0 0 0\"") {
            Err(IptablesError::Refused { .. }) => Matcher::U32,
            Ok(()) | Err(_) => Matcher::Bpf,
        }
    }

    /// Whether the kernel has `-m recent`.
    ///
    /// # Errors
    /// [`IptablesError::NoSets`] where it does not.
    pub fn probe_lists(&self) -> Result<(), IptablesError> {
        match self.probe("-m recent --rcheck --seconds 1 --name ka_probe --rsource") {
            Err(IptablesError::Refused { .. }) => Err(IptablesError::NoSets),
            other => other,
        }
    }

    /// Whether the kernel has these matches, or targets.
    ///
    /// # Errors
    /// [`IptablesError`] where nobody can tell.
    pub fn knows(&self, rules: &[&str]) -> Result<bool, IptablesError> {
        let rules: String = rules.iter().map(|rule| format!("-A KA-probe {rule}\n")).collect();
        match self.test(Family::V4, &format!("*mangle\n:KA-probe - [0:0]\n{rules}COMMIT\n")) {
            Err(IptablesError::Refused { .. }) => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn probe(&self, matching: &str) -> Result<(), IptablesError> {
        let text = format!("*mangle\n:KA-probe - [0:0]\n-A KA-probe {matching} -j RETURN\nCOMMIT\n");
        self.test(Family::V4, &text)
    }

    fn ipset(&self) -> Result<&Path, IptablesError> {
        self.ipset.as_deref().ok_or(IptablesError::Missing { tool: "ipset", package: "ipset" })
    }

    fn run(&self, program: &Path, arguments: &[&str], input: &str) -> Result<String, IptablesError> {
        let tool = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let before = self
            .sudo
            .as_ref()
            .map_or_else(|| vec![program.to_string_lossy().into_owned()], |sudo| sudo.words(program, &tool));
        let words: Vec<&str> = before.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        let done = command::run(&words, input, LIMIT)
            .map_err(|source| IptablesError::Run { tool: tool.clone(), source })?;
        if !done.status.success() {
            return Err(refusal(tool, input, &done.complaints));
        }
        // ipset's interactive mode goes on after an error and ends well.
        if arguments == SAVE_SETS && !done.complaints.trim().is_empty() {
            return Err(refusal(tool, "", &done.complaints));
        }
        Ok(done.output)
    }
}

/// How the programs become root.
#[derive(Clone, Debug)]
struct Sudo {
    program: PathBuf,
    /// This program where it is installed, if sudo lets us start that part of it; else the programs themselves are asked for.
    ourselves: Option<PathBuf>,
}

impl Sudo {
    fn find() -> Result<Self, IptablesError> {
        let mut sudo = Self { program: found("sudo")?, ourselves: command::find("knock-agent") };
        let words = sudo.words(Path::new(""), "ipset");
        let words: Vec<&str> = words.iter().map(String::as_str).chain(SET_NAMES.iter().copied()).collect();
        let may = || command::run(&words, "", LIMIT).is_ok_and(|done| done.status.success());
        if sudo.ourselves.is_none() || !may() {
            sudo.ourselves = None;
            tracing::warn!(
                "sudo does not allow `/usr/bin/knock-agent {ROLE}`: a rule that allows iptables' programs themselves \
                 is as good as root; install the file packaging/sudoers.d/knock-agent-iptables instead"
            );
        }
        Ok(sudo)
    }

    /// What comes before the arguments of a program.
    fn words(&self, program: &Path, tool: &str) -> Vec<String> {
        let mut words = vec![self.program.to_string_lossy().into_owned(), "-n".to_owned()];
        match &self.ourselves {
            Some(path) => {
                words.extend([path.to_string_lossy().into_owned(), ROLE.to_owned(), tool.to_owned()]);
            }
            None => words.push(program.to_string_lossy().into_owned()),
        }
        words
    }
}

/// A program by its name, which is that of its package as well for those without variants.
pub(super) fn found(tool: &str) -> Result<PathBuf, IptablesError> {
    let missing = match tool {
        "ipset" => ("ipset", "ipset"),
        "sudo" => ("sudo", "sudo"),
        _ => ("iptables-restore", "iptables"),
    };
    command::find(tool).ok_or(IptablesError::Missing { tool: missing.0, package: missing.1 })
}

/// The variant behind the plain name.
fn default(named: &[Variant]) -> Variant {
    let real = |name: &str| command::find(name).and_then(|path| command::real(&path));
    let plain = real("iptables-restore");
    named
        .iter()
        .copied()
        .find(|variant| plain.is_some() && real(&variant.program(Family::V4, "restore")) == plain)
        .unwrap_or(Variant::Plain)
}

/// What a program said, without what it repeats of its input: that may hold the path of step 1.
fn refusal(tool: String, input: &str, complaints: &str) -> IptablesError {
    let denied = ["Permission denied", "Operation not permitted", "must be root", "a password is required"];
    if denied.iter().any(|words| complaints.contains(words)) {
        return IptablesError::NotPermitted { tool };
    }
    let numbered = complaints.lines().find_map(line_number);
    let rule = numbered.and_then(|number| input.lines().nth(number.checked_sub(1)?)).and_then(about);
    let said = complaints.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let secret = ["bytecode", "bpf", "u32", "0x"];
    let harmless = |line: &&str| !secret.iter().any(|word| line.contains(word)) && line.len() < 200;
    let mut reason = said.filter(harmless).unwrap_or("it did not say why").to_owned();
    if let Some(rule) = rule {
        reason = format!("{reason} (at {rule})");
    }
    if reason.contains("is full, cannot add") {
        reason += "; see `knock-agent status`, and revoke what is not needed";
    }
    IptablesError::Refused { tool, reason }
}

fn line_number(line: &str) -> Option<usize> {
    let rest = line
        .split_once("line: ")
        .or_else(|| line.split_once("in line "))
        .or_else(|| line.split_once("line "))?
        .1;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// What a line of the input is for.
fn about(line: &str) -> Option<String> {
    if let Some((_, rest)) = line.split_once("--comment \"") {
        return rest.split('"').next().map(str::to_owned);
    }
    (line == "COMMIT").then(|| "the end of a table".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &str =
        "*raw\n-A KA-a -m comment --comment \"ka:step1:path\" -m bpf --bytecode \"3,1 2 3 4\" -j X\nCOMMIT\n";

    #[test]
    fn a_refusal_names_the_rule_and_repeats_nothing_secret() {
        let complaints =
            "iptables-restore v1.8.9 (legacy): bad bytecode \"3,1 2 3 4\"\n\nError occurred at line: 2\n";
        let text = refusal("iptables-restore".into(), INPUT, complaints).to_string();
        assert_eq!(text, "iptables-restore refused: it did not say why (at ka:step1:path)");
        let commit = refusal("x".into(), INPUT, "iptables-restore: line 3 failed\n").to_string();
        assert_eq!(commit, "x refused: iptables-restore: line 3 failed (at the end of a table)");
    }

    #[test]
    fn for_a_set_that_is_full_it_is_told_what_helps() {
        let complaints = "ipset v7.17: Error in line 1: Hash is full, cannot add more elements\n";
        let text = refusal("ipset".into(), "add x 192.0.2.1\n", complaints).to_string();
        assert!(text.contains("Hash is full") && text.contains("revoke what is not needed"), "{text}");
    }

    #[test]
    fn a_lack_of_permission_is_told_apart() {
        for complaints in [
            "iptables v1.8.9 (legacy): can't initialize iptables table `raw': Permission denied (you must be root)",
            "ipset v7.17: Kernel error received: Operation not permitted",
            "sudo: a password is required",
        ] {
            assert!(matches!(refusal("x".into(), "", complaints), IptablesError::NotPermitted { .. }));
        }
    }
}
