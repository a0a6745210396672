//! The ruleset as nft text, from the templates in `nft-templates/`.

mod render;
mod template;

pub use render::render;
