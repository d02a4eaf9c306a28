//! Collects mistakes, and turns their places in the text into diagnostics.

use std::{collections::HashSet, sync::Arc};

use crate::diagnostic::{Diagnostic, Place};

/// Diagnostics returned at most; a note counts the rest.
const MAX_SHOWN: usize = 100;
/// Comparisons made for "did you mean", so that many misspelt names among many names cost nothing.
const MAX_COMPARISONS: usize = 50_000;

/// A stretch of the text, in characters from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Span {
    /// The first character.
    pub(crate) start: usize,
    /// The first character behind it.
    pub(crate) end: usize,
}

impl Span {
    /// From one character up to another.
    pub(crate) fn of(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }
}

/// Where a mistake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum At {
    /// In the override of that position.
    Set(usize),
    /// In the text.
    Text(Span),
}

/// A diagnostic before its place is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mistake {
    /// Where.
    pub(crate) at: At,
    /// What is wrong.
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) hint: Option<String>,
    /// The words at the place that are meant, where that is less than all of it.
    pub(crate) focus: Option<String>,
}

impl Mistake {
    /// A mistake in the text.
    pub(crate) fn at(span: Span, message: impl Into<String>) -> Self {
        Self { at: At::Text(span), message: message.into(), hint: None, focus: None }
    }

    /// Adds a hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint if there is one.
    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
}

/// The mistakes found so far. The same mistake counts once.
#[derive(Default)]
pub(crate) struct Report {
    mistakes: Vec<Mistake>,
    seen: HashSet<Mistake>,
    comparisons: usize,
}

impl Report {
    /// Adds a mistake.
    pub(crate) fn add(&mut self, mistake: Mistake) {
        if self.seen.insert(mistake.clone()) {
            self.mistakes.push(mistake);
        }
    }

    /// Adds several.
    pub(crate) fn extend(&mut self, mistakes: impl IntoIterator<Item = Mistake>) {
        mistakes.into_iter().for_each(|mistake| self.add(mistake));
    }

    /// The mistakes as they came.
    pub(crate) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }

    /// How many there are: to see whether a step added any.
    pub(crate) fn len(&self) -> usize {
        self.mistakes.len()
    }

    /// `did you mean `x`?` for the candidate nearest to a word, if one is near.
    pub(crate) fn suggest<'a>(&mut self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
        self.nearest(word, candidates).map(|name| format!("did you mean `{name}`?"))
    }

    /// The candidate nearest to a word, if one is near.
    pub(crate) fn nearest<'a>(&mut self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        nearest(word, candidates, &mut self.comparisons)
    }

    /// The diagnostics in the order of the file, overrides first.
    pub(crate) fn into_diagnostics(mut self, file: &str, text: &str, set: &[(String, String)]) -> Vec<Diagnostic> {
        self.mistakes.sort_by_key(|mistake| mistake.at);
        let more = self.mistakes.len().saturating_sub(MAX_SHOWN);
        let lines = Lines::new(text);
        let mut all: Vec<_> = self
            .mistakes
            .into_iter()
            .take(MAX_SHOWN)
            .map(|Mistake { at, message, hint, focus }| {
                let place = match at {
                    At::Text(span) => lines.place(file, lines.narrow(span, focus.as_deref())),
                    At::Set(index) => {
                        let (name, text) = set.get(index).cloned().unwrap_or_default();
                        Place::Set { name, text }
                    }
                };
                Diagnostic { place, message, hint }
            })
            .collect();
        if let (1.., Some(last)) = (more, all.last_mut()) {
            let note = format!("{more} more mistakes are not shown");
            last.hint = Some(last.hint.take().map_or(note.clone(), |hint| format!("{hint}; {note}")));
        }
        all
    }
}

/// The candidate nearest to a word, if it is near enough to be meant.
fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>, comparisons: &mut usize) -> Option<&'a str> {
    let length = word.chars().count();
    if length > 64 {
        return None;
    }
    let allowed = 1 + usize::from(length > 3) + usize::from(length > 8);
    let mut best = None;
    for candidate in candidates {
        if candidate.len().abs_diff(word.len()) > 2 * allowed {
            continue;
        }
        *comparisons += 1;
        if *comparisons > MAX_COMPARISONS {
            break;
        }
        let distance = strsim::osa_distance(&word.to_lowercase(), &candidate.to_lowercase());
        if distance <= allowed && distance < length && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Where the lines of a text begin.
struct Lines {
    /// Of each line: its first character's position, and its text without the line break.
    lines: Vec<(usize, Arc<str>)>,
}

impl Lines {
    fn new(text: &str) -> Self {
        let mut lines = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            lines.push((start, Arc::from(line.trim_end_matches(['\n', '\r']))));
            start += line.chars().count();
        }
        if text.is_empty() || text.ends_with('\n') {
            lines.push((start, Arc::from("")));
        }
        Self { lines }
    }

    /// The line that a character is on.
    fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|(start, _)| *start <= at).saturating_sub(1)
    }

    /// The part of a span that reads `focus`, if it stands there as written (not escaped, not folded).
    fn narrow(&self, span: Span, focus: Option<&str>) -> Span {
        let Some(focus) = focus.and_then(|focus| focus.lines().next()).filter(|focus| !focus.is_empty()) else {
            return span;
        };
        let width = focus.chars().count();
        for (start, line) in self.lines.iter().skip(self.line_of(span.start)).take_while(|(start, _)| *start < span.end)
        {
            let before = span.start.saturating_sub(*start);
            let from = line.char_indices().nth(before).map_or(line.len(), |(at, _)| at);
            let found = line.get(from..).and_then(|rest| rest.find(focus).map(|at| rest[..at].chars().count()));
            if let Some(at) = found.map(|at| start + before + at).filter(|at| at + width <= span.end) {
                return Span::of(at, at + width);
            }
        }
        span
    }

    fn place(&self, file: &str, span: Span) -> Place {
        let index = self.line_of(span.start);
        let (start, source) = self.lines.get(index).cloned().unwrap_or((0, Arc::from("")));
        let length = source.chars().count();
        // A place behind the end of a line (a missing value) points at the character after it.
        let column = span.start.saturating_sub(start).min(length);
        let width = span.end.saturating_sub(start).min(length).saturating_sub(column).max(1);
        Place::File { file: file.to_owned(), line: index + 1, column: column + 1, width, source }
    }
}
