//! YAML text as a tree whose every value knows where it stands. The only module that knows the YAML parser.
//!
//! `saphyr-parser` reports events with places. The limits, tags, anchors and duplicate keys are judged on them while the
//! tree is built; what scalars without quotes *are* (`1`, `true`, `~`) says `scalar`.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry as MapEntry},
};

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

pub(crate) use crate::node::{Data, Entry, Node, repeated};
use crate::{
    expression::shorten,
    report::{Mistake, Span},
    scalar, syntax,
};

/// Bytes that a pipeline may have, with all that it includes.
pub const MAX_BYTES: usize = 1 << 20;
/// Lists and mappings inside each other.
const MAX_DEPTH: usize = 64;
/// Values in a file, aliases expanded.
pub(crate) const MAX_NODES: usize = 40_000;
/// Brackets, braces and commas. The event parser reads a bracketed value to its end before it reports the first event
/// (it might be a key), so the values cannot be counted early enough.
const MAX_BRACKETS: usize = 50_000;
/// Control characters that are reported.
const MAX_CONTROL: usize = 20;

/// A text that was read: the tree, the number of its values, and mistakes that did not keep it from being read.
pub(crate) struct Parsed {
    pub(crate) root: Node,
    pub(crate) values: usize,
    pub(crate) mistakes: Vec<Mistake>,
}

/// Reads a text of one YAML document. The error is why that cannot be done.
pub(crate) fn parse(text: &str) -> Result<Parsed, Mistake> {
    parse_part(text, 0, MAX_NODES)
}

/// Reads a text whose first character stands at `base`, of at most so many values.
pub(crate) fn parse_part(text: &str, base: usize, most: usize) -> Result<Parsed, Mistake> {
    match document(text, most) {
        Ok(mut parsed) if base > 0 => {
            parsed.root.shift(base);
            parsed.mistakes.iter_mut().for_each(|mistake| mistake.shift(base));
            Ok(parsed)
        }
        Ok(parsed) => Ok(parsed),
        Err(mut mistake) => {
            mistake.shift(base);
            Err(mistake)
        }
    }
}

fn document(text: &str, most: usize) -> Result<Parsed, Mistake> {
    let mut builder = Builder { most, ..Builder::default() };
    let forbidden = |c: char| c.is_control() && !"\t\n\r\u{85}".contains(c);
    for (at, c) in text.chars().enumerate().filter(|(_, c)| forbidden(*c)).take(MAX_CONTROL) {
        let message = format!("the control character U+{:04X}, which YAML text cannot hold", u32::from(c));
        let mistake = Mistake::at(Span::of(at, at + 1), message);
        builder.mistakes.push(mistake.hint("remove it, or write it as an escape in double quotes: `\\x1b`"));
    }
    if let Some((at, _)) = text.chars().enumerate().filter(|(_, c)| "[]{},".contains(*c)).nth(MAX_BRACKETS) {
        return Err(Mistake::at(Span::of(at, at + 1), format!("more than {MAX_BRACKETS} brackets and commas")));
    }
    let clean = if builder.mistakes.is_empty() {
        Cow::Borrowed(text)
    } else {
        // The rest of the text is read as if there were spaces.
        Cow::Owned(text.replace(forbidden, " "))
    };
    // The parser would take white space behind the last line for a line of a text block.
    let mut root = builder.document(clean.trim_end_matches([' ', '\t']))?;
    builder.resolve(&mut root);
    Ok(Parsed { root, values: builder.nodes, mistakes: builder.mistakes })
}

// ------------------------------------------------------------------------------------------------- shape and places

/// Makes the tree from events.
#[derive(Default)]
struct Builder {
    /// What does not keep the tree from being built.
    mistakes: Vec<Mistake>,
    /// Finished values with an anchor, by its number.
    anchors: HashMap<usize, (Node, usize)>,
    /// Scalars without quotes that may be no text.
    plain: Vec<String>,
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
    key: Option<Key>,
    /// The keys seen, in a mapping.
    seen: HashMap<String, Span>,
    /// What merge keys bring, in a mapping.
    merged: Vec<Entry>,
}

/// A key that waits for its value.
enum Key {
    Good(String, Span),
    /// It cannot be one, which was reported; its value goes with it.
    Bad,
    /// `<<`, which was reported; its value is merged all the same, so that nothing is missed.
    Merge,
}

impl Builder {
    fn document(&mut self, text: &str) -> Result<Node, Mistake> {
        let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
        let mut open: Vec<Open> = Vec::new();
        let mut root = None;
        let mut documents = 0;
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| syntax::mistake(&error, text))?;
            let span = Span::of(span.start.index(), span.end.index());
            let (node, anchor) = match event {
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => continue,
                Event::StreamEnd => break,
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        let mistake = Mistake::at(span, "a second document: a file holds one");
                        self.mistakes.push(mistake.hint("remove the `---`, or split the file"));
                        break;
                    }
                    continue;
                }
                Event::Alias(anchor) => (self.alias(anchor, span)?, 0),
                Event::Scalar(value, style, anchor, tag) => {
                    self.tag(tag.is_some(), span, text);
                    let is_key = open.last().is_some_and(Open::wants_key);
                    let data = if tag.is_some() {
                        Data::Broken
                    } else if is_key || style != ScalarStyle::Plain {
                        Data::Text(value.into_owned())
                    } else {
                        self.plain(value.into_owned())
                    };
                    (Node { span, data }, anchor)
                }
                Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) if open.len() >= MAX_DEPTH => {
                    let _ = (anchor, tag);
                    return Err(Mistake::at(span, format!("nested more than {MAX_DEPTH} levels deep")));
                }
                Event::SequenceStart(anchor, tag) => {
                    self.tag(tag.is_some(), span, text);
                    open.push(Open::new(Node { span, data: Data::List(Vec::new()) }, anchor, self.nodes));
                    continue;
                }
                Event::MappingStart(anchor, tag) => {
                    self.tag(tag.is_some(), span, text);
                    open.push(Open::new(Node { span, data: Data::Map(Vec::new()) }, anchor, self.nodes));
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Some(mut done) = open.pop() else { continue };
                    if let Data::Map(entries) = &mut done.node.data {
                        let merged = std::mem::take(&mut done.merged);
                        entries.extend(merged.into_iter().filter(|entry| !done.seen.contains_key(&entry.key)));
                    }
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
        Ok(root.unwrap_or(Node { span: Span::default(), data: Data::Null }))
    }

    fn tag(&mut self, present: bool, span: Span, text: &str) {
        if present {
            let line = text.chars().skip(span.start).take_while(|c| !"\n\r".contains(*c));
            let written: String = line.take(span.end - span.start).collect();
            self.mistakes.push(
                Mistake::at(span, "a YAML tag: tags are not part of the language")
                    .hint(format!("quote text that begins with `!`: `\"{}\"`", shorten(&written))),
            );
        }
    }

    /// A scalar without quotes. What may be no text waits until all are read at once: until then it is the number of its
    /// place among them.
    fn plain(&mut self, text: String) -> Data {
        if text.is_empty() {
            return Data::Null;
        }
        if !scalar::is_open(&text) {
            return Data::Text(text);
        }
        self.plain.push(text);
        Data::Number((self.plain.len() - 1).into())
    }

    /// Reads the scalars that wait.
    fn resolve(&mut self, root: &mut Node) {
        let texts = std::mem::take(&mut self.plain);
        let values = scalar::resolve(texts.clone());
        root.each(&mut |node| {
            let Data::Number(place) = &node.data else { return };
            let place = place.as_u64().and_then(|place| usize::try_from(place).ok()).unwrap_or(usize::MAX);
            node.data = match values.get(place) {
                Some(Some(value)) => value.clone(),
                _ => {
                    let text = texts.get(place).map_or("", String::as_str);
                    self.mistakes.push(Mistake::at(node.span, format!("`{}` is not a finite number", shorten(text))));
                    Data::Broken
                }
            };
        });
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
        Self { node, anchor, before, key: None, seen: HashMap::new(), merged: Vec::new() }
    }

    /// Whether a key comes next.
    fn wants_key(&self) -> bool {
        matches!(self.node.data, Data::Map(_)) && self.key.is_none()
    }

    /// Takes the next child: an item, a key or the value of the key before.
    fn add(&mut self, child: Node, mistakes: &mut Vec<Mistake>) {
        match &mut self.node.data {
            Data::List(items) => items.push(child),
            Data::Map(entries) => match self.key.take() {
                Some(Key::Good(key, span)) => {
                    // A value that is not written has no place of its own.
                    let written = child.span.start < child.span.end || !matches!(child.data, Data::Null);
                    let value = if written { child } else { Node { span, ..child } };
                    entries.push(Entry { key, span, value });
                }
                Some(Key::Bad) => {}
                Some(Key::Merge) => {
                    let parts = if let Data::List(parts) = child.data { parts } else { vec![child] };
                    for part in parts {
                        if let Data::Map(more) = part.data {
                            self.merged.extend(more);
                        }
                    }
                }
                None => self.key = Some(key(child, &mut self.seen, mistakes)),
            },
            _ => {}
        }
    }
}

/// Reads a key.
fn key(node: Node, seen: &mut HashMap<String, Span>, mistakes: &mut Vec<Mistake>) -> Key {
    let span = node.span;
    let Data::Text(key) = node.data else {
        if !matches!(node.data, Data::Broken) {
            mistakes.push(Mistake::at(span, format!("a key must be plain text, not {}", node.noun())));
        }
        return Key::Bad;
    };
    if key == "<<" {
        let mistake = Mistake::at(span, "a merge key (`<<`): merge keys are not part of the language");
        mistakes.push(mistake.hint("write the keys out, or let an alias be the whole value: `with: *NAME`"));
        return Key::Merge;
    }
    match seen.entry(key.clone()) {
        MapEntry::Occupied(first) => mistakes.push(
            Mistake::at(span, format!("duplicate key `{}`", shorten(&key)))
                .also(*first.get(), "stands first here")
                .hint("each key stands once in a mapping; remove or rename one of them"),
        ),
        MapEntry::Vacant(place) => {
            place.insert(span);
        }
    }
    Key::Good(key, span)
}

#[cfg(test)]
mod tests;
