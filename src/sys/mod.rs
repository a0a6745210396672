//! System calls, sockets and files: the only place with `unsafe`.

#[cfg(feature = "gateway")]
pub mod calendar;
pub mod clock;
#[cfg(feature = "gateway")]
pub mod files;
#[cfg(feature = "gateway")]
pub mod interfaces;
#[cfg(feature = "gateway")]
pub mod netlink;
#[cfg(feature = "gateway")]
pub mod nftnl;
#[cfg(feature = "gateway")]
pub mod notify;
#[cfg(feature = "gateway")]
pub mod presence;
pub mod private;
pub mod process;
pub mod random;
#[cfg(feature = "gateway")]
pub mod tcp;
#[cfg(all(feature = "client", unix))]
pub mod signals;
pub mod terminal;
#[cfg(feature = "gateway")]
pub mod users;
