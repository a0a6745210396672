//! Phrases about the client's end of a connection (protocol, address, port), and about how its handshake stands.

use super::{
    Base, CmpOp, CtKey, Expr, MetaKey, R0, Reg, RuleText, Side, TCP_STATE_FLAGS, ct_state, port_offset,
};
use crate::ruleset::expr::Verdict;
use crate::ruleset::model::Rule;
use crate::units::{Family, Protocol};

const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;
const TCP_FIN: u8 = 0x01;
/// Where the numbers of a TCP header are, in bytes.
const SEQUENCE: u32 = 4;
const ACKNOWLEDGED: u32 = 8;

impl RuleText {
    /// `ip saddr @set`, masked, in a rule that has matched the family already
    pub(in crate::ruleset) fn addr_in_here(
        self,
        family: Family,
        side: Side,
        v6_prefix: u8,
        set: &str,
    ) -> Self {
        self.addr(family, side).masked(family, v6_prefix).lookup(set, false)
    }

    /// `return`
    pub(in crate::ruleset) fn back(self) -> Rule {
        self.verdict(Verdict::Return)
    }

    /// `meta l4proto . ip saddr . th sport`, or daddr and dport; the register behind it
    fn end_key(self, family: Family, side: Side) -> (Self, Reg) {
        let port = match family {
            Family::V4 => 2,
            Family::V6 => 5,
        };
        let text = self.meta(MetaKey::L4Proto, R0).addr_to(family, side, Reg(1)).payload(
            Base::Transport,
            port_offset(side),
            2,
            Reg(port),
        );
        (text, Reg(port + 1))
    }

    /// `meta l4proto . ip saddr . th sport @set`
    pub(in crate::ruleset) fn end_in(self, family: Family, side: Side, set: &str) -> Self {
        self.family(family).end_in_here(family, side, set)
    }

    /// The same in a rule that has matched the family already
    pub(in crate::ruleset) fn end_in_here(self, family: Family, side: Side, set: &str) -> Self {
        self.end_key(family, side).0.lookup(set, false)
    }

    /// `update @set { meta l4proto . ip saddr . th sport timeout … }` in a rule that has matched the family already
    pub(in crate::ruleset) fn update_end_here(self, family: Family, set: &str, timeout_ms: u64) -> Self {
        self.end_key(family, Side::Source).0.renew(set, timeout_ms)
    }

    /// `delete @set { meta l4proto . ip saddr . th sport }` in a rule that has matched the family already
    pub(in crate::ruleset) fn forget_end_here(self, family: Family, set: &str) -> Self {
        let text = self.end_key(family, Side::Source).0;
        text.push(Expr::Forget { set: set.to_owned(), reg: R0, data: None })
    }

    /// `meta l4proto . ip saddr . th sport . tcp ackseq @set` in a rule that has matched family and protocol already
    pub(in crate::ruleset) fn acknowledged_in_here(self, family: Family, set: &str) -> Self {
        let (text, next) = self.end_key(family, Side::Source);
        text.payload(Base::Transport, ACKNOWLEDGED, 4, next).lookup(set, false)
    }

    /// `update @set { meta l4proto . ip daddr . th dport . tcp sequence ^ FLIP timeout … }`
    pub(in crate::ruleset) fn expect_acknowledged(
        self,
        family: Family,
        set: &str,
        flip: u32,
        timeout_ms: u64,
    ) -> Self {
        let (text, next) = self.family(family).end_key(family, Side::Destination);
        text.payload(Base::Transport, SEQUENCE, 4, next)
            .push(Expr::Bitwise { reg: next, mask: vec![0xff; 4], xor: flip.to_be_bytes().to_vec() })
            .renew(set, timeout_ms)
    }

    /// `tcp sequence & MASK == VALUE` in a rule that has matched the protocol already
    pub(in crate::ruleset) fn sequence_ends_in(self, mask: u32, value: u32) -> Self {
        self.payload(Base::Transport, SEQUENCE, 4, R0)
            .push(Expr::Bitwise { reg: R0, mask: mask.to_be_bytes().to_vec(), xor: vec![0; 4] })
            .cmp(R0, CmpOp::Eq, &value.to_be_bytes())
    }

    /// `tcp flags & (syn|rst|ack) == ack`
    pub(in crate::ruleset) fn acknowledging(self) -> Self {
        self.l4proto(Protocol::Tcp)
            .payload(Base::Transport, 13, 1, R0)
            .push(Expr::Bitwise { reg: R0, mask: vec![TCP_STATE_FLAGS & !TCP_FIN], xor: vec![0] })
            .cmp(R0, CmpOp::Eq, &[TCP_ACK])
    }

    /// `tcp flags & rst != 0`
    pub(in crate::ruleset) fn any_reset(self) -> Self {
        self.any_flag(TCP_RST)
    }

    /// `ip saddr . tcp sport`, or daddr and dport, of that protocol
    fn service_key(self, protocol: Protocol, family: Family, side: Side) -> Self {
        self.family(family).l4proto(protocol).service_key_here(family, side)
    }

    fn service_key_here(self, family: Family, side: Side) -> Self {
        let port = match family {
            Family::V4 => 1,
            Family::V6 => 4,
        };
        self.addr_to(family, side, R0).payload(Base::Transport, port_offset(side), 2, Reg(port))
    }

    /// `ip saddr . udp sport @set` in a rule that has matched family and protocol already
    pub(in crate::ruleset) fn service_in_here(self, family: Family, side: Side, set: &str) -> Self {
        self.service_key_here(family, side).lookup(set, false)
    }

    /// `ip saddr . tcp sport @set`
    pub(in crate::ruleset) fn service_in(
        self,
        protocol: Protocol,
        family: Family,
        side: Side,
        set: &str,
    ) -> Self {
        self.service_key(protocol, family, side).lookup(set, false)
    }

    /// `update @set { ip daddr . tcp dport timeout … }`
    pub(in crate::ruleset) fn update_service(
        self,
        protocol: Protocol,
        family: Family,
        set: &str,
        timeout_ms: u64,
    ) -> Self {
        self.service_key(protocol, family, Side::Destination).renew(set, timeout_ms)
    }

    /// `ct state established,new`
    pub(in crate::ruleset) fn new_or_established(self) -> Self {
        self.ct_bits(CtKey::State, ct_state::ESTABLISHED | ct_state::NEW)
    }

    fn renew(self, set: &str, timeout_ms: u64) -> Self {
        self.push(Expr::Update { set: set.to_owned(), reg: R0, timeout_ms, limit: None })
    }
}
