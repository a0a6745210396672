//! YAML text as a tree that keeps order, duplicates and the way back to each value's place.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::config::problem::Place;
use crate::config::syntax;

/// Values a file may have, aliases expanded; far more than any gateway needs, far less than an alias bomb makes.
const MAX_NODES: usize = 100_000;

pub(super) const TOO_MANY: &str = "too many values";
pub(super) const TAGGED: &str = "a tag";
const STOP: &str = "stop";

/// One key or value; the id is its turn in the walk over the document and finds its place again.
#[derive(Debug)]
pub(super) struct Node {
    pub id: usize,
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i128),
    Float,
    Text(Zeroizing<String>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Whether the value is neither a list nor a mapping.
    pub fn is_scalar(&self) -> bool {
        !matches!(self.kind, Kind::List(_) | Kind::Map(_))
    }

    /// What the value is, in words for people.
    pub fn what(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Int(_) => "a number",
            Kind::Float => "a number with a fraction",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a section with keys of its own",
        }
    }
}

/// What reading a text came to.
pub(super) struct Document {
    /// The first document; none when the text has no content.
    pub root: Option<Node>,
    /// Where a second document begins.
    pub second: Option<Place>,
}

/// Reads the first document of the text.
pub(super) fn read(text: &str) -> Result<Document, serde_yaml::Error> {
    let mut documents = serde_yaml::Deserializer::from_str(text);
    let Some(first) = documents.next() else {
        return Ok(Document { root: None, second: None });
    };
    let walk = Walk::default();
    let root = match walk.deserialize(first)? {
        Node { kind: Kind::Null, id: 0 } => None,
        node => Some(node),
    };
    let second = documents.next().map(|document| {
        let stop = Walk { stop_at: Some(0), ..Walk::default() };
        place_of(stop.deserialize(document).err())
    });
    Ok(Document { root, second })
}

/// Where the node of this id stands, and its text as written if it is a scalar.
pub(super) fn locate(text: &str, id: usize) -> (Place, Option<String>) {
    let Some(first) = serde_yaml::Deserializer::from_str(text).next() else {
        return (Place::START, None);
    };
    let walk = Walk { stop_at: Some(id), ..Walk::default() };
    let place = place_of(walk.deserialize(first).err());
    (place, walk.raw.into_inner())
}

fn place_of(error: Option<serde_yaml::Error>) -> Place {
    error.as_ref().and_then(syntax::place).unwrap_or(Place::START)
}

/// A walk over a document in reading order. serde_yaml tells places in errors only, so a place is found by
/// walking again and failing on purpose at the node in question.
#[derive(Default)]
struct Walk {
    next: Cell<usize>,
    stop_at: Option<usize>,
    raw: RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for &Walk {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        let id = self.next.get();
        self.next.set(id.saturating_add(1));
        if id >= MAX_NODES {
            return Err(D::Error::custom(TOO_MANY));
        }
        if self.stop_at == Some(id) {
            // As a string, serde_yaml hands out a scalar as it was written; anything else fails in place.
            from.deserialize_str(Stop(self))
        } else {
            from.deserialize_any(Reader { walk: self, id })
        }
    }
}

/// Notes the raw text and fails.
struct Stop<'w>(&'w Walk);

impl Visitor<'_> for Stop<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STOP)
    }

    fn visit_str<E: serde::de::Error>(self, raw: &str) -> Result<Node, E> {
        *self.0.raw.borrow_mut() = Some(raw.to_owned());
        Err(E::custom(STOP))
    }
}

struct Reader<'w> {
    walk: &'w Walk,
    id: usize,
}

impl Reader<'_> {
    fn node<E>(&self, kind: Kind) -> Result<Node, E> {
        Ok(Node { id: self.id, kind })
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        self.node(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        self.node(Kind::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        self.node(Kind::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        self.node(Kind::Int(i128::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        self.node(Kind::Int(i128::from(value)))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        self.node(Kind::Int(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        self.node(Kind::Int(value))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        self.node(Kind::Float)
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        self.node(Kind::Text(Zeroizing::new(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.walk)? {
            list.push(item);
        }
        self.node(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key_seed(self.walk)? {
            map.push((key, entries.next_value_seed(self.walk)?));
        }
        self.node(Kind::Map(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(A::Error::custom(TAGGED))
    }
}
