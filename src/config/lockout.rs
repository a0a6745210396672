//! `global.lockout`.

use crate::config::report::Report;
use crate::config::section::Field;
use crate::config::settings::LockoutRule;

pub(super) const KEYS: &[&str] = &["after", "first", "longest"];

/// Reads the rule, or `off`; the outer option tells whether it is right.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Option<Option<LockoutRule>> {
    if !field.is_section() {
        return field.choice(&[("off", None)], report);
    }
    let section = field.section(report)?;
    section.refuse_unknown(KEYS, crate::config::global::KEYS, "the section global", report);
    let usual = LockoutRule::usual()?;
    let time = |key: &str, usual, report: &mut Report| match section.get(key) {
        None => Some(usual),
        Some(field) => field.lifetime(report),
    };
    let after = match section.get("after") {
        None => Some(usual.after),
        Some(field) => field.number(1..=1_000, report),
    };
    let (first, longest) = (time("first", usual.first, report), time("longest", usual.longest, report));
    let rule = LockoutRule { after: after?, first: first?, longest: longest? };
    if rule.first > rule.longest {
        report.error(section.spot_for("first"), "the first lock-out is longer than the longest one");
        return None;
    }
    Some(Some(rule))
}
