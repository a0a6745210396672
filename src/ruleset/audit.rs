//! What in the host's own rules would defeat ours, and what to do about it.

use crate::config::Settings;
use crate::ruleset::expr::{CmpOp, Expr, MetaKey, Verdict};
use crate::units::Mark;

use super::layout::Layout;
use super::model::Rule;

/// A hook where somebody else's drop is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHook {
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
}

/// A base chain of somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostChain {
    /// `inet`, `ip` or `ip6`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// Where it sits.
    pub hook: HostHook,
    /// Lower runs earlier.
    pub priority: i32,
    /// Whether its policy is drop.
    pub drops: bool,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It will not work.
    Error,
    /// It may not work, or not as wanted.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Something an operator should know before the rules are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is, for programs.
    pub code: &'static str,
    /// What it is, for people.
    pub message: String,
    /// What to do about it; empty where there is nothing to do.
    pub fix: String,
}

/// Judges the host's chains; `accepts` tells whether a chain already has a rule that accepts our mark.
#[must_use]
pub fn audit(
    layout: &Layout<'_>,
    chains: &[HostChain],
    accepts: impl Fn(&HostChain) -> bool,
) -> Vec<Finding> {
    chains
        .iter()
        .filter(|chain| chain.drops && concerns(layout, chain.hook))
        .map(|chain| default_drop(layout.settings, chain, accepts(chain)))
        .collect()
}

fn concerns(layout: &Layout<'_>, hook: HostHook) -> bool {
    match hook {
        HostHook::Input | HostHook::Output => true,
        HostHook::Forward => !layout.lan.is_empty(),
    }
}

fn default_drop(settings: &Settings, chain: &HostChain, accepted: bool) -> Finding {
    let HostChain { family, table, chain: name, .. } = chain;
    let code = match chain.hook {
        HostHook::Input | HostHook::Forward => "host-drops-by-default",
        HostHook::Output => "host-drops-output",
    };
    let which = format!("chain {family} {table} {name} drops what none of its rules accepts");
    let Some(mark) = settings.global.mark else {
        return Finding {
            severity: Severity::Warning,
            code,
            message: format!("{which}, and with global.mark: 0 it cannot tell what we let in"),
            fix: "set global.mark, or accept the guarded and the step ports in that chain".to_owned(),
        };
    };
    if accepted {
        return Finding {
            severity: Severity::Info,
            code: "host-accepts-mark",
            message: format!("{which} and accepts our mark"),
            fix: String::new(),
        };
    }
    let what = match chain.hook {
        HostHook::Input => "knocks and granted packets die there unless one of its rules accepts them",
        HostHook::Forward => "granted packets to LAN hosts die there unless one of its rules accepts them",
        HostHook::Output => {
            "the answers of step 1 are not tracked and die there unless one of its rules accepts them"
        }
    };
    Finding {
        severity: Severity::Warning,
        code,
        message: format!("{which}: {what}"),
        fix: format!("nft insert rule {family} {table} {name} {} accept", matcher(mark)),
    }
}

fn matcher(mark: Mark) -> String {
    if mark.mask() == u32::MAX {
        format!("meta mark {}", mark.value())
    } else {
        format!("meta mark and {:#x} == {:#x}", mark.mask(), mark.value())
    }
}

/// What a rule does to every packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Always {
    /// Drops or rejects it.
    Drops,
    /// Sends it to another chain.
    Goes {
        /// Which.
        to: String,
        /// Whether it comes back if nothing there decides.
        returns: bool,
    },
    /// Nothing that could be told.
    Nothing,
}

/// What a rule of somebody else's does to every packet, whatever it looks like.
#[must_use]
pub fn always(rule: &Rule) -> Always {
    let telling = |expr: &&Expr| match expr {
        Expr::Counter => false,
        Expr::Foreign(name) => name != "log",
        _ => true,
    };
    match rule.exprs.iter().filter(telling).collect::<Vec<_>>().as_slice() {
        [Expr::Verdict(Verdict::Drop)] => Always::Drops,
        [Expr::Foreign(name)] if name == "reject" => Always::Drops,
        [Expr::Verdict(Verdict::Jump(chain))] => Always::Goes { to: chain.clone(), returns: true },
        [Expr::Verdict(Verdict::Goto(chain))] => Always::Goes { to: chain.clone(), returns: false },
        _ => Always::Nothing,
    }
}

/// Whether a rule accepts packets with this mark, and asks for nothing else.
#[must_use]
pub fn accepts_mark(rule: &Rule, mark: Mark) -> bool {
    let exprs: Vec<&Expr> = rule.exprs.iter().filter(|expr| **expr != Expr::Counter).collect();
    let value = mark.value().to_ne_bytes().to_vec();
    match exprs.as_slice() {
        [
            Expr::MetaLoad { key: MetaKey::Mark, reg: load },
            Expr::Cmp { reg, op: CmpOp::Eq, data },
            Expr::Verdict(Verdict::Accept),
        ] => load == reg && *data == value && mark.mask() == u32::MAX,
        [
            Expr::MetaLoad { key: MetaKey::Mark, .. },
            Expr::Bitwise { mask, .. },
            Expr::Cmp { op: CmpOp::Eq, data, .. },
            Expr::Verdict(Verdict::Accept),
        ] => *data == value && *mask == mark.mask().to_ne_bytes().to_vec(),
        _ => false,
    }
}
