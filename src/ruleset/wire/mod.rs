//! What the kernel says about the table, as bytes, into the model.

mod attr;
mod counters;
mod events;
mod expr;
mod flows;
mod host;
mod host_expr;
mod objects;
mod packet_log;

pub use attr::Attributes;
pub use counters::{RuleCounter, counter};
pub use events::{Touched, Transactions};
pub use expr::expressions;
pub use flows::{Attempt, CTA_ZONE, Socket, Tracked, attempted, known, socket, socket_request, tracked};
pub use host::{
    OWNED, RawHostElement, dormant_table, host_chain, host_elements, host_flowtable, host_ranges, host_rule,
    host_set, owned_table,
};
pub use objects::{
    DecodedRule, RawElement, chain, elements, made_by_us, pair_ranges, rule, set, set_name, table,
    table_handle,
};
pub use packet_log::{Logged, logged, subscription};
