//! Values that cannot be wrong: checked once, where they are made.

mod access_key;
mod address;
mod automaton;
mod event;
mod knock;
mod knock_tree;
mod lifetime;
mod log_event;
mod mark;
mod names;
mod now;
mod one_time_knock;
mod path_rotation;
mod placeholder;
mod ports;
mod secret;
mod timestamp;
mod totp;
mod used_steps;

pub use access_key::{AccessKey, AccessKeyError, KeyCheck, Verifier, form_bytes, id_of, is_invisible};
pub use address::{ClientAddr, Family, Network, NetworkError, NotAClient};
pub use automaton::{Automaton, AutomatonError, START, Sequence, State, Terms};
pub use event::{EventKind, EventKindError};
pub use knock::{Knock, KnockError};
pub use knock_tree::{Growth, KnockPath, KnockTree, PathEnd, STAY, TreeStep};
pub use lifetime::{Lifetime, LifetimeError};
pub use log_event::{LogEvent, LogEventError, Severity};
pub use mark::{Mark, MarkError};
pub use names::{
    AppName, AppNameError, HttpPath, HttpPathError, IfName, IfNameError, SequenceName, SequenceNameError,
    UserName, UserNameError,
};
pub use now::Now;
pub use one_time_knock::{
    KnockKind, KnockSecret, KnockSecretError, KnockShape, knocks, knocks_of_code, step_at,
};
pub use path_rotation::{PathRotation, PathRotationError};
pub use placeholder::{is_placeholder, is_placeholder_base32};
pub use ports::{PortRange, PortRangeError, Protocol, Protocols};
pub use secret::Secret;
pub use timestamp::{Timestamp, TimestampError};
pub use totp::{TotpError, TotpKind, TotpSecret};
pub use used_steps::UsedSteps;
