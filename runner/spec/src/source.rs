//! The texts that a pipeline is read from. A place in any of them is a position in all of them, one behind the other.

use crate::{
    diagnostic::Place,
    lines::Lines,
    report::{Mistake, Span},
    yaml,
};

/// Characters of a text that is too long which are kept, to show where it begins.
const MAX_KEPT: usize = 4_096;

/// The texts read so far, in the order in which they were read.
#[derive(Default)]
pub(crate) struct Sources {
    files: Vec<File>,
}

/// One text.
struct File {
    /// Its name for messages.
    name: String,
    text: String,
    /// The position of its first character.
    base: usize,
    /// The position behind its last.
    end: usize,
}

impl Sources {
    /// Takes a text, and gives the position of its first character; a mistake if it is none that can be read.
    pub(crate) fn add(&mut self, name: &str, bytes: &[u8], most: usize) -> (usize, Result<(), Mistake>) {
        let base = self.files.last().map_or(0, |last| last.end + 1);
        let mut mistake = None;
        let kept = if bytes.len() > most {
            let limit = if most < yaml::MAX_BYTES { "all files of a pipeline" } else { "a pipeline" };
            let message = format!("the file is too large: {limit} may have {} bytes", yaml::MAX_BYTES);
            mistake = Some(Mistake::at(Span::of(base, base + 1), message).hint("is it a pipeline at all?"));
            bytes.get(..MAX_KEPT).unwrap_or(bytes)
        } else {
            bytes
        };
        let lossy = String::from_utf8_lossy(kept);
        let text = lossy.strip_prefix('\u{feff}').unwrap_or(&lossy).to_owned();
        if mistake.is_none()
            && let Err(error) = std::str::from_utf8(bytes)
        {
            let before = bytes.get(..error.valid_up_to()).map(String::from_utf8_lossy).unwrap_or_default();
            let at = base + before.trim_start_matches('\u{feff}').chars().count();
            let message = match bytes {
                [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the file is UTF-16, not UTF-8 text",
                _ => "the file is not UTF-8 text",
            };
            mistake = Some(Mistake::at(Span::of(at, at + 1), message).hint("save it as UTF-8"));
        }
        let end = base + text.chars().count();
        self.files.push(File { name: name.to_owned(), text, base, end });
        (base, mistake.map_or(Ok(()), Err))
    }

    /// The text added last.
    pub(crate) fn last(&self) -> &str {
        self.files.last().map_or("", |file| &file.text)
    }

    /// Bytes of all texts.
    pub(crate) fn bytes(&self) -> usize {
        self.files.iter().map(|file| file.text.len()).sum()
    }

    /// The texts by name; the first, which is the pipeline itself, and the others.
    pub(crate) fn into_texts(self) -> (String, impl Iterator<Item = (String, String)>) {
        let mut texts = self.files.into_iter().map(|file| (file.name, file.text));
        (texts.next().map(|(_, text)| text).unwrap_or_default(), texts)
    }

    /// Finds places in the texts.
    pub(crate) fn places(&self) -> Places<'_> {
        Places { sources: self, lines: self.files.iter().map(|_| None).collect() }
    }
}

/// Finds places, and remembers where lines begin.
pub(crate) struct Places<'a> {
    sources: &'a Sources,
    lines: Vec<Option<Lines<'a>>>,
}

impl Places<'_> {
    /// The place of a span, or of the words in it that are meant.
    pub(crate) fn place(&mut self, span: Span, focus: Option<&str>) -> Place {
        let index = self.sources.files.partition_point(|file| file.base <= span.start).saturating_sub(1);
        let (Some(file), Some(lines)) = (self.sources.files.get(index), self.lines.get_mut(index)) else {
            return Lines::new("").place("", Span::default(), None);
        };
        let local = Span::of(span.start - file.base, span.end.min(file.end + 1).saturating_sub(file.base));
        lines.get_or_insert_with(|| Lines::new(&file.text)).place(&file.name, local, focus)
    }
}
