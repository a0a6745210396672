//! What in the host's own rules would defeat ours, and what to do about it.
//!
//! Nothing is guessed from names: the packets that must get through are followed through everybody's
//! chains, jumps, sets and maps ([`machine`]), on the way that they take past our own ([`journey`]). Names only
//! decide in which language a remedy is written ([`crate::ruleset::remedy`]).

mod aliases;
mod compat;
mod drops;
pub mod finding;
mod flowtables;
pub mod host;
mod itinerary;
pub mod journey;
pub mod leads;
pub mod machine;
mod marks;
pub mod neighbours;
pub mod packet;
mod redirects;
mod registers;
mod reloads;
mod samples;
mod services;
pub mod situation;
pub mod step;
#[cfg(test)]
mod tests;

pub use finding::{Finding, Severity};
pub use reloads::saved;
pub use situation::Situation;

use super::layout::Layout;
use journey::{Journey, Meeting};

/// A packet that must get through, and the chains it met.
struct Trip {
    journey: Journey,
    met: Vec<Meeting>,
}

/// Judges everything; the worst comes first.
#[must_use]
pub fn audit(layout: &Layout<'_>, situation: &Situation) -> Vec<Finding> {
    let mark = layout.settings.global.mark;
    let travelled = |journey: Journey| Trip { met: journey::travel(situation, &journey, mark), journey };
    let trips: Vec<Trip> = itinerary::journeys(layout, situation, mark).into_iter().map(travelled).collect();
    let mut out = drops::drops(layout, situation, &trips);
    out.extend(redirects::redirects(layout, situation, &trips));
    out.extend(marks::marks(layout, situation));
    out.extend(aliases::aliases(layout, situation));
    out.extend(flowtables::flowtables(layout, situation, &trips));
    out.extend(services::services(layout, situation, &trips));
    out.extend(neighbours::neighbours(layout, situation));
    out.extend(reloads::reloads(situation));
    out.sort_by_key(|finding| finding.severity);
    out
}
