//! knock-port's flags about the host's own tables and chains, and what they mean here.

use clap::Args;

use super::FirewallType;
use crate::ruleset::host_chain::{HostChains, Wish};
use crate::ruleset::model::Hook;

/// Above them in the help.
const HOST: &str = "Chains of the host that are to accept what is let in (one rule in each)";
/// Above the others.
const NAT: &str = "Flags of knock-port that are not needed here (accepted)";

/// The filter table that knock-port takes unless told otherwise.
const FILTER: &str = "filter";
/// VyOS 1.4 and later.
const VYOS_FILTER: &str = "vyos_filter";

/// Tables and chains of the host.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct HostArgs {
    /// The host's filter table; alone, it means every chain that is hooked in it [default: filter; vyos: vyos_filter]
    #[arg(long, help_heading = HOST, value_name = "TABLE")]
    pub nftables_table_filter: Option<String>,

    /// The host's chain for local services [vyos: NAME_IN-KnockPort, for IPv6 NAME6_IN-KnockPort]
    #[arg(long, help_heading = HOST, value_name = "CHAIN")]
    pub nftables_chain_input: Option<String>,

    /// The host's chain for forwarded services [vyos: NAME_FWD-KnockPort, for IPv6 NAME6_FWD-KnockPort]
    #[arg(long, help_heading = HOST, value_name = "CHAIN")]
    pub nftables_chain_forward: Option<String>,

    /// The host's chain hooked to input, where it is not every one of that table
    #[arg(long, help_heading = HOST, value_name = "CHAIN")]
    pub nftables_chain_default_input: Option<String>,

    /// The host's chain hooked to output, where it drops the answers of step 1
    #[arg(long, help_heading = HOST, value_name = "CHAIN")]
    pub nftables_chain_default_output: Option<String>,

    /// The host's chain hooked to forward, where it is not every one of that table
    #[arg(long, help_heading = HOST, value_name = "CHAIN")]
    pub nftables_chain_default_forward: Option<String>,

    /// The host's nat table
    #[arg(long, help_heading = NAT, value_name = "TABLE")]
    pub nftables_table_nat: Option<String>,

    /// The host's chain hooked to nat prerouting
    #[arg(long, help_heading = NAT, value_name = "CHAIN")]
    pub nftables_chain_default_prerouting: Option<String>,

    /// The host's chain hooked to nat postrouting
    #[arg(long, help_heading = NAT, value_name = "CHAIN")]
    pub nftables_chain_default_postrouting: Option<String>,
}

impl HostArgs {
    /// A sentence for each flag given that has nothing to do.
    #[must_use]
    pub fn notes(&self, firewall: FirewallType) -> Vec<String> {
        if firewall == FirewallType::Iptables && *self != Self::default() {
            return vec![
                "with --firewall-type iptables, flags that begin with --nftables- do nothing".to_owned(),
            ];
        }
        let given = [
            (&self.nftables_table_nat, "--nftables-table-nat"),
            (&self.nftables_chain_default_prerouting, "--nftables-chain-default-prerouting"),
            (&self.nftables_chain_default_postrouting, "--nftables-chain-default-postrouting"),
        ];
        let flags = given.into_iter().filter(|(value, _)| value.is_some());
        flags
            .map(|(_, flag)| {
                format!(
                    "{flag} is not needed: addresses are translated in a table of our own, and no rule in the host's nat tables has to let that pass"
                )
            })
            .collect()
    }

    /// The chains that the flags ask for.
    #[must_use]
    pub fn wishes(&self, firewall: FirewallType) -> HostChains {
        let wishes = match firewall {
            FirewallType::Nftables => self.named(),
            FirewallType::Vyos => self.vyos(),
            FirewallType::Iptables => Vec::new(),
        };
        HostChains { wishes }
    }

    fn per_hook(&self) -> [(Hook, &Option<String>, &Option<String>); 3] {
        [
            (Hook::Input, &self.nftables_chain_input, &self.nftables_chain_default_input),
            (Hook::Forward, &self.nftables_chain_forward, &self.nftables_chain_default_forward),
            (Hook::Output, &None, &self.nftables_chain_default_output),
        ]
    }

    /// Only what the operator named; the table alone means all that is hooked in it.
    fn named(&self) -> Vec<Wish> {
        let hooks = self.per_hook();
        let no_chain = hooks.iter().all(|(_, chain, base)| chain.is_none() && base.is_none());
        let whole_table = no_chain && self.nftables_table_filter.is_some();
        let table = self.nftables_table_filter.as_deref().unwrap_or(FILTER);
        hooks
            .into_iter()
            .filter(|(_, chain, base)| whole_table || chain.is_some() || base.is_some())
            .map(|(hook, chain, base)| Wish {
                table: table.to_owned(),
                hook,
                chain: chain.clone(),
                base: base.clone(),
                else_base: true,
                // A table without a chain on some hook is nothing to complain about.
                by_operator: !whole_table || hook == Hook::Input,
            })
            .collect()
    }

    /// VyOS's names: 1.4 and later and, unless a table is named, 1.3.
    fn vyos(&self) -> Vec<Wish> {
        let later = [Some("NAME_IN-KnockPort"), Some("NAME_FWD-KnockPort"), None];
        let table = self.nftables_table_filter.as_deref().unwrap_or(VYOS_FILTER);
        let mut wishes: Vec<Wish> = self
            .per_hook()
            .into_iter()
            .zip(later)
            .map(|((hook, chain, base), usual)| Wish {
                table: table.to_owned(),
                hook,
                chain: chain.clone().or_else(|| usual.map(str::to_owned)),
                base: base.clone(),
                else_base: true,
                by_operator: chain.is_some() || base.is_some(),
            })
            .collect();
        if self.nftables_table_filter.is_none() {
            let hooks = [
                (Hook::Input, "VYATTA_PRE_FW_IN_HOOK"),
                (Hook::Forward, "VYATTA_PRE_FW_FWD_HOOK"),
                (Hook::Output, "VYATTA_PRE_FW_OUT_HOOK"),
            ];
            // Other programs have a table of that name as well: without these chains, it is left alone.
            wishes.extend(hooks.map(|(hook, chain)| Wish {
                table: FILTER.to_owned(),
                hook,
                chain: Some(chain.to_owned()),
                base: None,
                else_base: false,
                by_operator: false,
            }));
        }
        wishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn without_a_flag_no_table_of_the_host_is_touched() {
        let none = HostArgs::default();
        assert!(none.wishes(FirewallType::Nftables).is_empty());
        let nat = HostArgs { nftables_table_nat: some("nat"), ..HostArgs::default() };
        assert!(nat.wishes(FirewallType::Nftables).is_empty());
        assert_eq!(nat.notes(FirewallType::Nftables).len(), 1);
        assert!(nat.notes(FirewallType::Nftables)[0].starts_with("--nftables-table-nat "), "{nat:?}");
        assert_eq!(nat.notes(FirewallType::Iptables).len(), 1);
        assert!(HostArgs::default().notes(FirewallType::Iptables).is_empty());
    }

    #[test]
    fn a_chain_is_looked_for_in_knock_port_s_table_and_a_table_alone_means_all_its_hooks() {
        let chain = HostArgs { nftables_chain_input: some("IN-KnockPort"), ..HostArgs::default() };
        let wishes = chain.wishes(FirewallType::Nftables).wishes;
        assert_eq!(wishes.len(), 1);
        assert_eq!((wishes[0].table.as_str(), wishes[0].hook), ("filter", Hook::Input));
        let table = HostArgs { nftables_table_filter: some("fw4"), ..HostArgs::default() };
        let wishes = table.wishes(FirewallType::Nftables).wishes;
        let hooks: Vec<Hook> = wishes.iter().map(|wish| wish.hook).collect();
        assert_eq!(hooks, [Hook::Input, Hook::Forward, Hook::Output]);
        assert!(wishes.iter().all(|wish| wish.table == "fw4" && wish.chain.is_none()));
    }

    #[test]
    fn vyos_has_names_of_its_own_that_can_be_overridden() {
        let vyos = HostArgs::default().wishes(FirewallType::Vyos);
        assert_eq!(vyos.tables(), ["filter", "vyos_filter"]);
        assert!(vyos.wishes.iter().all(|wish| !wish.by_operator));
        let chains: Vec<&str> = vyos.wishes.iter().filter_map(|wish| wish.chain.as_deref()).collect();
        assert_eq!(chains[..2], ["NAME_IN-KnockPort", "NAME_FWD-KnockPort"]);
        let other = HostArgs {
            nftables_chain_input: some("NAME_WAN-LOCAL"),
            nftables_table_filter: some("vyos_filter"),
            ..HostArgs::default()
        };
        let other = other.wishes(FirewallType::Vyos);
        assert_eq!(other.tables(), ["vyos_filter"]);
        assert_eq!(other.wishes[0].chain.as_deref(), Some("NAME_WAN-LOCAL"));
    }
}
