//! Marks of packets and connections that rules of iptables-legacy write.

use crate::ruleset::audit::step::{Source, Step};

/// `NFT_META_MARK`.
const MARK: Source = Source::Meta(3);
/// `NFT_CT_MARK`.
pub(super) const CONNECTION_MARK: Source = Source::Ct { key: 3, direction: None };

/// What `MARK` and `CONNMARK` do; with masks of some bits it is not known which mark comes of it.
pub(super) fn target(of_connection: bool, words: &[String]) -> Vec<Step> {
    let option = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).and_then(|text| value_and_mask(text))
    };
    let says = |name: &str| words.iter().any(|word| word == name);
    let whole = ["--nfmask", "--ctmask"]
        .into_iter()
        .all(|name| option(name).is_none_or(|(mask, _)| mask == u32::MAX));
    let copied = |from: Source| if whole { from } else { Source::Unknown };
    let (own, write) = match of_connection {
        true => (CONNECTION_MARK, Step::SetConnectionMark { from: 0 }),
        false => (MARK, Step::SetMark { from: 0 }),
    };
    let load = |source| Step::Load { source, to: 0, len: Some(4) };
    match option("--set-xmark") {
        Some((value, mask)) => {
            let (mask, xor) = ((!mask).to_ne_bytes().to_vec(), value.to_ne_bytes().to_vec());
            vec![load(own), Step::Mask { from: 0, to: 0, mask, xor }, write]
        }
        None if of_connection && says("--save-mark") => vec![load(copied(MARK)), write],
        None if of_connection && says("--restore-mark") => {
            vec![load(copied(CONNECTION_MARK)), Step::SetMark { from: 0 }]
        }
        None => vec![load(Source::Unknown), write],
    }
}

/// `5`, `0x5`, `0x5/0xff`.
pub(super) fn value_and_mask(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    Some((number(value)?, number(mask)?))
}
