//! `global.http_post_path_secret` and `http_post_path_every`: a path of step 1 that changes with time.

use crate::config::keys::said_secret;
use crate::config::outside::Outside;
use crate::config::report::Report;
use crate::config::section::Section;
use crate::config::shared_keys::Said;
use crate::units::{HttpPath, Lifetime, PathRotation, PathRotationError};

/// Usual length of a time step.
const EVERY_SECS: u64 = 300;

/// Reads how the path changes, if it does; none where that is wrong.
pub(super) fn read(
    section: &Section<'_>,
    prefix: Option<&HttpPath>,
    outside: &dyn Outside,
    report: &mut Report,
) -> Option<Option<PathRotation>> {
    let secret = said_secret(section, "http_post_path_secret", outside, report)?;
    let every = Said::read(section.get("http_post_path_every"), |field| field.lifetime(report).map(Some));
    let every = every.or(None)?;
    let (secret, every) = match (secret, every) {
        (None, None) => return Some(None),
        (None, Some(_)) => {
            report.error_fix(
                section.spot_for("http_post_path_every"),
                "there is no secret by which the path could change",
                "add `http_post_path_secret: <random text>`, as `openssl rand -hex 16` makes it",
            );
            return None;
        }
        (Some(secret), every) => (secret, every.or_else(|| Lifetime::from_secs(EVERY_SECS).ok())?),
    };
    let at = |key| section.get(key).map_or_else(|| section.spot_for(key), |field| field.key());
    match PathRotation::new(secret, every) {
        Ok(_) if prefix.is_some_and(|prefix| !PathRotation::fits(prefix)) => {
            report.error(
                at("http_post_path_secret"),
                "http_post_path is too long for what is put behind it: it may have 67 characters",
            );
            None
        }
        Ok(rotation) => Some(Some(rotation)),
        Err(error) => {
            let key = match error {
                PathRotationError::Secret(_) => "http_post_path_secret",
                PathRotationError::Every(_) => "http_post_path_every",
            };
            report.error(at(key), error.to_string());
            None
        }
    }
}
