//! From positions in a text to lines and columns.

use std::sync::Arc;

use crate::{diagnostic::Place, report::Span};

/// Where the lines of a text begin.
pub(crate) struct Lines<'a> {
    text: &'a str,
    /// Of each line: the position of its first character, and of its first byte.
    starts: Vec<(usize, usize)>,
    /// The line asked for last. Many places may stand on one long line, and share it.
    last: (usize, Arc<str>),
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let (mut starts, mut characters, mut bytes) = (vec![(0, 0)], 0, 0);
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            characters += line.chars().count();
            bytes += line.len();
            starts.push((characters, bytes));
        }
        Self { text, starts, last: (usize::MAX, Arc::from("")) }
    }

    /// The place of a span, or of the words in it that are meant.
    pub(crate) fn place(&mut self, file: &str, span: Span, focus: Option<&str>) -> Place {
        let span = focus.and_then(|focus| self.narrow(span, focus)).unwrap_or(span);
        let index = self.line_of(span.start);
        let (start, line) = self.line(index).unwrap_or((0, ""));
        if self.last.0 != index {
            self.last = (index, Arc::from(line));
        }
        let length = line.chars().count();
        // A place behind the end of a line (a missing value) points at the character after it.
        let column = span.start.saturating_sub(start).min(length);
        let width = span.end.saturating_sub(start).min(length).saturating_sub(column).max(1);
        Place::File {
            file: file.to_owned(),
            line: index + 1,
            column: column + 1,
            width,
            source: Arc::clone(&self.last.1),
        }
    }

    /// The line that a character is on.
    fn line_of(&self, at: usize) -> usize {
        self.starts.partition_point(|(start, _)| *start <= at).saturating_sub(1)
    }

    /// A line: the position of its first character, and its text without the line break.
    fn line(&self, index: usize) -> Option<(usize, &'a str)> {
        let (start, from) = *self.starts.get(index)?;
        let to = self.starts.get(index + 1).map_or(self.text.len(), |(_, to)| *to);
        Some((start, self.text.get(from..to)?.trim_end_matches(['\n', '\r'])))
    }

    /// The part of a span that reads `focus`, if it stands there as written: not escaped, not folded.
    fn narrow(&self, span: Span, focus: &str) -> Option<Span> {
        let focus = focus.lines().next().filter(|focus| !focus.is_empty())?;
        let width = focus.chars().count();
        for index in self.line_of(span.start)..=self.line_of(span.end) {
            let (start, line) = self.line(index)?;
            let before = span.start.saturating_sub(start);
            let from = line.char_indices().nth(before).map_or(line.len(), |(at, _)| at);
            let Some((skipped, _)) = line.get(from..).and_then(|rest| rest.split_once(focus)) else { continue };
            let at = start + before + skipped.chars().count();
            if at + width <= span.end {
                return Some(Span::of(at, at + width));
            }
        }
        None
    }
}
