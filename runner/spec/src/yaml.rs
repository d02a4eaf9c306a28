//! YAML text as a tree whose every value knows where it stands. The only module that knows the YAML crates.
//!
//! Two parsers share the work. `saphyr-parser` reports events with places: it gives the tree its shape and its spans,
//! and the limits, tags, anchors and duplicate keys are judged on it. Only a text that passed goes to `serde_yaml`,
//! which decides what each scalar *is* (`1`, `true`, `~`, `"1"`); its values are laid over the tree node by node.

use std::collections::{HashMap, HashSet, hash_map::Entry as MapEntry};

use saphyr_parser::{Event, Parser, ScanError, StrInput};
use serde_json::{Map, Number, Value};

use crate::report::{Mistake, Span};

/// Bytes that a pipeline may have, with all that it includes.
pub const MAX_BYTES: usize = 1 << 20;
/// Lists and mappings inside each other.
const MAX_DEPTH: usize = 64;
/// Values in a file, aliases expanded.
pub(crate) const MAX_NODES: usize = 40_000;
/// Brackets, braces and commas. The event parser reads a bracketed value to its end before it reports the first event
/// (it might be a key), so the values cannot be counted early enough.
const MAX_BRACKETS: usize = 50_000;

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
            Data::Null => Value::Null,
            Data::Boolean(value) => Value::Bool(*value),
            Data::Number(value) => Value::Number(value.clone()),
            Data::Text(value) => Value::String(value.clone()),
            Data::List(items) => items.iter().map(Self::to_json).collect(),
            Data::Map(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect::<Map<_, _>>())
            }
        }
    }

    /// Moves all places.
    pub(crate) fn shift(&mut self, by: usize) {
        self.span = self.span.shift(by);
        match &mut self.data {
            Data::List(items) => items.iter_mut().for_each(|item| item.shift(by)),
            Data::Map(entries) => {
                for entry in entries {
                    entry.span = entry.span.shift(by);
                    entry.value.shift(by);
                }
            }
            _ => {}
        }
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
            Data::Null => "nothing",
            Data::Boolean(_) => "a boolean",
            Data::Number(number) if number.is_f64() => "a number",
            Data::Number(_) => "an integer",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }
}

/// Reads a text of one YAML document.
pub(crate) fn parse(text: &str) -> Result<Node, Vec<Mistake>> {
    document(text, MAX_NODES).map(|(node, _)| node)
}

/// Reads a text whose first character stands at `base`, of at most so many values; and counts them.
pub(crate) fn parse_part(text: &str, base: usize, most: usize) -> Result<(Node, usize), Vec<Mistake>> {
    match document(text, most) {
        Ok((mut node, values)) => {
            if base > 0 {
                node.shift(base);
            }
            Ok((node, values))
        }
        Err(mut mistakes) => {
            mistakes.iter_mut().for_each(|mistake| mistake.shift(base));
            Err(mistakes)
        }
    }
}

fn document(text: &str, most: usize) -> Result<(Node, usize), Vec<Mistake>> {
    if let Some((at, c)) = text.chars().enumerate().find(|(_, c)| c.is_control() && !"\t\n\r\u{85}".contains(*c)) {
        let message = format!("the control character U+{:04X}, which YAML text cannot hold", u32::from(c));
        return Err(vec![
            Mistake::at(Span::of(at, at + 1), message).hint("write it as an escape in double quotes: `\\x1b`"),
        ]);
    }
    if let Some((at, _)) = text.chars().enumerate().filter(|(_, c)| "[]{},".contains(*c)).nth(MAX_BRACKETS) {
        return Err(vec![Mistake::at(Span::of(at, at + 1), format!("more than {MAX_BRACKETS} brackets and commas"))]);
    }
    let mut builder = Builder { most, ..Builder::default() };
    let mut node = builder.document(text).map_err(|mistake| vec![mistake])?;
    if !builder.mistakes.is_empty() {
        return Err(builder.mistakes);
    }
    let value = serde_yaml::from_str(text).map_err(|error| vec![value_mistake(&error)])?;
    let mut mistakes = Vec::new();
    lay_over(&mut node, value, &mut mistakes);
    if mistakes.is_empty() { Ok((node, builder.nodes)) } else { Err(mistakes) }
}

// ------------------------------------------------------------------------------------------------- shape and places

/// Makes the tree from events; scalars are all text until `serde_yaml` has spoken.
#[derive(Default)]
struct Builder {
    /// What does not keep the tree from being built.
    mistakes: Vec<Mistake>,
    /// Finished values with an anchor, by its number.
    anchors: HashMap<usize, (Node, usize)>,
    /// Values so far, aliases expanded.
    nodes: usize,
    /// How many there may be.
    most: usize,
}

/// A list or mapping that is not closed yet.
struct Open {
    node: Node,
    anchor: usize,
    /// Values made before it was opened.
    before: usize,
    /// The key that waits for its value, in a mapping.
    key: Option<(String, Span)>,
    /// The keys seen, in a mapping.
    seen: HashMap<String, Span>,
}

impl Builder {
    fn document(&mut self, text: &str) -> Result<Node, Mistake> {
        let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
        let mut open: Vec<Open> = Vec::new();
        let mut root = None;
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| syntax_mistake(&error, text))?;
            let span = Span::of(span.start.index(), span.end.index());
            let (node, anchor) = match event {
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => continue,
                Event::StreamEnd => break,
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(Mistake::at(span, "a second document: a file holds one pipeline")
                            .hint("remove the `---`, or split the file"));
                    }
                    continue;
                }
                Event::Alias(anchor) => (self.alias(anchor, span)?, 0),
                Event::Scalar(value, _, anchor, tag) => {
                    self.tag(tag.is_some(), span);
                    (Node { span, data: Data::Text(value.into_owned()) }, anchor)
                }
                Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) if open.len() >= MAX_DEPTH => {
                    let _ = (anchor, tag);
                    return Err(Mistake::at(span, format!("nested more than {MAX_DEPTH} levels deep")));
                }
                Event::SequenceStart(anchor, tag) => {
                    self.tag(tag.is_some(), span);
                    open.push(Open::new(Node { span, data: Data::List(Vec::new()) }, anchor, self.nodes));
                    continue;
                }
                Event::MappingStart(anchor, tag) => {
                    self.tag(tag.is_some(), span);
                    open.push(Open::new(Node { span, data: Data::Map(Vec::new()) }, anchor, self.nodes));
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Some(mut done) = open.pop() else { continue };
                    done.node.span.end = span.end.max(done.node.span.start + 1);
                    if done.anchor > 0 {
                        // The copy kept for aliases counts as well, so that nothing grows beyond the limit.
                        self.count(self.nodes - done.before, span)?;
                        self.anchors.insert(done.anchor, (done.node.clone(), self.nodes - done.before));
                    }
                    (done.node, 0)
                }
            };
            self.count(1, span)?;
            if anchor > 0 {
                self.anchors.insert(anchor, (node.clone(), 1));
            }
            match open.last_mut() {
                Some(parent) => parent.add(node, &mut self.mistakes),
                None => root = Some(node),
            }
        }
        Ok(root.unwrap_or(Node { span: Span::default(), data: Data::Text(String::new()) }))
    }

    fn tag(&mut self, present: bool, span: Span) {
        if present {
            self.mistakes.push(
                Mistake::at(span, "a YAML tag: tags are not part of the language")
                    .hint("quote text that begins with `!`"),
            );
        }
    }

    fn count(&mut self, more: usize, span: Span) -> Result<(), Mistake> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes <= self.most {
            return Ok(());
        }
        Err(Mistake::at(span, format!("more than {MAX_NODES} values, with aliases expanded")))
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Mistake> {
        let size = self.anchors.get(&anchor).map(|(_, size)| *size);
        let size = size.ok_or_else(|| Mistake::at(span, "an alias inside the value that it stands for"))?;
        self.count(size, span)?;
        self.anchors.get(&anchor).map(|(node, _)| node.clone()).ok_or_else(|| Mistake::at(span, "an unknown alias"))
    }
}

impl Open {
    fn new(node: Node, anchor: usize, before: usize) -> Self {
        Self { node, anchor, before, key: None, seen: HashMap::new() }
    }

    /// Takes the next child: an item, a key or the value of the key before.
    fn add(&mut self, child: Node, mistakes: &mut Vec<Mistake>) {
        match &mut self.node.data {
            Data::List(items) => items.push(child),
            Data::Map(entries) => match self.key.take() {
                Some((key, span)) => {
                    // A value that is not written has no place of its own.
                    let written = child.span.start < child.span.end || child.text() != Some("");
                    let value = if written { child } else { Node { span, ..child } };
                    entries.push(Entry { key, span, value });
                }
                None => {
                    let span = child.span;
                    let Data::Text(key) = child.data else {
                        mistakes.push(Mistake::at(span, format!("a key must be plain text, not {}", child.noun())));
                        self.key = Some((String::new(), span));
                        return;
                    };
                    match self.seen.entry(key.clone()) {
                        MapEntry::Occupied(first) => mistakes.push(
                            Mistake::at(span, format!("duplicate key `{key}`"))
                                .also(*first.get(), "stands first here")
                                .hint("each key stands once in a mapping; remove or rename one of them"),
                        ),
                        MapEntry::Vacant(place) => {
                            place.insert(span);
                        }
                    }
                    self.key = Some((key, span));
                }
            },
            _ => {}
        }
    }
}

/// What the first parser could not read.
fn syntax_mistake(error: &ScanError, text: &str) -> Mistake {
    let at = error.marker();
    let mistake = Mistake::at(Span::of(at.index(), at.index() + 1), format!("not valid YAML: {}", error.info()));
    let line = text.lines().nth(at.line().saturating_sub(1)).unwrap_or_default();
    let indentation = line.len() - line.trim_start().len();
    if line[..indentation].contains('\t') {
        return Mistake { message: "a tab in the indentation".to_owned(), ..mistake }.hint("indent with spaces");
    }
    if error.info().contains("mapping values are not allowed") {
        return mistake.hint("quote text that contains `: `, and check the indentation");
    }
    mistake
}

/// What the second parser could not read, after the first could.
fn value_mistake(error: &serde_yaml::Error) -> Mistake {
    let at = error.location().map_or(0, |location| location.index());
    Mistake::at(Span::of(at, at + 1), format!("not valid YAML: {error}"))
}

// ------------------------------------------------------------------------------------------------------------ values

/// Puts what `serde_yaml` read into a tree of the same shape.
fn lay_over(node: &mut Node, value: serde_yaml::Value, mistakes: &mut Vec<Mistake>) {
    use serde_yaml::Value as Yaml;
    match (&mut node.data, value) {
        (Data::List(items), Yaml::Sequence(values)) if items.len() == values.len() => {
            for (item, value) in items.iter_mut().zip(values) {
                lay_over(item, value, mistakes);
            }
        }
        (Data::Map(entries), Yaml::Mapping(values)) if entries.len() == values.len() => {
            for (entry, (_, value)) in entries.iter_mut().zip(values) {
                lay_over(&mut entry.value, value, mistakes);
            }
        }
        (data @ Data::Text(_), Yaml::Null) => *data = Data::Null,
        (data @ Data::Text(_), Yaml::Bool(value)) => *data = Data::Boolean(value),
        (data @ Data::Text(_), Yaml::String(value)) => *data = Data::Text(value),
        (data @ Data::Text(_), Yaml::Number(value)) => match json_number(&value) {
            Some(number) => *data = Data::Number(number),
            None => mistakes.push(Mistake::at(node.span, format!("`{value}` is not a finite number"))),
        },
        _ => mistakes.push(
            Mistake::at(node.span, "this can be read in two ways")
                .hint("quote the text, or write the list or mapping with brackets"),
        ),
    }
}

fn json_number(value: &serde_yaml::Number) -> Option<Number> {
    if let Some(value) = value.as_i64() {
        return Some(value.into());
    }
    if let Some(value) = value.as_u64() {
        return Some(value.into());
    }
    value.as_f64().and_then(Number::from_f64)
}

/// The distinct texts of a list, for checks of uniqueness.
pub(crate) fn repeated(items: &[Node]) -> Option<&Node> {
    let mut seen = HashSet::new();
    items.iter().find(|item| !seen.insert(item.to_json().to_string()))
}
