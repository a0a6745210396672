//! Phrases about whole flows (protocol and both ends), and about the packets a network needs.

use super::{CmpOp, Expr, MetaKey, R0, Reg, RuleText, Side, TCP_SYN, addr_type, ct_state, port_offset};
use crate::ruleset::expr::{Base, CtKey, Limit};
use crate::units::{Family, IfName, PortRange, Protocol};

/// The bits of TCP's flags that end a connection, FIN and RST.
const TCP_END: u8 = 0x05;
const TCP_PSH: u8 = 0x08;
const TCP_ACK: u8 = 0x10;

impl RuleText {
    /// `meta l4proto . ip saddr . th sport . ip daddr . th dport`: the client's end first, on whichever `side`
    /// of the packet it stands.
    fn tuple_key(self, family: Family, side: Side) -> Self {
        let other = match side {
            Side::Source => Side::Destination,
            Side::Destination => Side::Source,
        };
        let width = match family {
            Family::V4 => 1,
            Family::V6 => 4,
        };
        let port =
            |text: Self, side: Side, reg: u8| text.payload(Base::Transport, port_offset(side), 2, Reg(reg));
        let text = self.family(family).meta(MetaKey::L4Proto, R0).addr_to(family, side, Reg(1));
        let text = port(text, side, 1 + width).addr_to(family, other, Reg(2 + width));
        port(text, other, 2 + 2 * width)
    }

    pub(super) fn addr_to(self, family: Family, side: Side, reg: Reg) -> Self {
        let (offset, len) = match (family, side) {
            (Family::V4, Side::Source) => (12, 4),
            (Family::V4, Side::Destination) => (16, 4),
            (Family::V6, Side::Source) => (8, 16),
            (Family::V6, Side::Destination) => (24, 16),
        };
        self.payload(Base::Network, offset, len, reg)
    }

    /// `meta l4proto . ip saddr . th sport . ip daddr . th dport @set`
    pub(in crate::ruleset) fn tuple_in(self, family: Family, side: Side, set: &str) -> Self {
        self.tuple_key(family, side).lookup(set, false)
    }

    /// `update @set { meta l4proto . ip saddr . th sport . ip daddr . th dport timeout … }`
    pub(in crate::ruleset) fn update_tuple(
        self,
        family: Family,
        side: Side,
        set: &str,
        timeout_ms: u64,
    ) -> Self {
        self.tuple_key(family, side).push(Expr::Update {
            set: set.to_owned(),
            reg: R0,
            timeout_ms,
            limit: None,
        })
    }

    /// `tcp flags & syn != 0`
    pub(in crate::ruleset) fn any_syn(self) -> Self {
        self.any_flag(TCP_SYN)
    }

    /// `tcp flags & (fin|rst) != 0`
    pub(in crate::ruleset) fn any_end(self) -> Self {
        self.any_flag(TCP_END)
    }

    /// `tcp flags & psh != 0`
    pub(in crate::ruleset) fn any_push(self) -> Self {
        self.any_flag(TCP_PSH)
    }

    /// `tcp flags & ack != 0`
    pub(in crate::ruleset) fn any_ack(self) -> Self {
        self.any_flag(TCP_ACK)
    }

    /// `ct state established`, and with TCP `tcp flags & syn == 0` before it: as long as connection tracking knows a
    /// connection, the first packet of another one between the same ports is `established` as well, and the service may have
    /// forgotten the first one long before (nf_conntrack_proto_tcp.c: a SYN that is ignored).
    pub(in crate::ruleset) fn going_on(self, protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => self.flags(TCP_SYN, CmpOp::Eq),
            Protocol::Udp => self,
        }
        .established()
    }

    pub(super) fn any_flag(self, flags: u8) -> Self {
        self.flags(flags, CmpOp::Ne)
    }

    /// Whether none of the flags is set (`CmpOp::Eq`), or any.
    fn flags(self, flags: u8, op: CmpOp) -> Self {
        self.l4proto(Protocol::Tcp)
            .payload(Base::Transport, 13, 1, R0)
            .push(Expr::Bitwise { reg: R0, mask: vec![flags], xor: vec![0] })
            .cmp(R0, op, &[0])
    }

    /// `ct state new,related`: the first packet of a connection, also of one that a connection-tracking helper waits for
    pub(in crate::ruleset) fn new_or_related(self) -> Self {
        self.ct_bits(CtKey::State, ct_state::NEW | ct_state::RELATED)
    }

    /// `ct state established,related`
    pub(in crate::ruleset) fn established_or_related(self) -> Self {
        self.ct_bits(CtKey::State, ct_state::ESTABLISHED | ct_state::RELATED)
    }

    /// `icmp type FIRST-LAST`, or `icmpv6`
    pub(in crate::ruleset) fn icmp(self, family: Family, first: u8, last: u8) -> Self {
        self.family(family).icmp_here(family, first, last)
    }

    /// The same in a rule that has matched the family already
    pub(in crate::ruleset) fn icmp_here(self, family: Family, first: u8, last: u8) -> Self {
        // IPPROTO_ICMP and IPPROTO_ICMPV6
        let number = match family {
            Family::V4 => 1,
            Family::V6 => 58,
        };
        let load = self.raw_l4proto(number).payload(Base::Transport, 0, 1, R0);
        if first == last {
            load.cmp(R0, CmpOp::Eq, &[first])
        } else {
            load.cmp(R0, CmpOp::Ge, &[first]).cmp(R0, CmpOp::Le, &[last])
        }
    }

    /// `ct original proto-dst PORTS`: the port that the client used
    pub(in crate::ruleset) fn original_port(self, ports: PortRange) -> Self {
        let load = self.push(Expr::Ct { key: CtKey::OriginalProtoDst, reg: R0 });
        let (first, last) = (ports.first().to_be_bytes(), ports.last().to_be_bytes());
        if ports.is_single() {
            load.cmp(R0, CmpOp::Eq, &first)
        } else {
            load.cmp(R0, CmpOp::Ge, &first).cmp(R0, CmpOp::Le, &last)
        }
    }

    /// `meta iifkind != "bridge"`
    pub(in crate::ruleset) fn not_by_bridge(self) -> Self {
        self.meta(MetaKey::IifKind, R0).cmp(R0, CmpOp::Ne, &name("bridge"))
    }

    /// `fib daddr type unicast`: for somebody else
    pub(in crate::ruleset) fn for_another(self) -> Self {
        self.address_type(Side::Destination, CmpOp::Eq, addr_type::UNICAST)
    }

    /// `fib saddr oifname "NAME"`, or daddr: routes lead there by this interface
    pub(in crate::ruleset) fn routed_by(self, side: Side, interface: &IfName) -> Self {
        self.push(Expr::FibInterface { side, reg: R0 }).cmp(R0, CmpOp::Eq, &name(interface.as_str()))
    }

    /// `fib saddr oif missing`: no route leads there
    pub(in crate::ruleset) fn unrouted(self, side: Side) -> Self {
        self.push(Expr::FibRouted { side, reg: R0 }).cmp(R0, CmpOp::Eq, &[0; 4])
    }

    /// `meta l4proto NUMBER`
    pub(in crate::ruleset) fn raw_l4proto(self, number: u8) -> Self {
        self.meta(MetaKey::L4Proto, R0).cmp(R0, CmpOp::Eq, &[number])
    }

    /// `ip6 hoplimit 255`: from this very link
    pub(in crate::ruleset) fn hop_limit_255(self) -> Self {
        self.family(Family::V6).payload(Base::Network, 7, 1, R0).cmp(R0, CmpOp::Eq, &[255])
    }

    /// `ip6 saddr fe80::/10`
    pub(in crate::ruleset) fn source_link_local(self) -> Self {
        let (mut mask, mut net) = (vec![0xff, 0xc0], vec![0xfe, 0x80]);
        mask.resize(16, 0);
        net.resize(16, 0);
        self.family(Family::V6)
            .addr_to(Family::V6, Side::Source, R0)
            .push(Expr::Bitwise { reg: R0, mask, xor: vec![0; 16] })
            .cmp(R0, CmpOp::Eq, &net)
    }

    /// `update @set { ip saddr timeout … limit rate over … }` in a rule that has matched the family already
    pub(in crate::ruleset) fn update_echo(
        self,
        family: Family,
        v6_prefix: u8,
        set: &str,
        timeout_ms: u64,
        limit: Limit,
    ) -> Self {
        self.addr(family, Side::Source).masked(family, v6_prefix).push(Expr::Update {
            set: set.to_owned(),
            reg: R0,
            timeout_ms,
            limit: Some(limit),
        })
    }

    /// `udp sport FROM udp dport TO`
    pub(in crate::ruleset) fn udp_ports(self, from: u16, to: u16) -> Self {
        let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
        self.l4proto(Protocol::Udp).payload(Base::Transport, 0, 4, R0).cmp(R0, CmpOp::Eq, &ports)
    }
}

/// As the kernel compares it: all 16 bytes.
fn name(text: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
    out
}
