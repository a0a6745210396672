use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units::{is_invisible, is_placeholder};

const MAX_SLUG: usize = 48;
const MAX_PATH: usize = 100;
/// `IFNAMSIZ` less the terminating zero (`linux/if.h`).
const MAX_IFNAME: usize = 15;

/// Paths that examples ship with; whoever scans the internet tries them first.
const SHIPPED_PATHS: &[&str] = &[
    "/1-SECRET",
    "/2-SECRET",
    "/SECRET-1",
    "/SECRET-2",
    "/step-1-SECRET",
    "/step-2-SECRET",
    "/_CONFIGURED_PATH_",
];

/// The name of an app as the configuration writes it: 1 to 50 characters, none of them a control character or invisible.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppName(String);

/// Why a text is not an [`AppName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppNameError {
    /// Empty or longer than a request can carry.
    #[error("an app name has 1 to 50 characters")]
    Length,
    /// A control character, one that is not seen or turns others around, or white space at an end.
    #[error("an app name has no control or invisible characters, and no blanks at its ends")]
    Control,
    /// The name of the global section.
    #[error("`global` is the name of the common section: give the app another name")]
    Global,
}

impl AppName {
    /// The name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it appears in nftables: lower case, everything outside `[a-z0-9_]` replaced by `_`, at most 48 long.
    #[must_use]
    pub fn slug(&self) -> String {
        self.0
            .chars()
            .flat_map(char::to_lowercase)
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' })
            .take(MAX_SLUG)
            .collect()
    }
}

impl FromStr for AppName {
    type Err = AppNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "global" {
            return Err(AppNameError::Global);
        }
        if text.is_empty() || text.chars().count() > 50 {
            return Err(AppNameError::Length);
        }
        if text.chars().any(|c| c.is_control() || is_invisible(c)) || text.trim() != text {
            return Err(AppNameError::Control);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a user: 1 to 32 of `A-Z a-z 0-9 . _ @ -`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

/// Why a text is not a [`UserName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a user's name has 1 to 32 of A-Z a-z 0-9 . _ @ -, and begins with a letter or digit")]
pub struct UserNameError;

impl UserName {
    /// The name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = UserNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let legal = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b));
        if begins && legal && text.len() <= 32 { Ok(Self(text.to_owned())) } else { Err(UserNameError) }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a knock sequence: 1 to 32 of `a-z 0-9 _`, the first a letter, and none of the words for what a sequence
/// opens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceName(String);

/// Why a text is not a [`SequenceName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sequence's name has 1 to 32 of a-z 0-9 _, begins with a letter, and is not `service`")]
pub struct SequenceNameError;

impl SequenceName {
    /// The name as written, which is also its name in nftables.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SequenceName {
    type Err = SequenceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        let legal = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let free = text != "service";
        if begins && legal && free && text.len() <= 32 {
            Ok(Self(text.to_owned()))
        } else {
            Err(SequenceNameError)
        }
    }
}

impl fmt::Display for SequenceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a network interface (`dev_valid_name` in the kernel's net/core/dev.c).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

/// Why a text is not an [`IfName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an interface name: 1 to 15 characters, no spaces, slashes, colons, quotes or asterisks, not `.` or `..`"
)]
pub struct IfNameError(String);

impl IfName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = IfNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = !text.is_empty() && text.len() <= MAX_IFNAME && text != "." && text != "..";
        // Quotes, backslashes and asterisks are legal in the kernel but mean something else in nft's language.
        let legal = text.bytes().all(|b| b.is_ascii_graphic() && !b"/:\"\\*".contains(&b));
        if fits && legal { Ok(Self(text.to_owned())) } else { Err(IfNameError(text.to_owned())) }
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A secret path of a step: `/[A-Za-z0-9._~-]+`, also several such parts, at most 100 characters, no shipped example.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpPath(String);

/// Why a text is not an [`HttpPath`]; never repeats the path, because it is a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpPathError {
    /// Not of the form `/part/part`.
    #[error("a path begins with / and has parts of A-Z a-z 0-9 . _ ~ - only, none of them empty")]
    Syntax,
    /// Longer than 100 characters.
    #[error("a path has at most 100 characters, this one has {0}")]
    Length(usize),
    /// A path that examples ship with.
    #[error(
        "this path comes from an example, so everybody knows it: put your own in its place, a slash and what `openssl rand -hex 16` prints"
    )]
    Shipped,
}

impl HttpPath {
    /// The path, for the few places that must have it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The path with one more part, of letters and digits, which must fit.
    pub(super) fn joined(&self, part: &str) -> Self {
        Self(format!("{}/{part}", self.0))
    }
}

impl FromStr for HttpPath {
    type Err = HttpPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if SHIPPED_PATHS.contains(&text) || is_placeholder(text.trim_start_matches('/')) {
            return Err(HttpPathError::Shipped);
        }
        if text.len() > MAX_PATH {
            return Err(HttpPathError::Length(text.len()));
        }
        let part_ok = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
        };
        match text.strip_prefix('/') {
            Some(rest) if rest.split('/').all(part_ok) => Ok(Self(text.to_owned())),
            Some(_) | None => Err(HttpPathError::Syntax),
        }
    }
}

impl TryFrom<String> for HttpPath {
    type Error = HttpPathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HttpPath> for String {
    fn from(path: HttpPath) -> Self {
        path.0
    }
}

impl fmt::Debug for HttpPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("/***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_hold_only_what_nft_can_name() {
        let slug = |text: &str| text.parse::<AppName>().unwrap().slug();
        assert_eq!(slug("SSH"), "ssh");
        assert_eq!(slug("my-app.v2"), "my_app_v2");
        assert_eq!(slug("grün"), "gr_n");
        assert_eq!(slug(&"a".repeat(50)).len(), 48);
    }

    #[test]
    fn names_of_apps_are_seen_as_they_are() {
        for bad in ["a\u{202e}b", "ssh\u{200b}", "a\u{2066}b", "a\u{feff}b", "a\u{e0041}b", "a\nb", " a"] {
            assert_eq!(bad.parse::<AppName>(), Err(AppNameError::Control), "{bad:?}");
        }
        assert!("größe ü".parse::<AppName>().is_ok());
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "ppp0", "br-lan", "eth0.100", "a", "wg_home"] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "eth0:1", "sixteencharacter", "a\"b", "ppp*", "ü"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_plain_and_not_shipped() {
        for good in ["/x", "/a-b_c.d~e", "/a/b/c", &format!("/{}", "a".repeat(99))] {
            assert!(good.parse::<HttpPath>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a",
            "/a//b",
            "/a/",
            "/a b",
            "/%41",
            "/ä",
            "/a?b",
            "/1-SECRET",
            "/_CONFIGURED_PATH_",
            "/replace-this-path-1",
            &format!("/{}", "a".repeat(100)),
        ] {
            assert!(bad.parse::<HttpPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_does_not_print_itself() {
        let path: HttpPath = "/hidden-place".parse().unwrap();
        assert!(!format!("{path:?}").contains("hidden"));
    }
}
