//! Who knocks: both steps over each address family, the certificate verified, secrets from where the profile says.
//!
//! Blocking sockets and a thread per address family; nothing here prints.

mod codes;
mod knock;
mod one_time;
mod profiles;
mod proof_address;
mod reach;
mod request;
mod secrets;
mod sequence;
mod steps;
mod tls;

pub use codes::{CodeError, Codes};
pub use knock::{Attempted, Client, Failure};
pub use one_time::{OneTime, OneTimeError};
pub use profiles::{Found, ProfileError, folder, load};
pub use reach::{Stream, firsts, open, pipe, resolve};
pub use secrets::{Ask, SecretError};
pub use sequence::knock_sequence;
pub use tls::TlsError;
