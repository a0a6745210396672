//! Bytes as hexadecimal text, where the model is written to a file or read from one.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&text(bytes))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    bytes(&text).ok_or_else(|| D::Error::custom("bytes are not written as hexadecimal pairs"))
}

pub(super) mod option {
    //! Bytes that may be missing.

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::ruleset) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(super::text).serialize(to)
    }

    pub(in crate::ruleset) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let read = |text: String| {
            super::bytes(&text).ok_or_else(|| D::Error::custom("bytes are not written as hexadecimal pairs"))
        };
        text.map(read).transpose()
    }
}

pub(super) mod keys {
    //! Elements, whose keys are bytes.

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::ruleset::model::{Element, Elements};

    pub(in crate::ruleset) fn serialize<S: Serializer>(
        elements: &Elements,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_map(elements.iter().map(|(key, element)| (super::text(key), element)))
    }

    pub(in crate::ruleset) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Elements, D::Error> {
        let read = |(key, element): (String, Element)| {
            let key = super::bytes(&key).ok_or_else(|| D::Error::custom("a key is not hexadecimal"))?;
            Ok((key, element))
        };
        std::collections::BTreeMap::<String, Element>::deserialize(from)?.into_iter().map(read).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |at: &u8| char::from(*at).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}
