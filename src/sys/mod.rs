//! System calls, sockets and files: the only place with `unsafe`.

pub mod calendar;
pub mod clock;
pub mod files;
pub mod flows;
pub mod interfaces;
pub mod listeners;
pub mod netlink;
pub mod nftnl;
pub mod notify;
pub mod presence;
pub mod process;
pub mod random;
pub mod tcp;
pub mod terminal;
pub mod users;
