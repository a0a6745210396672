//! Network interfaces of this network namespace, and their addresses.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{SockaddrLike, SockaddrStorage, sendto, socket};

use super::receive::receive;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceState {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its addresses, each with the length of its network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether an XDP program is attached; false where the kernel does not say.
    pub has_xdp: bool,
    /// Whether nothing goes through it: switched off, or without a carrier; false where the kernel does not say.
    pub is_down: bool,
    /// Whether hardware addresses are asked for on it (ARP, neighbour discovery); false where the kernel does not say.
    pub has_neighbours: bool,
    /// The bridge or bond whose port it is: packets come in by that, as far as rules can tell.
    pub port_of: Option<String>,
    /// Whether it is a VRF or belongs to one, whose addresses are not among this host's as far as rules can tell.
    pub in_vrf: bool,
    /// Its alternative names, which rules do not know.
    pub other_names: Vec<String>,
    /// What kind of virtual interface it is, such as `vxlan`; empty for others, and where the kernel does not say.
    pub kind: String,
}

/// Their names, sorted.
///
/// # Errors
/// When the kernel does not say.
pub fn names() -> io::Result<Vec<String>> {
    let mut out: Vec<String> = nix::net::if_::if_nameindex()?
        .iter()
        .map(|interface| interface.name().to_string_lossy().into_owned())
        .collect();
    out.sort();
    Ok(out)
}

/// The name of the interface with this index; none if there is none.
#[must_use]
pub fn name_of(index: u32) -> Option<String> {
    nix::net::if_::if_indextoname(index).ok().and_then(|name| name.into_string().ok())
}

/// Every address of this host, those of the loopback interface included.
///
/// # Errors
/// When the kernel does not say.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| interface.address);
    Ok(addresses
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|at| IpAddr::V4(at.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|at| IpAddr::V6(at.ip())))
        })
        .collect())
}

/// All interfaces with their addresses.
///
/// # Errors
/// When the kernel does not say.
pub fn states() -> io::Result<Vec<InterfaceState>> {
    let mut out: BTreeMap<String, InterfaceState> = nix::net::if_::if_nameindex()?
        .iter()
        .map(|interface| {
            let name = interface.name().to_string_lossy().into_owned();
            (name.clone(), InterfaceState { name, index: interface.index(), ..InterfaceState::default() })
        })
        .collect();
    for entry in nix::ifaddrs::getifaddrs()? {
        let address = entry.address.as_ref().and_then(ip);
        if let (Some(state), Some(address)) = (out.get_mut(&entry.interface_name), address) {
            let prefix = entry.netmask.as_ref().and_then(ip).map_or(u8::MAX, prefix);
            state.addresses.push((address, prefix));
        }
    }
    let links = links().unwrap_or_default();
    for state in out.values_mut() {
        let link = links.iter().find(|link| link.index == state.index);
        state.has_xdp = link.is_some_and(|link| link.has_xdp);
        state.is_down = link.is_some_and(|link| link.is_down);
        state.has_neighbours = link.is_some_and(|link| link.has_neighbours);
        state.port_of = link.and_then(|link| link.port_of).and_then(name_of);
        state.in_vrf = link.is_some_and(|link| link.in_vrf);
        state.other_names = link.map(|link| link.other_names.clone()).unwrap_or_default();
        state.kind = link.map(|link| link.kind.clone()).unwrap_or_default();
    }
    Ok(out.into_values().collect())
}

/// All interfaces without their addresses, asked for in one question.
///
/// # Errors
/// When the kernel does not say.
pub fn present() -> io::Result<Vec<InterfaceState>> {
    let links = links()?;
    let name_of = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let state = |link: &Link| InterfaceState {
        name: link.name.clone(),
        index: link.index,
        addresses: Vec::new(),
        has_xdp: link.has_xdp,
        is_down: link.is_down,
        has_neighbours: link.has_neighbours,
        port_of: link.port_of.and_then(name_of),
        in_vrf: link.in_vrf,
        other_names: link.other_names.clone(),
        kind: link.kind.clone(),
    };
    Ok(links.iter().map(state).collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    match address.family()? {
        AddressFamily::Inet => address.as_sockaddr_in().map(|v4| v4.ip().into()),
        AddressFamily::Inet6 => address.as_sockaddr_in6().map(|v6| v6.ip().into()),
        _ => None,
    }
}

fn prefix(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(v4) => v4.to_bits().count_ones(),
        IpAddr::V6(v6) => v6.to_bits().count_ones(),
    };
    u8::try_from(ones).unwrap_or(u8::MAX)
}

/// What the kernel tells of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Link {
    index: u32,
    name: String,
    other_names: Vec<String>,
    has_xdp: bool,
    is_down: bool,
    has_neighbours: bool,
    port_of: Option<u32>,
    in_vrf: bool,
    kind: String,
}

/// All links (`linux/rtnetlink.h`).
fn links() -> io::Result<Vec<Link>> {
    const RTM_GETLINK: u16 = 18;
    const NLM_F_REQUEST_DUMP: u16 = 0x301;
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    let fd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    // A header of 16 bytes and `struct ifinfomsg` of 16.
    let mut request = 32_u32.to_ne_bytes().to_vec();
    request.extend(RTM_GETLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.resize(32, 0);
    sendto(fd.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let (mut out, mut received) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let length = receive(fd.as_raw_fd(), &mut received, MsgFlags::empty())?;
        let mut rest = received.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Ok(out);
        }
        while let Some(&[l0, l1, l2, l3, k0, k1, ..]) = rest.get(..16) {
            let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(0);
            let kind = u16::from_ne_bytes([k0, k1]);
            let Some(message) = rest.get(..length).filter(|message| message.len() >= 16) else {
                return Ok(out);
            };
            match kind {
                NLMSG_DONE => return Ok(out),
                NLMSG_ERROR => return Err(io::Error::other("the kernel does not list its interfaces")),
                _ => {}
            }
            out.extend(link(message));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// What a link message tells (`linux/if_link.h`).
fn link(message: &[u8]) -> Option<Link> {
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MASTER: u16 = 10;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_INFO_SLAVE_KIND: u16 = 4;
    const VRF: Option<&[u8]> = Some(b"vrf\0");
    const IFLA_XDP: u16 = 43;
    const IFLA_XDP_ATTACHED: u16 = 2;
    const IFLA_PROP_LIST: u16 = 52;
    const IFLA_ALT_IFNAME: u16 = 53;
    let index = u32::from_ne_bytes(*message.get(20..)?.first_chunk::<4>()?);
    let flags = u32::from_ne_bytes(*message.get(24..)?.first_chunk::<4>()?);
    // IFF_UP and IFF_RUNNING of `linux/if.h`.
    let is_down = flags & 1 == 0 || flags & 0x40 == 0;
    // IFF_LOOPBACK, IFF_POINTOPOINT and IFF_NOARP.
    let has_neighbours = flags & (0x8 | 0x10 | 0x80) == 0;
    let attributes = message.get(32..)?;
    let attached = attribute(attributes, IFLA_XDP).and_then(|xdp| attribute(xdp, IFLA_XDP_ATTACHED));
    let has_xdp = attached.and_then(|attached| attached.first()).is_some_and(|&attached| attached != 0);
    let info = attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
    let as_member = attribute(info, IFLA_INFO_SLAVE_KIND);
    let kind = attribute(info, IFLA_INFO_KIND);
    let in_vrf = as_member == VRF || kind == VRF;
    let kind = kind.map(text).unwrap_or_default();
    let master = attribute(attributes, IFLA_MASTER).and_then(|master| master.first_chunk::<4>());
    // What comes in by an interface of a VRF passes prerouting by its own name first.
    let port_of = master.filter(|_| as_member != VRF).map(|&master| u32::from_ne_bytes(master));
    let name = attribute(attributes, IFLA_IFNAME).map(text).unwrap_or_default();
    let other_names = attribute(attributes, IFLA_PROP_LIST).unwrap_or_default();
    let other_names = each(other_names, IFLA_ALT_IFNAME).map(text).collect();
    Some(Link { index, name, other_names, has_xdp, is_down, has_neighbours, port_of, in_vrf, kind })
}

/// What stands before the first NUL.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

fn attribute(list: &[u8], wanted: u16) -> Option<&[u8]> {
    each(list, wanted).next()
}

/// The payloads of all attributes of a kind.
fn each(mut list: &[u8], wanted: u16) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while let &[l0, l1, k0, k1, ..] = list {
            let length = usize::from(u16::from_ne_bytes([l0, l1]));
            let payload = list.get(4..length)?;
            list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
            // NLA_F_NESTED is a flag of the type.
            if u16::from_ne_bytes([k0, k1]) & 0x3fff == wanted {
                return Some(payload);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_its_address() {
        let states = states().unwrap();
        let lo = states.iter().find(|state| state.name == "lo").unwrap();
        assert!(lo.index > 0 && !lo.has_xdp);
        assert!(lo.addresses.is_empty() || lo.addresses.contains(&([127, 0, 0, 1].into(), 8)), "{lo:?}");
    }

    #[test]
    fn an_interface_has_a_name_and_others_that_are_not_its_name() {
        assert!(present().unwrap().iter().any(|link| link.name == "lo" && link.index > 0));
        let mut message = vec![0; 32];
        message.extend([9, 0, 3, 0, b'e', b'x', b't', b'0', 0, 0, 0, 0]);
        message.extend([20, 0, 52, 0x80, 7, 0, 53, 0, b'a', b'b', 0, 0, 6, 0, 53, 0, b'c', 0, 0, 0]);
        let link = link(&message).unwrap();
        assert_eq!((link.name.as_str(), link.other_names), ("ext0", vec!["ab".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn an_xdp_program_is_seen_in_a_link_message() {
        let message = |attached: u8| {
            let mut out = vec![0; 32];
            out[20..24].copy_from_slice(&7_u32.to_ne_bytes());
            out.extend([12, 0, 43, 0x80, 5, 0, 2, 0, attached, 0, 0, 0]);
            out
        };
        let wanted = Link { index: 7, has_xdp: true, is_down: true, has_neighbours: true, ..Link::default() };
        assert_eq!(link(&message(2)), Some(wanted.clone()));
        assert_eq!(link(&message(0)), Some(Link { has_xdp: false, ..wanted }));
        assert_eq!(link(&[0; 20]), None);
    }

    #[test]
    fn an_interface_is_down_unless_it_is_switched_on_and_has_a_carrier() {
        let is_down = |flags: u32| {
            let mut message = vec![0; 32];
            message[24..28].copy_from_slice(&flags.to_ne_bytes());
            link(&message).unwrap().is_down
        };
        assert_eq!([0x1043, 0x1003, 0x1042].map(is_down), [false, true, true]);
    }

    #[test]
    fn a_port_of_a_bridge_is_one_and_a_member_of_a_vrf_is_not() {
        let message = |kind: &[u8; 8]| {
            let mut out = vec![0; 32];
            out[20..24].copy_from_slice(&7_u32.to_ne_bytes());
            out.extend([8, 0, 10, 0]);
            out.extend(3_u32.to_ne_bytes());
            let length = 4 + kind.iter().position(|&b| b == 0).unwrap() as u8 + 1;
            out.extend([4 + length.next_multiple_of(4), 0, 18, 0x80, length, 0, 4, 0]);
            out.extend(&kind[..usize::from(length.next_multiple_of(4) - 4)]);
            out
        };
        let port_of = |kind| link(&message(kind)).unwrap().port_of;
        assert_eq!(port_of(b"bridge\0\0"), Some(3));
        assert_eq!(port_of(b"bond\0\0\0\0"), Some(3));
        assert_eq!(port_of(b"vrf\0\0\0\0\0"), None);
        assert!(
            link(&message(b"vrf\0\0\0\0\0")).unwrap().in_vrf
                && !link(&message(b"bond\0\0\0\0")).unwrap().in_vrf
        );
    }
}
