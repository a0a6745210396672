//! The configuration file: YAML text to [`Settings`], every problem with its place.

mod settings;

pub use settings::{App, Destination, Established, Global, Settings, Step1Reply, TwoFactorStep};
