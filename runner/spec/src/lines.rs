//! From positions in a text to lines and columns.

use std::{cell::Cell, sync::Arc};

use crate::{diagnostic::Place, report::Span};

/// Characters of a line that a place carries; of a longer one, this many round the place.
const LONGEST: usize = 400;

/// Where the lines of a text begin.
pub(crate) struct Lines<'a> {
    text: &'a str,
    /// Of each line, and of the end: the position of its first character, and of its first byte.
    starts: Vec<(usize, usize)>,
    /// The line asked for last: places on one line share it.
    last: (usize, Arc<str>),
    /// A character and its byte that were looked up last. Places are asked for in order, and lines may be long.
    cursor: Cell<(usize, usize)>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let (mut starts, mut characters, mut bytes) = (vec![(0, 0)], 0, 0);
        for line in text.split_inclusive('\n') {
            characters += line.chars().count();
            bytes += line.len();
            starts.push((characters, bytes));
        }
        if text.is_empty() || text.ends_with('\n') {
            starts.push((characters, bytes));
        }
        Self { text, starts, last: (usize::MAX, Arc::from("")), cursor: Cell::default() }
    }

    /// The place of a span, or of the words in it that are meant.
    pub(crate) fn place(&mut self, file: &str, span: Span, focus: Option<&str>) -> Place {
        let span = focus.and_then(|focus| self.narrow(span, focus)).unwrap_or(span);
        let index = self.line_of(span.start);
        let (start, length, line) = self.line(index).unwrap_or((0, 0, ""));
        // A place behind the end of a line (a missing value) points at the character after it.
        let column = span.start.saturating_sub(start).min(length);
        let width = span.end.saturating_sub(start).min(length).saturating_sub(column).max(1);
        let from = if length > LONGEST { column.saturating_sub(LONGEST / 2) } else { 0 };
        let source = if length > LONGEST {
            let to = (from + LONGEST).min(length);
            Arc::from(self.text.get(self.byte(start + from)..self.byte(start + to)).unwrap_or_default())
        } else {
            if self.last.0 != index {
                self.last = (index, Arc::from(line));
            }
            Arc::clone(&self.last.1)
        };
        Place::File { file: file.to_owned(), line: index + 1, column: column + 1, width, source, start: from + 1 }
    }

    /// The byte at which a character begins.
    fn byte(&self, at: usize) -> usize {
        let line = self.starts.get(self.line_of(at)).copied().unwrap_or_default();
        let known = self.cursor.get();
        let (from, byte) = if known.0 <= at && known.0 >= line.0 { known } else { line };
        let rest = self.text.get(byte..).unwrap_or_default();
        let byte = byte + rest.char_indices().nth(at - from).map_or(rest.len(), |(byte, _)| byte);
        self.cursor.set((at, byte));
        byte
    }

    /// The line that a character is on.
    fn line_of(&self, at: usize) -> usize {
        self.starts.partition_point(|(start, _)| *start <= at).clamp(1, self.starts.len() - 1) - 1
    }

    /// A line: the position of its first character, its length in characters, and its text, without the line break.
    fn line(&self, index: usize) -> Option<(usize, usize, &'a str)> {
        let ((start, from), (end, to)) = (*self.starts.get(index)?, *self.starts.get(index + 1)?);
        let line = self.text.get(from..to)?;
        let text = line.trim_end_matches(['\n', '\r']);
        Some((start, end - start - (line.len() - text.len()), text))
    }

    /// The part of a span that reads `focus`, if it stands there as written: not escaped, not folded.
    fn narrow(&self, span: Span, focus: &str) -> Option<Span> {
        let focus = focus.lines().next().filter(|focus| !focus.is_empty())?;
        let width = focus.chars().count();
        for index in self.line_of(span.start)..=self.line_of(span.end) {
            let (start, length, _) = self.line(index)?;
            let before = span.start.clamp(start, start + length);
            let within = self.text.get(self.byte(before)..self.byte(span.end.clamp(before, start + length)))?;
            let Some((skipped, _)) = within.split_once(focus) else { continue };
            let at = before + skipped.chars().count();
            if at + width <= span.end {
                return Some(Span::of(at, at + width));
            }
        }
        None
    }
}
