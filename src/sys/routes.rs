//! By which interfaces routes lead everywhere, in whatever table they are.

use std::collections::BTreeSet;
use std::io;

use nix::sys::socket::SockProtocol;

use super::flows::{DUMP, REQUEST, RTM_GETROUTE, RTM_TYPE, RTMSG, ask, open, read_while};
use crate::ruleset::wire::Attributes;
use crate::units::Family;

/// Where in `struct rtmsg` the length of the destination's prefix is.
const RTM_DST_LEN: usize = 1;
const RTN_UNICAST: u8 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
/// Length of `struct rtnexthop`.
const RTNEXTHOP: usize = 8;
/// How many routes are looked at: where there are more, a router has all of the Internet's in a table, and default routes
/// come first in each.
const MOST: usize = 20_000;

/// The indices of interfaces by which a default route leads, or one to half of all addresses, which many programs put in
/// its place. All tables are asked: rules may choose them by source address or mark.
///
/// # Errors
/// When the kernel does not say.
pub fn to_everywhere(family: Family) -> io::Result<BTreeSet<u32>> {
    let mut out = BTreeSet::new();
    let mut left = MOST;
    let netlink = open(SockProtocol::NetlinkRoute)?;
    let mut body = vec![if family == Family::V4 { 2 } else { 10 }];
    body.resize(RTMSG, 0);
    ask(&netlink, RTM_GETROUTE, REQUEST | DUMP, &body)?;
    read_while(&netlink, |payload| {
        out.extend(interfaces(payload));
        left -= 1;
        left > 0
    })?;
    Ok(out)
}

/// Of one route, if it is such a one.
fn interfaces(payload: &[u8]) -> Vec<u32> {
    let Some((route, attributes)) = payload.split_at_checked(RTMSG) else { return Vec::new() };
    let is_wide = route.get(RTM_DST_LEN).is_some_and(|&length| length <= 1);
    if !is_wide || route.get(RTM_TYPE) != Some(&RTN_UNICAST) {
        return Vec::new();
    }
    let attributes = Attributes(attributes);
    let mut out: Vec<u32> = attributes.get(RTA_OIF).and_then(number).into_iter().collect();
    let mut hops = attributes.get(RTA_MULTIPATH).unwrap_or_default();
    while let Some((hop, _)) = hops.split_at_checked(RTNEXTHOP) {
        out.extend(hop.get(4..).and_then(number));
        let length = hop.first_chunk::<2>().map_or(0, |&bytes| u16::from_ne_bytes(bytes));
        hops = hops.get(usize::from(length).next_multiple_of(4).max(RTNEXTHOP)..).unwrap_or_default();
    }
    out
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::flows::attribute;
    use super::*;

    fn route(dst_len: u8, kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![2, dst_len, 0, 0, 0, 0, 0, kind, 0, 0, 0, 0];
        out.extend(attributes.concat());
        out
    }

    #[test]
    fn each_way_of_a_wide_route_is_one_and_others_are_none() {
        let by = |index: u32| attribute(RTA_OIF, &index.to_ne_bytes());
        assert_eq!(interfaces(&route(0, RTN_UNICAST, &[by(7)])), [7]);
        assert_eq!(interfaces(&route(1, RTN_UNICAST, &[by(7)])), [7]);
        assert_eq!(interfaces(&route(8, RTN_UNICAST, &[by(7)])), [0; 0]);
        assert_eq!(interfaces(&route(0, 7, &[by(1)])), [0; 0], "unreachable");
        let hop = |index: u32, more: &[u8]| {
            let length = u16::try_from(RTNEXTHOP + more.len()).unwrap();
            [&length.to_ne_bytes()[..], &[0, 0], &index.to_ne_bytes(), more].concat()
        };
        let hops = [hop(3, &[8, 0, 5, 0, 192, 0, 2, 1]), hop(4, &[])].concat();
        assert_eq!(interfaces(&route(0, RTN_UNICAST, &[attribute(RTA_MULTIPATH, &hops)])), [3, 4]);
    }

    #[test]
    fn nothing_that_may_come_is_too_much() {
        for length in 0..40 {
            let _ = interfaces(&route(0, RTN_UNICAST, &[attribute(RTA_MULTIPATH, &vec![0; length])]));
            let _ = interfaces(&vec![0xff; length]);
        }
        for family in Family::BOTH {
            to_everywhere(family).unwrap();
        }
    }
}
