use std::fmt::Write;

/// The secret path of step 1 in every test: longer than what one kernel comparison holds.
pub const STEP1_PATH: &str = "/a-first-step-that-nobody-guesses-4711";
/// The secret path of step 2 in every test.
pub const STEP2_PATH: &str = "/a-second-step-that-nobody-guesses-0815";

/// The text of a configuration, built section by section.
pub struct Config(String);

impl Config {
    /// A `global` section with these further lines (`key: value`).
    pub fn new(more: &[&str]) -> Self {
        let mut text = format!(
            "global:\n  http_post_path: \"{STEP1_PATH}\"\n  https_post_path: \"{STEP2_PATH}\"\n  \
             interface_ext: ext0\n  interface_int: int0\n"
        );
        if !more.iter().any(|line| line.starts_with("lockout")) {
            text += "  lockout: off\n";
        }
        if !more.iter().any(|line| line.starts_with("step1_2_rate_limit_per_minute")) {
            text += "  step1_2_rate_limit_per_minute: 600\n";
        }
        for line in more {
            writeln!(text, "  {line}").unwrap();
        }
        Self(text)
    }

    /// This text.
    pub fn with_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Adds an app with [`http_key`] and [`https_key`], 10 s of access and 5 s of step 2 unless `more` says
    /// otherwise.
    pub fn app(mut self, name: &str, port: &str, protocol: &str, destination: &str, more: &[&str]) -> Self {
        let (http, https) = (http_key(name), https_key(name));
        write!(
            self.0,
            "{name}:\n  port: {port}\n  protocol: {protocol}\n  destination: {destination}\n  \
             access_key_http:\n    - {http}\n  access_key_https:\n    - {https}\n"
        )
        .unwrap();
        for (key, usual) in [("duration:", "10"), ("step2_https_duration:", "5")] {
            if !more.iter().any(|line| line.starts_with(key)) {
                writeln!(self.0, "  {key} {usual}").unwrap();
            }
        }
        for line in more {
            writeln!(self.0, "  {line}").unwrap();
        }
        self
    }

    /// A local TCP service on port 2222 called `ssh`.
    pub fn ssh(more: &[&str]) -> Self {
        Self::new(&[]).app("ssh", "2222", "tcp", "local", more)
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}

/// The step-1 key of an app.
pub fn http_key(app: &str) -> String {
    format!("first-key-of-{app}")
}

/// The step-2 key of an app.
pub fn https_key(app: &str) -> String {
    format!("second-key-of-{app}")
}
