//! The listeners of both steps: what parses hostile bytes, without any privilege.
//!
//! Each step has its own settings and its own loop; neither knows the other's path.

mod crowd;
mod exchange;
#[cfg(test)]
mod fake;
mod listen;
#[cfg(test)]
mod proxy_tests;
mod reply;
mod sender;
mod step1;
mod step2;

pub use listen::{Ears, ListenError, Reach, bind_step1, bind_step2};
pub use step1::{Step1Config, serve_step1};
pub use step2::{Step2Config, Tls, serve_step2};
