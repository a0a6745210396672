/// How the secrets begin that our pages and examples show in place of real ones.
const BEGINNINGS: &[&str] = &["replace-this-", "replace-her-", "change-me-"];
/// Further ones, in full: what our pages showed once, and what those of everybody show.
const WHOLE: &[&str] = &[
    "a-key-of-ten-to-fifty-characters",
    "another-key-of-ten-to-fifty",
    "your-own-key-of-step-1",
    "your-own-key-of-step-2",
    "choose-your-own-first-key",
    "and-a-second-one-of-your-own",
    "b7Xq-your-own-1",
    "m2Wz-your-own-2",
    "choose-a-long-one-of-your-own",
    "a-secret-path-of-your-own",
    "and-another-one",
];
/// The same in base32.
const BASE32: &str = "REPLACETHISSECRET";

/// Whether a key, or a path without its first slash, is one that documentation shows, so that everybody knows it.
#[must_use]
pub fn is_placeholder(text: &str) -> bool {
    BEGINNINGS.iter().any(|begin| text.starts_with(begin)) || WHOLE.contains(&text)
}

/// Whether a secret for one-time codes, in base32, is one that documentation shows.
#[must_use]
pub fn is_placeholder_base32(text: &str) -> bool {
    let letters = text.bytes().filter(|b| !b" -=".contains(b)).map(|b| b.to_ascii_uppercase());
    letters.take(BASE32.len()).eq(BASE32.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pages_show_is_known_and_what_is_made_by_chance_is_not() {
        for shown in ["replace-this-key-1", "replace-her-key-2", "change-me-first-key", "and-another-one"] {
            assert!(is_placeholder(shown), "{shown}");
        }
        for own in ["", "replace", "5f3c-replace-this-", "changeme42!", "first-secret", "secret456_http"] {
            assert!(!is_placeholder(own), "{own}");
        }
    }

    #[test]
    fn secrets_for_codes_of_pages_are_known_in_every_spelling() {
        for shown in ["REPLACETHISSECRET", "replace this-secret", "REPLACETHISSECRETREPLACETHISSECRET"] {
            assert!(is_placeholder_base32(shown), "{shown}");
        }
        for own in ["", "====", "REPLACETHIS", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "GREPLACETHISSECRET"] {
            assert!(!is_placeholder_base32(own), "{own}");
        }
    }
}
