//! What an explanation says.

use serde::Serialize;

use super::cause::Cause;
use crate::ruleset::audit::host::{HostHook, TableRef};

/// Whether an address is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is.
    Open,
    /// It cannot be told.
    Unknown,
    /// It is not.
    Closed,
}

/// Something that explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it comes to.
    pub verdict: Verdict,
    /// What it is.
    pub cause: Cause,
    /// The same for people, to go on after a colon.
    pub message: String,
    /// What to try: commands for a shell, and lines for people that begin with `#`.
    pub next: Vec<String>,
}

impl Finding {
    /// One that keeps the address out.
    #[must_use]
    pub fn closed(cause: Cause, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Closed, cause, message: message.into(), next: Vec::new() }
    }

    /// One that lets it in, or matters little.
    #[must_use]
    pub fn open(cause: Cause, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Open, ..Self::closed(cause, message) }
    }

    /// One of which it cannot be told what it comes to.
    #[must_use]
    pub fn unknown(cause: Cause, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown, ..Self::closed(cause, message) }
    }

    /// The same, with what to try.
    #[must_use]
    pub fn next(mut self, line: impl Into<String>) -> Self {
        self.next.extend(line.into().lines().map(str::to_owned));
        self
    }
}

/// A place on the way of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which packet: `first`, `later` or `answer`; `knock` for any of them at step 1 or 2.
    pub packet: &'static str,
    /// Where.
    pub hook: HostHook,
    /// The table.
    pub table: TableRef,
    /// The chain of the rule, or the base chain.
    pub chain: String,
    /// The rule's number; none: the end of the chain.
    pub handle: Option<u64>,
    /// Its text: the comment of one of ours; of others', filled in by whoever can list them.
    pub rule: Option<String>,
    /// What becomes of the packet there.
    pub outcome: Outcome,
}

/// What becomes of a packet at a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passes.
    Passes,
    /// It is sent to that address and port instead.
    Translated(String),
    /// It is dropped.
    Dropped,
    /// It may be dropped.
    Doubtful,
}

/// Why an address is or is not let through to a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The app; none where the port was asked for.
    pub app: Option<String>,
    /// The service, such as `tcp/22`.
    pub service: String,
    /// What it all comes to.
    pub finding: Finding,
    /// What else is to be known.
    pub also: Vec<Finding>,
    /// The way of the packets.
    pub steps: Vec<Step>,
}

impl Answer {
    /// Makes one of everything that was found, in the order in which it weighs.
    #[must_use]
    pub fn of(
        app: Option<String>,
        service: String,
        mut findings: Vec<Finding>,
        steps: Vec<Step>,
    ) -> Option<Self> {
        let worst = findings.iter().map(|finding| finding.verdict).max()?;
        let first = findings.iter().position(|finding| finding.verdict == worst)?;
        let finding = findings.remove(first);
        Some(Self { app, service, finding, also: findings, steps })
    }
}

/// nft's word for a hook.
#[must_use]
pub fn hook_word(hook: HostHook) -> &'static str {
    match hook {
        HostHook::Ingress => "ingress",
        HostHook::Prerouting => "prerouting",
        HostHook::Input => "input",
        HostHook::Forward => "forward",
        HostHook::Output => "output",
        HostHook::Postrouting => "postrouting",
        HostHook::Egress => "egress",
    }
}
