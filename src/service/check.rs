//! The dry run: what would be done, whether the kernel would take it, and what in the
//! host's own rules would defeat it.

use crate::backend::nftables::Nftables;
use crate::backend::survey::survey;
use crate::backend::{BackendError, Scope};
use crate::config::Settings;
use crate::ruleset::audit::host::{Host, HostFamily, TableRef};
use crate::ruleset::audit::{Finding, Severity, audit};
use crate::ruleset::diff::{Change, diff};
use crate::ruleset::host_chain::{ChainName, HostChains, HostChange, Trouble};
use crate::ruleset::layout::{Layout, Options};
use crate::ruleset::plan::plan;
use crate::service::{forwarding, lockout, outside};

/// What a dry run found out.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What an operator should know.
    pub findings: Vec<Finding>,
    /// What applying would change.
    pub changes: Vec<String>,
}

impl Report {
    /// Whether nothing speaks against applying it.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }
}

/// Plans without a kernel: everything would be new.
#[must_use]
pub fn offline(settings: &Settings, options: Options) -> Report {
    Report { findings: Vec::new(), changes: words(&diff(None, &plan(settings, options))) }
}

/// Plans, compares with what is live and has the kernel check the difference; changes nothing.
///
/// # Errors
/// [`BackendError`] when the kernel cannot be asked; what it has against the plan is a finding.
pub fn online(
    nft: &mut Nftables,
    settings: &Settings,
    options: Options,
    host: &HostChains,
) -> Result<Report, BackendError> {
    let mut report = Report { findings: outside::findings(settings), ..Report::default() };
    report.findings.extend(forwarding::findings(settings));
    if !options.inner_header {
        report.findings.push(Finding {
            severity: Severity::Info,
            code: "old-kernel",
            message: "this kernel is older than Linux 5.16: the path of step 1 is matched once per length of the TCP header".to_owned(),
            fix: String::new(),
        });
    }
    let live = nft.read()?;
    let changes = diff(live.as_ref(), &plan(settings, options));
    let hosts = nft.read_host(host, settings.global.mark, Scope::Everywhere)?;
    let changes = [changes, hosts.changes()].concat();
    report.changes = words(&changes);
    report.findings.extend(hosts.plan.troubles.iter().map(trouble));
    match nft.validate(&changes) {
        Ok(()) => {}
        Err(error @ BackendError::Refused { .. }) => report.findings.push(Finding {
            severity: Severity::Error,
            code: "kernel-refuses",
            message: error.to_string(),
            fix: "modprobe -a nft_ct nft_fib_inet nft_nat nft_masq nft_limit\n# if it stays, report it with the output of uname -r".to_owned(),
        }),
        Err(error) => return Err(error),
    }
    let layout = Layout::new(settings, options);
    report.findings.extend(lockout::findings(&layout, live.as_ref(), true));
    let mut found = survey(nft)?;
    foresee(&mut found.situation.host, &hosts.plan.changes, settings);
    report.findings.extend(audit(&layout, &found.situation));
    report.findings.extend(found.doubt.map(|doubt| Finding {
        severity: Severity::Warning,
        code: "host-unknown",
        message: format!("{doubt}; the host may drop what is let in without this being noticed"),
        fix: "nft list ruleset\n# look for chains with policy drop".to_owned(),
    }));
    report.findings.sort_by_key(|finding| finding.severity);
    Ok(report)
}

fn words(changes: &[Change]) -> Vec<String> {
    changes.iter().map(Change::to_string).collect()
}

/// Judges the host as it will be once our rules are in the chains that the operator named.
fn foresee(host: &mut Host, changes: &[HostChange], settings: &Settings) {
    let table = |name: &ChainName| {
        let family = HostFamily::ALL.into_iter().find(|family| family.word() == name.family.word());
        family.map(|family| TableRef { family, table: name.table.clone() })
    };
    for change in changes {
        match change {
            HostChange::Insert { chain, before, .. } => {
                if let (Some(table), Some(mark)) = (table(chain), settings.global.mark) {
                    host.accept_mark(&table, &chain.chain, *before, mark);
                }
            }
            HostChange::Delete { chain, handle, .. } => {
                if let Some(table) = table(chain) {
                    host.forget(&table, &chain.chain, *handle);
                }
            }
        }
    }
}

fn trouble(trouble: &Trouble) -> Finding {
    let (severity, code, fix) = match trouble {
        Trouble::NoChain(_) => (
            Severity::Warning,
            "no-host-chain",
            "# make the chain and jump to it from the hooked one, or correct --nftables-chain-input and --nftables-chain-forward",
        ),
        Trouble::NotReached(_) => (
            Severity::Warning,
            "host-chain-not-reached",
            "# jump to it from the hooked chain, or name the hooked chain instead",
        ),
        Trouble::Owned(..) => (
            Severity::Error,
            "host-table-owned",
            "# have its program accept our mark or the ports (firewalld: --add-port in the zone, or NftablesTableOwner=no in firewalld.conf), and leave out the flags that name its chains",
        ),
        Trouble::Nowhere { .. } => (
            Severity::Error,
            "no-host-chain",
            "# look at `nft list chains`, and correct --nftables-table-filter and the names of the chains",
        ),
    };
    Finding { severity, code, message: trouble.to_string(), fix: fix.to_owned() }
}
