//! The listeners of both steps: what parses hostile bytes, in a process of its own without any privilege.
//!
//! Each step has its own settings and its own loop; neither knows the other's path.

mod crowd;
mod exchange;
#[cfg(test)]
mod fake;
mod listen;
mod process;
#[cfg(test)]
mod proxy_tests;
mod reply;
mod sender;
mod step1;
mod step2;

#[cfg(test)]
pub(super) use fake::settings as settings_for_tests;
pub use listen::{Ears, ListenError, Reach, bind_step1, bind_step2};
pub use process::{FRONT, front};
pub use step1::{Step1Config, serve_step1};
pub use step2::{Step2Config, Tls, serve_step2};
