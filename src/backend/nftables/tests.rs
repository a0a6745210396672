use proptest::prelude::*;

use super::encode::encode;
use crate::ruleset::allow::address_key;
use crate::ruleset::audit::host::HostFamily;
use crate::ruleset::diff::{Change, SetRef, diff};
use crate::ruleset::model::{Content, Element, Elements, Set, TABLE, Timeout};
use crate::ruleset::plan::arbitrary::{options, settings};
use crate::ruleset::plan::plan;
use crate::ruleset::wire;
use crate::sys::nftnl::{Message, Scratch};

/// What follows the header and `nfgenmsg`.
fn payload(message: &Message) -> Vec<u8> {
    message.to_bytes(&mut Scratch::default()).split_off(20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_encoded_decodes_to_the_same(settings in settings(), options in options()) {
        let ruleset = plan(&settings, options);
        let changes = diff(None, &ruleset);
        let encoded = encode(&changes).unwrap();
        prop_assert_eq!(encoded.messages.len(), encoded.origins.len());
        for (message, &origin) in encoded.messages.iter().zip(&encoded.origins) {
            let bytes = payload(message);
            match &changes[origin] {
                Change::AddRule { chain, rule } => {
                    let found = wire::rule(&bytes, TABLE).unwrap();
                    prop_assert_eq!(&found.chain, chain);
                    prop_assert_eq!(&found.rule, rule);
                }
                Change::AddChain(chain) => prop_assert_eq!(&wire::chain(&bytes, TABLE).unwrap(), chain),
                Change::AddSet(set) => {
                    prop_assert_eq!(&wire::set(&bytes, TABLE).unwrap(), set);
                    let sign = wire::made_by_us(&bytes, TABLE);
                    prop_assert_eq!(sign, set.flags.interval.then_some(true), "told from what nft loads");
                }
                Change::AddElements { set, elements } => {
                    let shape = ruleset.set(&set.name).unwrap();
                    let found = wire::pair_ranges(shape, wire::elements(&bytes));
                    prop_assert_eq!(&found, elements);
                }
                other => prop_assert!(matches!(other, Change::AddTable), "{}", other),
            }
        }
    }

    #[test]
    fn a_decoder_never_falls_over(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = wire::chain(&bytes, TABLE);
        let _ = wire::rule(&bytes, TABLE);
        let _ = wire::set(&bytes, TABLE);
        let _ = wire::elements(&bytes);
        for family in HostFamily::ALL {
            let _ = wire::host_chain(&bytes, family);
            let _ = wire::host_rule(&bytes, family);
            let _ = wire::host_set(&bytes, family);
            let _ = wire::host_elements(&bytes);
            let _ = wire::host_flowtable(&bytes, family);
        }
    }
}

fn grants() -> Set {
    Set { content: Content::Living, ..plan_sets("app_ssh_4") }
}

fn plan_sets(name: &str) -> Set {
    let text = "global:\n  interface_ext: eth0\n  http_post_path: /a-path\n  https_post_path: /b-path\nssh:\n  port: 22\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [other-secret]\n";
    let settings = crate::config::parse("x", text, None, &crate::config::Alone).unwrap().settings;
    let port = |n| std::num::NonZeroU16::new(n).unwrap();
    let options = crate::ruleset::layout::Options {
        http_port: port(1),
        https_port: port(2),
        inner_header: true,
        log: true,
    };
    plan(&settings, options).set(name).unwrap().clone()
}

#[test]
fn times_and_comments_of_elements_survive_and_nothing_becomes_permanent() {
    let key = address_key("192.0.2.1".parse().unwrap());
    for (total_ms, left_ms) in [(10_000, 10_000), (10_000, 1), (1, 1)] {
        let element = Element {
            timeout: Some(Timeout { total_ms, left_ms }),
            comment: Some("alice two-step".into()),
            ..Element::default()
        };
        let set = SetRef::from(&grants());
        let elements = Elements::from([(key.clone(), element)]);
        let encoded = encode(&[Change::AddElements { set, elements: elements.clone() }]).unwrap();
        let found = wire::pair_ranges(&grants(), wire::elements(&payload(&encoded.messages[0])));
        assert_eq!(found, elements);
    }
    let expired = Element { timeout: Some(Timeout { total_ms: 10, left_ms: 0 }), ..Element::default() };
    let set = SetRef::from(&grants());
    let encoded = encode(&[Change::AddElements { set, elements: Elements::from([(key, expired)]) }]).unwrap();
    let found = wire::elements(&payload(&encoded.messages[0]));
    assert_eq!(found[0].element.timeout, Some(Timeout { total_ms: 10, left_ms: 1 }));
}

#[test]
fn many_elements_are_cut_into_messages_that_fit() {
    let elements: Elements = (0..1_000_u32).map(|n| (n.to_be_bytes().to_vec(), Element::default())).collect();
    let set = SetRef::from(&grants());
    let encoded = encode(&[Change::AddElements { set, elements: elements.clone() }]).unwrap();
    assert!(encoded.messages.len() > 1);
    let found: Elements = encoded
        .messages
        .iter()
        .flat_map(|message| wire::pair_ranges(&grants(), wire::elements(&payload(message))))
        .collect();
    assert_eq!(found, elements);
}

#[test]
fn renewing_adds_removes_and_adds_again() {
    let set = SetRef::from(&grants());
    let element = Element { timeout: Some(Timeout::fresh_ms(5)), ..Element::default() };
    let elements = Elements::from([(vec![1, 2, 3, 4], element)]);
    let encoded = encode(&[Change::RenewElements { set, elements }]).unwrap();
    assert_eq!(encoded.messages.len(), 3);
}

#[test]
fn a_long_comment_is_cut_at_a_character() {
    let text = "ü".repeat(100);
    let element = Element { comment: Some(text.clone()), ..Element::default() };
    let set = SetRef::from(&grants());
    let encoded =
        encode(&[Change::AddElements { set, elements: Elements::from([(vec![1, 2, 3, 4], element)]) }])
            .unwrap();
    let found = wire::elements(&payload(&encoded.messages[0])).remove(0).element.comment.unwrap();
    assert!(text.starts_with(&found) && found.len() <= 127 && found.len() > 120);
}
