//! What the kernel says about the table, as bytes, into the model.

mod attr;
mod events;
mod expr;
mod flows;
mod objects;

pub use attr::Attributes;
pub use events::{Touched, Transactions};
pub use expr::expressions;
pub use flows::{Socket, Tracked, socket, socket_request, tracked};
pub use objects::{
    DecodedRule, RawElement, chain, elements, host_chain, pair_ranges, rule, set, set_name, table,
};
