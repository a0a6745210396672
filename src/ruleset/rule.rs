//! Writes rules: each method adds what one phrase of nft's language compiles to.

use std::net::IpAddr;

use super::expr::{
    Base, CT_STATUS_CONFIRMED, CT_STATUS_DNAT, CmpOp, CtKey, Expr, Limit, MetaKey, Reg, Side, Verdict,
    addr_type, ct_state,
};
use super::model::Rule;
use crate::units::{Family, Mark, PortRange, Protocol};

mod end;
mod flow;
mod knock;

const R0: Reg = Reg(0);

/// TCP flag bits FIN, SYN, RST and ACK, the ones that tell how a connection stands.
const TCP_STATE_FLAGS: u8 = 0x17;
const TCP_SYN: u8 = 0x02;
const TCP_SYN_ACK: u8 = 0x12;

/// A rule in the making.
#[derive(Default)]
pub(super) struct RuleText {
    exprs: Vec<Expr>,
}

pub(super) fn rule() -> RuleText {
    RuleText::default()
}

impl RuleText {
    pub(super) fn push(mut self, expr: Expr) -> Self {
        self.exprs.push(expr);
        self
    }

    fn cmp(self, reg: Reg, op: CmpOp, data: &[u8]) -> Self {
        self.push(Expr::Cmp { reg, op, data: data.to_vec() })
    }

    fn meta(self, key: MetaKey, reg: Reg) -> Self {
        self.push(Expr::MetaLoad { key, reg })
    }

    fn payload(self, base: Base, offset: u32, len: u32, reg: Reg) -> Self {
        self.push(Expr::Payload { base, offset, len, reg })
    }

    fn lookup(self, set: &str, verdict: bool) -> Self {
        self.push(Expr::Lookup { set: set.to_owned(), reg: R0, verdict })
    }

    /// `iifname @set`
    pub(super) fn iifname(self, set: &str) -> Self {
        self.meta(MetaKey::IifName, R0).lookup(set, false)
    }

    /// `iifname "lo"`
    pub(super) fn on_loopback(self) -> Self {
        let mut name = [0; 16];
        name[..2].copy_from_slice(b"lo");
        self.meta(MetaKey::IifName, R0).cmp(R0, CmpOp::Eq, &name)
    }

    /// `oifname @set`
    pub(super) fn oifname(self, set: &str) -> Self {
        self.meta(MetaKey::OifName, R0).lookup(set, false)
    }

    /// `meta l4proto tcp`
    pub(super) fn l4proto(self, protocol: Protocol) -> Self {
        self.meta(MetaKey::L4Proto, R0).cmp(R0, CmpOp::Eq, &[protocol.number()])
    }

    /// `tcp dport 22`, `udp sport 6000-6010`
    pub(super) fn port(self, protocol: Protocol, side: Side, ports: PortRange) -> Self {
        let load = self.l4proto(protocol).payload(Base::Transport, port_offset(side), 2, R0);
        let (first, last) = (ports.first().to_be_bytes(), ports.last().to_be_bytes());
        if ports.is_single() {
            load.cmp(R0, CmpOp::Eq, &first)
        } else {
            load.cmp(R0, CmpOp::Ge, &first).cmp(R0, CmpOp::Le, &last)
        }
    }

    /// `tcp dport vmap @map`
    pub(super) fn port_vmap(self, protocol: Protocol, side: Side, map: &str) -> Rule {
        self.l4proto(protocol).payload(Base::Transport, port_offset(side), 2, R0).lookup(map, true).done()
    }

    /// `meta l4proto . th dport vmap @map`
    pub(super) fn service_vmap(self, map: &str) -> Rule {
        self.meta(MetaKey::L4Proto, Reg(0))
            .payload(Base::Transport, port_offset(Side::Destination), 2, Reg(1))
            .lookup(map, true)
            .done()
    }

    /// `ip daddr . meta l4proto . th dport vmap @map`, with the side given
    pub(super) fn host_service_vmap(self, family: Family, side: Side, map: &str) -> Rule {
        self.family(family).host_service_vmap_here(family, side, map)
    }

    /// The same in a rule that has matched the family already.
    pub(super) fn host_service_vmap_here(self, family: Family, side: Side, map: &str) -> Rule {
        let addr_regs = match family {
            Family::V4 => 1,
            Family::V6 => 4,
        };
        self.addr(family, side)
            .meta(MetaKey::L4Proto, Reg(addr_regs))
            .payload(Base::Transport, port_offset(side), 2, Reg(addr_regs + 1))
            .lookup(map, true)
            .done()
    }

    /// `meta l4proto tcp ct original proto-dst vmap @map`
    pub(super) fn original_port_vmap(self, protocol: Protocol, map: &str) -> Rule {
        self.l4proto(protocol)
            .push(Expr::Ct { key: CtKey::OriginalProtoDst, reg: R0 })
            .lookup(map, true)
            .done()
    }

    /// `ct original ip daddr @set`
    pub(super) fn originally_to(self, family: Family, set: &str) -> Self {
        let key = match family {
            Family::V4 => CtKey::OriginalDst4,
            Family::V6 => CtKey::OriginalDst6,
        };
        self.push(Expr::Ct { key, reg: R0 }).lookup(set, false)
    }

    /// `update @set { ip daddr timeout … }`
    pub(super) fn update_destination(self, family: Family, set: &str, timeout_ms: u64) -> Self {
        self.family(family).addr(family, Side::Destination).push(Expr::Update {
            set: set.to_owned(),
            reg: R0,
            timeout_ms,
            limit: None,
        })
    }

    /// `ip hdrlength >= 6`: an IPv4 packet with options
    pub(super) fn ip_options(self) -> Self {
        self.family(Family::V4)
            .payload(Base::Network, 0, 1, R0)
            .push(Expr::Bitwise { reg: R0, mask: vec![0x0f], xor: vec![0] })
            .cmp(R0, CmpOp::Ge, &[6])
    }

    fn family(self, family: Family) -> Self {
        // NFPROTO_IPV4 and NFPROTO_IPV6
        let number = match family {
            Family::V4 => 2,
            Family::V6 => 10,
        };
        self.meta(MetaKey::NfProto, R0).cmp(R0, CmpOp::Eq, &[number])
    }

    fn addr(self, family: Family, side: Side) -> Self {
        let (offset, len) = match (family, side) {
            (Family::V4, Side::Source) => (12, 4),
            (Family::V4, Side::Destination) => (16, 4),
            (Family::V6, Side::Source) => (8, 16),
            (Family::V6, Side::Destination) => (24, 16),
        };
        self.payload(Base::Network, offset, len, R0)
    }

    fn masked(self, family: Family, v6_prefix: u8) -> Self {
        if family == Family::V4 || v6_prefix >= 128 {
            return self;
        }
        let mask = u128::MAX.checked_shl(128 - u32::from(v6_prefix)).unwrap_or(0);
        self.push(Expr::Bitwise { reg: R0, mask: mask.to_be_bytes().to_vec(), xor: vec![0; 16] })
    }

    /// `ip saddr @set`; IPv6 compares only the first `v6_prefix` bits
    pub(super) fn addr_in(self, family: Family, side: Side, v6_prefix: u8, set: &str) -> Self {
        self.family(family).addr_in_here(family, side, v6_prefix, set)
    }

    /// `ip daddr 10.0.0.5`
    pub(super) fn addr_is(self, side: Side, addr: IpAddr) -> Self {
        let family = Family::of(addr);
        let load = self.family(family).addr(family, side);
        match addr {
            IpAddr::V4(v4) => load.cmp(R0, CmpOp::Eq, &v4.octets()),
            IpAddr::V6(v6) => load.cmp(R0, CmpOp::Eq, &v6.octets()),
        }
    }

    /// `ip saddr . tcp sport @set`, or with `update`, adding it there
    fn flow_key(self, family: Family) -> Self {
        let port_reg = match family {
            Family::V4 => Reg(1),
            Family::V6 => Reg(4),
        };
        self.family(family).l4proto(Protocol::Tcp).addr(family, Side::Source).payload(
            Base::Transport,
            port_offset(Side::Source),
            2,
            port_reg,
        )
    }

    /// `ip saddr . udp sport`, or daddr and dport: the client's end of a conversation
    fn endpoint_key(self, family: Family, side: Side) -> Self {
        let port_reg = match family {
            Family::V4 => Reg(1),
            Family::V6 => Reg(4),
        };
        self.family(family).l4proto(Protocol::Udp).addr(family, side).payload(
            Base::Transport,
            port_offset(side),
            2,
            port_reg,
        )
    }

    /// `ip saddr . udp sport @set`
    pub(super) fn endpoint_in(self, family: Family, side: Side, set: &str) -> Self {
        self.endpoint_key(family, side).lookup(set, false)
    }

    /// `update @set { ip saddr . udp sport timeout … }`
    pub(super) fn update_endpoint(self, family: Family, side: Side, set: &str, timeout_ms: u64) -> Self {
        self.endpoint_key(family, side).push(Expr::Update {
            set: set.to_owned(),
            reg: R0,
            timeout_ms,
            limit: None,
        })
    }

    pub(super) fn flow_in(self, family: Family, set: &str) -> Self {
        self.flow_key(family).lookup(set, false)
    }

    pub(super) fn update_flow(self, family: Family, set: &str, timeout_ms: u64, limit: Limit) -> Self {
        self.flow_key(family).push(Expr::Update {
            set: set.to_owned(),
            reg: R0,
            timeout_ms,
            limit: Some(limit),
        })
    }

    /// `update @set { ip saddr timeout … }`
    pub(super) fn remember_source(self, family: Family, v6_prefix: u8, set: &str, timeout_ms: u64) -> Self {
        self.family(family).addr(family, Side::Source).masked(family, v6_prefix).push(Expr::Update {
            set: set.to_owned(),
            reg: R0,
            timeout_ms,
            limit: None,
        })
    }

    /// `update @set { ip saddr timeout … limit rate over … }`
    pub(super) fn update_source(
        self,
        family: Family,
        v6_prefix: u8,
        set: &str,
        timeout_ms: u64,
        limit: Limit,
    ) -> Self {
        self.family(family).addr(family, Side::Source).masked(family, v6_prefix).push(Expr::Update {
            set: set.to_owned(),
            reg: R0,
            timeout_ms,
            limit: Some(limit),
        })
    }

    /// `tcp flags syn / fin,syn,rst,ack`; the protocol must have been matched before
    pub(super) fn syn_only(self) -> Self {
        self.tcp_state(CmpOp::Eq, TCP_SYN)
    }

    /// `tcp flags != syn / fin,syn,rst,ack`
    pub(super) fn not_syn(self) -> Self {
        self.tcp_state(CmpOp::Ne, TCP_SYN)
    }

    /// `tcp flags syn,ack / fin,syn,rst,ack`
    pub(super) fn syn_ack(self) -> Self {
        self.tcp_state(CmpOp::Eq, TCP_SYN_ACK)
    }

    fn tcp_state(self, op: CmpOp, flags: u8) -> Self {
        self.payload(Base::Transport, 13, 1, R0)
            .push(Expr::Bitwise { reg: R0, mask: vec![TCP_STATE_FLAGS], xor: vec![0] })
            .cmp(R0, op, &[flags])
    }

    /// `tcp doff WORDS`
    pub(super) fn tcp_header_words(self, words: u8) -> Self {
        self.payload(Base::Transport, 12, 1, R0)
            .push(Expr::Bitwise { reg: R0, mask: vec![0xf0], xor: vec![0] })
            .cmp(R0, CmpOp::Eq, &[words << 4])
    }

    /// `@ih,0,128 0x… @ih,128,… 0x…`: the packet's payload begins with `prefix`, compared
    /// in pieces because one comparison takes 16 bytes
    pub(super) fn payload_begins(self, base: Base, at: u32, prefix: &[u8]) -> Self {
        let mut next = self;
        let mut offset = at;
        for piece in prefix.chunks(16) {
            let len = u32::try_from(piece.len()).unwrap_or(16);
            next = next.payload(base, offset, len, R0).cmp(R0, CmpOp::Eq, piece);
            offset += len;
        }
        next
    }

    /// `@ih,0,8 >= 0`: the packet carries data, because otherwise there is no byte to load
    pub(super) fn has_payload(self, base: Base, at: u32) -> Self {
        self.payload(base, at, 1, R0).cmp(R0, CmpOp::Ge, &[0])
    }

    /// `meta length <= max`
    pub(super) fn length_at_most(self, max: u16) -> Self {
        self.meta(MetaKey::Len, R0).push(Expr::ToBigEndian { reg: R0 }).cmp(
            R0,
            CmpOp::Le,
            &u32::from(max).to_be_bytes(),
        )
    }

    /// `fib daddr type != unicast`: for this host, by whatever kind of address
    pub(super) fn for_this_host(self) -> Self {
        self.address_type(Side::Destination, CmpOp::Ne, addr_type::UNICAST)
    }

    /// `fib saddr type local`, or daddr
    pub(super) fn local(self, side: Side) -> Self {
        self.address_type(side, CmpOp::Eq, addr_type::LOCAL)
    }

    /// `fib saddr type anycast`, or daddr
    pub(super) fn anycast(self, side: Side) -> Self {
        self.address_type(side, CmpOp::Eq, addr_type::ANYCAST)
    }

    /// `fib daddr type != multicast fib daddr type != broadcast`
    pub(super) fn for_one_host(self) -> Self {
        let kinds = [addr_type::MULTICAST, addr_type::BROADCAST].into_iter();
        kinds.fold(self, |text, many| text.address_type(Side::Destination, CmpOp::Ne, many))
    }

    /// `fib daddr type multicast`, or broadcast
    pub(super) fn for_many(self, kind: u32) -> Self {
        self.address_type(Side::Destination, CmpOp::Eq, kind)
    }

    fn address_type(self, side: Side, op: CmpOp, kind: u32) -> Self {
        self.push(Expr::FibType { side, reg: R0 }).cmp(R0, op, &kind.to_ne_bytes())
    }

    /// `ct direction reply`
    pub(super) fn reply_direction(self) -> Self {
        self.push(Expr::Ct { key: CtKey::Direction, reg: R0 }).cmp(R0, CmpOp::Eq, &[1])
    }

    /// `ct direction original`
    pub(super) fn original_direction(self) -> Self {
        self.push(Expr::Ct { key: CtKey::Direction, reg: R0 }).cmp(R0, CmpOp::Eq, &[0])
    }

    fn ct_bits(self, key: CtKey, bits: u32) -> Self {
        self.push(Expr::Ct { key, reg: R0 })
            .push(Expr::Bitwise { reg: R0, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] })
            .cmp(R0, CmpOp::Ne, &[0; 4])
    }

    /// `ct state established`; not related ones, which a connection-tracking helper could be talked into
    pub(super) fn established(self) -> Self {
        self.ct_bits(CtKey::State, ct_state::ESTABLISHED)
    }

    /// `ct state new`
    pub(super) fn new_connection(self) -> Self {
        self.ct_bits(CtKey::State, ct_state::NEW)
    }

    /// `ct state invalid`
    pub(super) fn invalid(self) -> Self {
        self.ct_bits(CtKey::State, ct_state::INVALID)
    }

    /// `ct state untracked`
    pub(super) fn untracked(self) -> Self {
        self.ct_bits(CtKey::State, ct_state::UNTRACKED)
    }

    /// `ct status dnat`
    pub(super) fn dnatted(self) -> Self {
        self.ct_bits(CtKey::Status, CT_STATUS_DNAT)
    }

    /// `ct status confirmed`
    pub(super) fn confirmed(self) -> Self {
        self.ct_bits(CtKey::Status, CT_STATUS_CONFIRMED)
    }

    /// `meta mark set …`, keeping the bits outside its mask; nothing without a mark
    pub(super) fn mark(self, mark: Option<Mark>) -> Self {
        let Some(mark) = mark else { return self };
        if mark.mask() == u32::MAX {
            return self
                .push(Expr::Immediate { reg: R0, data: mark.value().to_ne_bytes().to_vec() })
                .push(Expr::MetaSet { key: MetaKey::Mark, reg: R0 });
        }
        self.meta(MetaKey::Mark, R0)
            .push(Expr::Bitwise {
                reg: R0,
                mask: (!mark.mask()).to_ne_bytes().to_vec(),
                xor: mark.value().to_ne_bytes().to_vec(),
            })
            .push(Expr::MetaSet { key: MetaKey::Mark, reg: R0 })
    }

    /// `ct state established,untracked`
    pub(super) fn established_or_untracked(self) -> Self {
        self.ct_bits(CtKey::State, ct_state::ESTABLISHED | ct_state::UNTRACKED)
    }

    /// `notrack`
    pub(super) fn notrack(self) -> Self {
        self.push(Expr::Notrack)
    }

    /// `counter`
    pub(super) fn counter(self) -> Self {
        self.push(Expr::Counter)
    }

    /// `dnat ip to ADDR[:PORT]`
    pub(super) fn dnat(self, addr: IpAddr, port: Option<u16>) -> Rule {
        let (data, port_reg) = match addr {
            IpAddr::V4(v4) => (v4.octets().to_vec(), Reg(4)),
            IpAddr::V6(v6) => (v6.octets().to_vec(), Reg(4)),
        };
        let mut next = self.push(Expr::Immediate { reg: R0, data });
        if let Some(port) = port {
            next = next.push(Expr::Immediate { reg: port_reg, data: port.to_be_bytes().to_vec() });
        }
        next.push(Expr::Dnat { family: Family::of(addr), addr: R0, port: port.map(|_| port_reg) }).done()
    }

    /// `masquerade`
    pub(super) fn masquerade(self) -> Rule {
        self.push(Expr::Masquerade).done()
    }

    pub(super) fn verdict(self, verdict: Verdict) -> Rule {
        self.push(Expr::Verdict(verdict)).done()
    }

    pub(super) fn accept(self) -> Rule {
        self.verdict(Verdict::Accept)
    }

    pub(super) fn drop(self) -> Rule {
        self.verdict(Verdict::Drop)
    }

    pub(super) fn goto(self, chain: &str) -> Rule {
        self.verdict(Verdict::Goto(chain.to_owned()))
    }

    pub(super) fn jump(self, chain: &str) -> Rule {
        self.verdict(Verdict::Jump(chain.to_owned()))
    }

    pub(super) fn done(self) -> Rule {
        Rule { comment: None, exprs: self.exprs }
    }
}

impl Rule {
    /// Gives the rule its identity, `ka:<what>`.
    pub(super) fn named(mut self, what: &str) -> Self {
        self.comment = Some(format!("ka:{what}"));
        self
    }
}

fn port_offset(side: Side) -> u32 {
    match side {
        Side::Source => 0,
        Side::Destination => 2,
    }
}
