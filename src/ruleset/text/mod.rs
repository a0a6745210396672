//! The ruleset as nft text, from the templates in `nft-templates/`.

mod backend;
mod chains;
mod forwarding;
mod render;
mod sets;
mod step1;
mod template;

pub use render::render;
pub use template::TemplateError;
