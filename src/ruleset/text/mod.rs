//! The ruleset as nft text, from the templates in `nft-templates/`, and what VyOS is told.

mod backend;
mod behind;
mod chains;
mod forwarding;
mod knock;
mod knock_log;
mod once;
mod render;
mod routed;
mod sets;
mod step1;
mod template;
mod timed;
mod vyos;

pub use render::render;
pub use template::TemplateError;
pub use vyos::vyos_commands;
