//! The ledger: who was let in, how and until when.
//!
//! The kernel's sets decide who passes; this explains them. Where the two disagree,
//! the shorter one wins.

mod ends;
mod holders;
mod journal;
mod ledger;
mod memory;
mod newest;
mod note;
mod succession;

pub use journal::{End, Journal, Turn, What};
pub use ledger::{Entry, Ledger};
pub use memory::{Happening, Memory, Remembered};
pub use note::{How, Note};
pub use succession::{Succession, User};
