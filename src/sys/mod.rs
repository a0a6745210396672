//! System calls, sockets and files: the only place with `unsafe`.

#[cfg(all(feature = "gateway", target_pointer_width = "64"))]
pub mod account;
#[cfg(feature = "gateway")]
pub mod calendar;
#[cfg(feature = "gateway")]
pub mod clock;
#[cfg(feature = "gateway")]
pub mod command;
#[cfg(feature = "gateway")]
pub mod files;
#[cfg(feature = "gateway")]
pub mod flows;
#[cfg(feature = "gateway")]
pub mod half_open;
#[cfg(feature = "gateway")]
pub mod handover;
#[cfg(feature = "gateway")]
pub mod interfaces;
#[cfg(feature = "gateway")]
pub mod journal;
#[cfg(feature = "gateway")]
pub mod kernel;
#[cfg(feature = "gateway")]
pub mod listeners;
#[cfg(feature = "gateway")]
pub mod local;
#[cfg(feature = "gateway")]
pub mod log_end;
#[cfg(feature = "gateway")]
pub mod netlink;
#[cfg(feature = "gateway")]
pub mod nftnl;
#[cfg(feature = "gateway")]
pub mod notify;
#[cfg(feature = "gateway")]
pub mod packet_log;
#[cfg(feature = "gateway")]
pub mod paths;
#[cfg(unix)]
mod patience;
pub mod pipes;
#[cfg(feature = "gateway")]
pub mod presence;
pub mod private;
pub mod process;
pub mod random;
#[cfg(feature = "gateway")]
mod receive;
#[cfg(feature = "gateway")]
pub mod resident;
#[cfg(feature = "gateway")]
pub mod routes;
#[cfg(feature = "gateway")]
pub mod seal;
#[cfg(unix)]
pub mod signals;
#[cfg(feature = "gateway")]
mod socket_filter;
#[cfg(feature = "gateway")]
pub mod tcp;
pub mod terminal;
#[cfg(feature = "gateway")]
pub mod users;
#[cfg(feature = "gateway")]
pub mod wiping;
