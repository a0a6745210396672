//! Values that cannot be wrong: checked once, where they are made.

mod address;
mod lifetime;
mod mark;
mod names;
mod now;
mod ports;
mod secret;

pub use address::{ClientAddr, Family, Network, NetworkError};
pub use lifetime::{Lifetime, LifetimeError};
pub use mark::{Mark, MarkError};
pub use names::{AppName, AppNameError, HttpPath, HttpPathError, IfName, IfNameError};
pub use now::Now;
pub use ports::{PortRange, PortRangeError, Protocol, Protocols};
pub use secret::Secret;
