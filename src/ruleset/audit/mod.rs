//! What in the host's own rules would defeat ours, and what to do about it.
//!
//! Nothing is guessed from names: the packets that must get through are followed through everybody's
//! chains, jumps, sets and maps ([`machine`]), on the way that they take past our own ([`journey`]). Names only
//! decide in which language a remedy is written ([`crate::ruleset::remedy`]).

mod compat;
mod drops;
pub mod finding;
mod flowtables;
pub mod host;
mod itinerary;
pub mod journey;
pub mod machine;
pub mod packet;
mod redirects;
mod registers;
mod reloads;
mod services;
pub mod situation;
pub mod step;
#[cfg(test)]
mod tests;

pub use finding::{Finding, Severity};
pub use situation::Situation;

use super::layout::Layout;

/// Judges everything; the worst comes first.
#[must_use]
pub fn audit(layout: &Layout<'_>, situation: &Situation) -> Vec<Finding> {
    let mut out = drops::drops(layout, situation);
    out.extend(redirects::redirects(layout, situation));
    out.extend(flowtables::flowtables(layout, situation));
    out.extend(services::services(layout, situation));
    out.extend(reloads::reloads(situation));
    out.sort_by_key(|finding| finding.severity);
    out
}
