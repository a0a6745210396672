//! Phrases about knocks: where a source stands, by a packet mark, and where that leads to.

use super::{CmpOp, CtKey, Expr, Limit, MetaKey, R0, Reg, RuleText, Side, ct_state, port_offset};
use crate::ruleset::expr::Base;
use crate::units::{Family, Protocol};

/// The register behind the longest address; nft takes the same.
const VALUE: Reg = Reg(4);

impl RuleText {
    /// `ip saddr . tcp sport . tcp dport`
    fn syn_key(self, family: Family) -> Self {
        let next = match family {
            Family::V4 => 1,
            Family::V6 => 4,
        };
        self.family(family)
            .l4proto(Protocol::Tcp)
            .addr(family, Side::Source)
            .payload(Base::Transport, port_offset(Side::Source), 2, Reg(next))
            .payload(Base::Transport, port_offset(Side::Destination), 2, Reg(next + 1))
    }

    /// `ip saddr . tcp sport . tcp dport @set`
    pub(in crate::ruleset) fn syn_in(self, family: Family, set: &str) -> Self {
        self.syn_key(family).lookup(set, false)
    }

    /// `add @set { ip saddr . tcp sport . tcp dport timeout … }`
    pub(in crate::ruleset) fn remember_syn(self, family: Family, set: &str, timeout_ms: u64) -> Self {
        self.syn_key(family).push(Expr::Remember { set: set.to_owned(), reg: R0, timeout_ms, data: None })
    }

    /// `meta mark set VALUE`
    pub(in crate::ruleset) fn set_mark(self, value: u32) -> Self {
        self.push(Expr::Immediate { reg: R0, data: value.to_ne_bytes().to_vec() })
            .push(Expr::MetaSet { key: MetaKey::Mark, reg: R0 })
    }

    /// `meta mark VALUE`
    pub(in crate::ruleset) fn mark_is(self, value: u32) -> Self {
        self.meta(MetaKey::Mark, R0).cmp(R0, CmpOp::Eq, &value.to_ne_bytes())
    }

    /// `meta mark != VALUE`
    pub(in crate::ruleset) fn mark_is_not(self, value: u32) -> Self {
        self.meta(MetaKey::Mark, R0).cmp(R0, CmpOp::Ne, &value.to_ne_bytes())
    }

    /// `meta mark @set`
    pub(in crate::ruleset) fn mark_in(self, set: &str) -> Self {
        self.meta(MetaKey::Mark, R0).lookup(set, false)
    }

    /// `update @set { meta mark timeout … limit rate … }`
    pub(in crate::ruleset) fn update_mark(self, set: &str, timeout_ms: u64, limit: Limit) -> Self {
        let (set, limit) = (set.to_owned(), Some(limit));
        self.meta(MetaKey::Mark, R0).push(Expr::Update { set, reg: R0, timeout_ms, limit })
    }

    fn mark_from(self, map: &str) -> Self {
        self.push(Expr::Map { set: map.to_owned(), reg: R0, to: R0 })
            .push(Expr::MetaSet { key: MetaKey::Mark, reg: R0 })
    }

    /// `ip saddr @set meta mark set ip saddr map @map`
    pub(in crate::ruleset) fn mark_of_source(self, family: Family, set: &str, map: &str) -> Self {
        self.family(family)
            .addr(family, Side::Source)
            .lookup(set, false)
            .addr(family, Side::Source)
            .mark_from(map)
    }

    /// `meta mark set meta mark . meta l4proto . th dport map @map`
    pub(in crate::ruleset) fn mark_by_knock(self, map: &str) -> Self {
        self.meta(MetaKey::Mark, R0)
            .meta(MetaKey::L4Proto, Reg(1))
            .payload(Base::Transport, port_offset(Side::Destination), 2, Reg(2))
            .mark_from(map)
    }

    /// `meta mark set meta mark . udp dport . udp length map @map`
    pub(in crate::ruleset) fn mark_by_sized_knock(self, map: &str) -> Self {
        self.l4proto(Protocol::Udp)
            .meta(MetaKey::Mark, R0)
            .payload(Base::Transport, port_offset(Side::Destination), 2, Reg(1))
            .payload(Base::Transport, 4, 2, Reg(2))
            .mark_from(map)
    }

    /// `meta mark vmap @map`
    pub(in crate::ruleset) fn mark_vmap(self, map: &str) -> Self {
        self.meta(MetaKey::Mark, R0).lookup(map, true)
    }

    /// `add @map { ip saddr timeout … : meta mark }`
    pub(in crate::ruleset) fn remember_mark(self, family: Family, map: &str, timeout_ms: u64) -> Self {
        self.family(family).addr(family, Side::Source).meta(MetaKey::Mark, VALUE).push(Expr::Remember {
            set: map.to_owned(),
            reg: R0,
            timeout_ms,
            data: Some(VALUE),
        })
    }

    /// `delete @map { ip saddr : meta mark }`
    pub(in crate::ruleset) fn forget_mark(self, family: Family, map: &str) -> Self {
        self.family(family).addr(family, Side::Source).meta(MetaKey::Mark, VALUE).push(Expr::Forget {
            set: map.to_owned(),
            reg: R0,
            data: Some(VALUE),
        })
    }

    /// `delete @set { ip saddr }`
    pub(in crate::ruleset) fn forget_source(self, family: Family, v6_prefix: u8, set: &str) -> Self {
        self.family(family).forget_source_here(family, v6_prefix, set)
    }

    /// The same in a rule that has matched the family already
    pub(in crate::ruleset) fn forget_source_here(self, family: Family, v6_prefix: u8, set: &str) -> Self {
        self.addr(family, Side::Source).masked(family, v6_prefix).push(Expr::Forget {
            set: set.to_owned(),
            reg: R0,
            data: None,
        })
    }

    /// `update @set { ip saddr timeout … }`
    pub(in crate::ruleset) fn renew_source(
        self,
        family: Family,
        v6_prefix: u8,
        set: &str,
        timeout_ms: u64,
    ) -> Self {
        self.family(family).addr(family, Side::Source).masked(family, v6_prefix).push(Expr::Update {
            set: set.to_owned(),
            reg: R0,
            timeout_ms,
            limit: None,
        })
    }

    /// `log prefix "…" group N snaplen M`
    pub(in crate::ruleset) fn log(self, prefix: &str, group: u16, snaplen: u32) -> Self {
        self.push(Expr::Log { group, prefix: prefix.to_owned(), snaplen })
    }

    /// `log prefix "…"`
    pub(in crate::ruleset) fn kernel_log(self, prefix: &str) -> Self {
        self.push(Expr::KernelLog { prefix: prefix.to_owned() })
    }

    /// `limit rate …`
    pub(in crate::ruleset) fn limit(self, limit: Limit) -> Self {
        self.push(Expr::Limit(limit))
    }

    /// `ct state new,untracked`
    pub(in crate::ruleset) fn new_or_untracked(self) -> Self {
        self.ct_bits(CtKey::State, ct_state::NEW | ct_state::UNTRACKED)
    }

    /// `ct state invalid,new,untracked`: nothing that anybody here asked for
    pub(in crate::ruleset) fn unasked(self) -> Self {
        self.ct_bits(CtKey::State, ct_state::INVALID | ct_state::NEW | ct_state::UNTRACKED)
    }

    /// `tcp flags syn / fin,syn,rst,ack`
    pub(in crate::ruleset) fn beginning(self) -> Self {
        self.l4proto(Protocol::Tcp).tcp_state(CmpOp::Eq, super::TCP_SYN)
    }
}
