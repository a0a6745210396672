//! Taking back without a configuration: the kernel's own listing is enough for that. Closing must not wait for a good
//! configuration.

use super::connected::{end_address, once_set};
use super::control::Request;
use super::operation_error::is_of_one_grant;
use super::operations::{OperationError, TRIES, end_every_grant};
use super::status::slugs;
use super::still_in::{by_kernel, revoked};
use crate::backend::{BackendError, Firewall};
use crate::ruleset::allow::{Origin, address_key};
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::expr::Expr;
use crate::ruleset::model::{Elements, KNOCKED_SETS};
use crate::ruleset::plan::{allow_set, app_set};
use crate::units::{AppName, ClientAddr, Family};

/// Whether a request only takes back, which works without a configuration.
#[must_use]
pub fn only_closes(request: &Request) -> bool {
    match request {
        Request::Revoke { .. } | Request::RevokeAll { .. } | Request::AllowFlush { .. } => true,
        Request::Grant { .. }
        | Request::Allow { .. }
        | Request::Status {}
        | Request::Overview { .. }
        | Request::Explain { .. }
        | Request::Unblock { .. }
        | Request::Confirm {}
        | Request::Health {}
        | Request::Figures {}
        | Request::Teardown {} => false,
    }
}

/// Takes back what the kernel lists; returns a sentence that says what was done.
///
/// # Errors
/// [`OperationError`] when there is no such app in the kernel, or the kernel would not.
pub fn close(firewall: &mut Firewall, request: &Request) -> Result<String, OperationError> {
    let mut outcome = Err(OperationError::NoTable);
    for _ in 0..TRIES {
        let live = firewall.read()?.ok_or(OperationError::NoTable)?;
        outcome = close_what_is(firewall, &live, request);
        // An element may have ended between being read and being removed.
        if !matches!(outcome, Err(OperationError::Backend(BackendError::Refused { .. }))) {
            break;
        }
    }
    outcome
}

fn close_what_is(firewall: &mut Firewall, live: &Live, request: &Request) -> Result<String, OperationError> {
    match request {
        Request::Revoke { app, address, prefix: of } => {
            let client = ClientAddr::new(*address);
            let (mut changes, slug) = (Vec::new(), slug(live, app)?);
            is_of_one_grant(client, *of, prefix(live, &app_set(&slug, Family::V6)))?;
            for client in client.sources() {
                for name in grant_sets(live, &slug, &[client.family()]) {
                    let key = address_key(client.masked_v6(prefix(live, &name)).ip());
                    let element = live.elements.get(&name).and_then(|elements| elements.get(&key));
                    let Some(element) = element else { continue };
                    let elements = Elements::from([(key, element.clone())]);
                    let set = SetRef::plain(name);
                    changes.push(Change::DeleteElements { set, elements });
                }
                changes.extend(of_connected(live, &slug, client));
            }
            firewall.apply(&changes)?;
            let ways = by_kernel(live, &slug, client, prefix(live, &app_set(&slug, Family::V6)));
            Ok(revoked(client, app, !changes.is_empty(), &ways))
        }
        Request::RevokeAll { app: None } => {
            let ended = end_every_grant(firewall)?;
            Ok(format!("grants ended, without a configuration: {ended}"))
        }
        Request::RevokeAll { app: Some(app) } => {
            let slug = slug(live, app)?;
            let sets = sets_of_app(live, &slug);
            let ended: usize = sets.iter().filter_map(|set| live.elements.get(set)).map(Elements::len).sum();
            let changes: Vec<Change> = sets.into_iter().map(Change::FlushSet).collect();
            firewall.apply(&changes)?;
            Ok(format!("grants ended, without a configuration: {ended}"))
        }
        Request::AllowFlush { app } => {
            let slugs = match app {
                Some(app) => vec![slug(live, app)?],
                None => slugs(live).into_iter().chain(["all".to_owned()]).collect(),
            };
            let sets = slugs.iter().flat_map(|slug| Family::BOTH.map(|family| allow_set(slug, family)));
            let changes: Vec<Change> = sets.filter_map(|name| without_operators(live, name)).collect();
            firewall.apply(&changes)?;
            Ok("networks that operators allowed are removed, without a configuration".to_owned())
        }
        Request::Grant { .. }
        | Request::Allow { .. }
        | Request::Explain { .. }
        | Request::Status {}
        | Request::Overview { .. }
        | Request::Unblock { .. }
        | Request::Confirm {}
        | Request::Health {}
        | Request::Figures {}
        | Request::Teardown {} => Ok(String::new()),
    }
}

/// The change that ends what a client came to by a grant for one connection; none if there is nothing.
fn of_connected(live: &Live, slug: &str, client: ClientAddr) -> Option<Change> {
    let prefix = prefix(live, &app_set(slug, Family::V6));
    let of_grant = |addr: ClientAddr| addr.masked_v6(prefix).ip();
    let set = once_set(slug, client.family());
    let mut elements = live.elements.get(&set.name)?.clone();
    elements.retain(|key, _| {
        end_address(key)
            .is_some_and(|addr| of_grant(ClientAddr::new(addr)) == of_grant(ClientAddr::new(client.ip())))
    });
    (!elements.is_empty()).then_some(Change::DeleteElements { set, elements })
}

/// The change that takes what operators allowed out of a set; none if there is nothing.
fn without_operators(live: &Live, name: String) -> Option<Change> {
    let by_operator = |comment: Option<&str>| Origin::parse(comment).is_some_and(|origin| !origin.by_config);
    let elements: Elements = live
        .elements
        .get(&name)?
        .iter()
        .filter(|(_, element)| by_operator(element.comment.as_deref()))
        .map(|(key, element)| (key.clone(), element.clone()))
        .collect();
    let set = SetRef { name, interval: true, concatenated: false };
    (!elements.is_empty()).then_some(Change::DeleteElements { set, elements })
}

/// The sets of an app's grants in these families, those that packets fill among them.
fn grant_sets(live: &Live, slug: &str, families: &[Family]) -> Vec<String> {
    let of_app = |name: &str, family: Family| {
        let knocked = name.strip_prefix(KNOCKED_SETS).and_then(|rest| rest.strip_prefix(slug));
        let end = format!("_{}", family.digit());
        let of_packets = |rest: &str| rest == end || (rest.starts_with('.') && rest.ends_with(&end));
        name == app_set(slug, family) || knocked.is_some_and(of_packets)
    };
    let names = live.ruleset.sets.iter().map(|set| &set.name);
    names.filter(|name| families.iter().any(|&family| of_app(name, family))).cloned().collect()
}

/// The same in both families, with those of what came in by a grant for one connection.
pub(super) fn sets_of_app(live: &Live, slug: &str) -> Vec<String> {
    let connected = Family::BOTH.map(|family| once_set(slug, family).name).into_iter();
    let connected = connected.filter(|set| live.ruleset.set(set).is_some());
    grant_sets(live, slug, &Family::BOTH).into_iter().chain(connected).collect()
}

/// The app's name in the kernel.
fn slug(live: &Live, app: &str) -> Result<String, OperationError> {
    let wanted = app.parse::<AppName>().map(|name| name.slug()).unwrap_or_default();
    let known = slugs(live);
    match known.contains(&wanted) {
        true => Ok(wanted),
        false => Err(OperationError::NoApp(app.to_owned(), known.join(", "))),
    }
}

/// How many bits of an address the rules compare with a set of grants, as the mask before the look-up tells.
pub(super) fn prefix(live: &Live, set: &str) -> u8 {
    let asks = |expr: &Expr| matches!(expr, Expr::Lookup { set: asked, .. } if asked == set);
    let rules = live.ruleset.chains.iter().flat_map(|chain| &chain.rules);
    let masks = rules.filter(|rule| rule.exprs.iter().any(asks)).flat_map(|rule| &rule.exprs);
    let mask = masks
        .filter_map(|expr| match expr {
            Expr::Bitwise { mask, .. } => <[u8; 16]>::try_from(mask.as_slice()).ok(),
            _ => None,
        })
        .next();
    mask.and_then(|mask| u8::try_from(u128::from_be_bytes(mask).leading_ones()).ok()).unwrap_or(128)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::ruleset::layout::Options;
    use crate::ruleset::plan::plan;

    #[test]
    fn the_prefix_of_grants_is_read_from_the_rules() {
        for prefix_wanted in [128, 64, 56, 33] {
            let text = format!(
                "global:\n  interface_ext: eth0\n  http_post_path: /a-path\n  https_post_path: /b-path\n  ipv6_prefix: {prefix_wanted}\nMy-App:\n  port: 22\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [other-secret]\n"
            );
            let settings = crate::config::parse("x", &text, None, &crate::config::Alone).unwrap().settings;
            let port = NonZeroU16::MIN;
            let options = Options { http_port: port, https_port: port, inner_header: true, log: true };
            let live = Live { ruleset: plan(&settings, options), ..Live::default() };
            assert_eq!(prefix(&live, "app_my_app_6"), prefix_wanted);
            assert_eq!(prefix(&live, "app_my_app_4"), 128);
            assert_eq!(slug(&live, "My-App").unwrap(), "my_app");
            assert!(matches!(slug(&live, "other"), Err(OperationError::NoApp(..))));
        }
    }
}
