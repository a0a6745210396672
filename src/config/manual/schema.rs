//! The tables as JSON Schemas (draft 2020-12), by which editors complete and check.

use serde_json::{Map, Value, json};

use super::shape::{Entry, Shape, Table, Text};
use super::texts::APP_NAME;
use super::{APP, CLIENT_PROFILE, CONFIGURATION, GLOBAL, KNOCK_PROFILE, PROFILE};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// What takes over the keys of another section; readers resolve it, schemas see it.
const MERGE: &str = "<<";

/// The schema of a configuration; the files of users and of clients are `#/$defs/user` and `#/$defs/sequence_client`.
#[must_use]
pub fn configuration() -> Value {
    let mut root = document("knock-agent.yaml", "The configuration of knock-agent.", CONFIGURATION);
    add(&mut root, "type", json!("object"));
    add(&mut root, "properties", json!({"global": reference(&GLOBAL)}));
    add(&mut root, "required", json!(["global"]));
    add(&mut root, "propertyNames", name(&APP_NAME));
    add(&mut root, "additionalProperties", reference(&APP));
    // Without the steps there are no paths.
    let without = json!({"properties": {"steps": {"enum": ["off", false]}}, "required": ["steps"]});
    let paths = json!({"required": ["http_post_path", "https_post_path"]});
    if let Some(global) = root.pointer_mut("/$defs/global") {
        add(global, "if", without);
        add(global, "else", paths);
    }
    root
}

/// The schema of a client's profile.
#[must_use]
pub fn profile() -> Value {
    let mut root = document("knock-agent profile", "A profile of knock-agent's client.", CLIENT_PROFILE);
    add(&mut root, "type", json!("object"));
    add(&mut root, "if", json!({"required": ["sequence"]}));
    add(&mut root, "then", reference(&KNOCK_PROFILE));
    add(&mut root, "else", reference(&PROFILE));
    root
}

fn document(title: &str, about: &str, tables: &[&Table]) -> Value {
    let tables: Map<String, Value> =
        tables.iter().map(|table| (table.name.to_owned(), section(table))).collect();
    json!({"$schema": DRAFT, "title": title, "description": about, "$defs": tables})
}

fn add(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

fn reference(table: &Table) -> Value {
    json!({"$ref": format!("#/$defs/{}", table.name)})
}

fn section(table: &Table) -> Value {
    let mut keys: Map<String, Value> =
        table.entries.iter().map(|entry| (entry.key.to_owned(), property(entry))).collect();
    keys.insert(MERGE.to_owned(), json!({"description": "Takes over the keys of another section."}));
    let needed: Vec<&str> =
        table.entries.iter().filter(|entry| entry.needed).map(|entry| entry.key).collect();
    let mut out = json!({
        "type": "object",
        "description": table.about,
        "properties": keys,
        "additionalProperties": false,
    });
    if !needed.is_empty() {
        add(&mut out, "required", json!(needed));
    }
    if !table.one_of.is_empty() {
        let each: Vec<Value> = table.one_of.iter().map(|key| json!({"required": [key]})).collect();
        add(&mut out, "oneOf", json!(each));
    }
    if !table.with.is_empty() {
        let pairs: Map<String, Value> =
            table.with.iter().map(|(key, other)| ((*key).to_owned(), json!([other]))).collect();
        add(&mut out, "dependentRequired", Value::Object(pairs));
    }
    out
}

fn property(entry: &Entry) -> Value {
    let mut out = shape(&entry.shape);
    add(&mut out, "description", json!(entry.meaning));
    if let Some(default) = entry.default.and_then(|text| serde_yaml::from_str::<Value>(text).ok()) {
        add(&mut out, "default", default);
    }
    out
}

fn shape(of: &Shape) -> Value {
    match of {
        Shape::Switch => json!({"type": "boolean"}),
        Shape::Number(i64::MIN, i64::MAX) => json!({"type": "integer"}),
        Shape::Number(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Shape::Words(words) => json!({"enum": choices(words)}),
        Shape::Time(least, most) => json!({
            "anyOf": [
                {"type": "integer", "minimum": least, "maximum": most},
                {"type": "string", "pattern": "^ *[0-9]+[smhd]? *$"},
            ]
        }),
        Shape::Text(text) => name(text),
        Shape::Mixed(least, most, text) => json!({
            "anyOf": [{"type": "integer", "minimum": least, "maximum": most}, name(text)]
        }),
        Shape::List(of, least, most) => json!({
            "anyOf": [
                shape(of),
                {"type": "array", "items": shape(of), "minItems": least, "maxItems": most},
            ]
        }),
        Shape::Section(table) => reference(table),
        Shape::Named(names, of) => json!({
            "type": "object",
            "propertyNames": name(names),
            "additionalProperties": shape(of),
        }),
        Shape::Either(all) => json!({"anyOf": all.iter().map(shape).collect::<Vec<_>>()}),
        Shape::Nothing => json!({"type": "null"}),
    }
}

/// The words; for readers of YAML 1.1 `on` and `off` are true and false.
fn choices(words: &[&str]) -> Vec<Value> {
    let switches = [("on", true), ("off", false)].into_iter().filter(|(word, _)| words.contains(word));
    words.iter().map(|word| json!(word)).chain(switches.map(|(_, value)| json!(value))).collect()
}

fn name(text: &Text) -> Value {
    let mut out = json!({"type": "string", "minLength": text.least});
    if !text.pattern.is_empty() {
        add(&mut out, "pattern", json!(text.pattern));
    }
    if let Some(most) = text.most {
        add(&mut out, "maxLength", json!(most));
    }
    out
}
