//! System calls, sockets and files: the only place with `unsafe`.

pub mod clock;
pub mod netlink;
pub mod nftnl;
