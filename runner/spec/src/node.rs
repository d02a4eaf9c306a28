//! A tree whose values know where they stand.

use std::collections::HashSet;

use serde_json::{Map, Number, Value};

use crate::report::Span;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Its place; of an alias, the place of the anchored value.
    pub(crate) span: Span,
    /// The value.
    pub(crate) data: Data,
}

/// A value as JSON has it.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// `null`, `~` or nothing
    Null,
    /// `true` and `false`
    Boolean(bool),
    /// A finite number
    Number(Number),
    /// Everything else that is a scalar
    Text(String),
    /// A list
    List(Vec<Node>),
    /// Something that could not be read; reported
    Broken,
    /// A mapping, in the order of the file, keys unique
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The key as text.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) span: Span,
    /// What it maps to.
    pub(crate) value: Node,
}

impl Node {
    /// A JSON value all of whose parts stand at one place: what an expression put there.
    pub(crate) fn of_json(value: &Value, span: Span) -> Self {
        let data = match value {
            Value::Null => Data::Null,
            Value::Bool(value) => Data::Boolean(*value),
            Value::Number(value) => Data::Number(value.clone()),
            Value::String(value) => Data::Text(value.clone()),
            Value::Array(items) => Data::List(items.iter().map(|item| Self::of_json(item, span)).collect()),
            Value::Object(map) => Data::Map(
                map.iter()
                    .map(|(key, value)| Entry { key: key.clone(), span, value: Self::of_json(value, span) })
                    .collect(),
            ),
        };
        Self { span, data }
    }

    /// The value without its places.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Null | Data::Broken => Value::Null,
            Data::Boolean(value) => Value::Bool(*value),
            Data::Number(value) => Value::Number(value.clone()),
            Data::Text(value) => Value::String(value.clone()),
            Data::List(items) => items.iter().map(Self::to_json).collect(),
            Data::Map(entries) => {
                let mut map = Map::new();
                for entry in entries {
                    // Of a key that stands twice the first counts.
                    map.entry(&entry.key).or_insert_with(|| entry.value.to_json());
                }
                Value::Object(map)
            }
        }
    }

    /// Calls a function with this and everything in it.
    pub(crate) fn each(&mut self, see: &mut impl FnMut(&mut Self)) {
        see(self);
        match &mut self.data {
            Data::List(items) => items.iter_mut().for_each(|item| item.each(see)),
            Data::Map(entries) => entries.iter_mut().for_each(|entry| entry.value.each(see)),
            _ => {}
        }
    }

    /// Moves all places.
    pub(crate) fn shift(&mut self, by: usize) {
        self.each(&mut |node| {
            node.span = node.span.shift(by);
            if let Data::Map(entries) = &mut node.data {
                entries.iter_mut().for_each(|entry| entry.span = entry.span.shift(by));
            }
        });
    }

    /// The value behind a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The keys of a mapping; empty for anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        if let Data::Map(entries) = &self.data { entries } else { &[] }
    }

    /// The text of a scalar that is text.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Data::Text(text) = &self.data { Some(text) } else { None }
    }

    /// What it is, for messages: `a list`.
    pub(crate) fn noun(&self) -> &'static str {
        match &self.data {
            Data::Null | Data::Broken => "nothing",
            Data::Boolean(_) => "a boolean",
            Data::Number(number) if number.is_f64() => "a number",
            Data::Number(_) => "an integer",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }
}

/// The distinct texts of a list, for checks of uniqueness.
pub(crate) fn repeated(items: &[Node]) -> Option<&Node> {
    let mut seen = HashSet::new();
    items.iter().find(|item| !seen.insert(item.to_json().to_string()))
}
