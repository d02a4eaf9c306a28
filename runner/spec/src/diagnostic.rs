//! What is wrong with a pipeline, where, and what to write instead.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use serde::{Serialize, Serializer};
use unicode_width::UnicodeWidthStr as _;

/// One thing that is wrong. Its `Display` is the whole message for people, over several lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// What is wrong, as a fragment: `unknown key `stagse``.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// Another place that has to do with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<Related>,
}

/// A second place of a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// What stands there: `declared first here`.
    pub message: String,
}

/// Where a diagnostic points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "in")]
pub enum Place {
    /// A place in the pipeline's file.
    File {
        /// The path as the caller gave it.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// How many characters of the line are meant; at least 1.
        width: usize,
        /// The line; of a very long one the part round the place.
        #[serde(serialize_with = "shared")]
        source: Arc<str>,
        /// The column at which `source` begins: 1, unless the line is very long.
        #[serde(skip_serializing_if = "is_one")]
        start: usize,
    },
    /// An override from the command line.
    Set {
        /// The parameter that it names.
        name: String,
        /// The text given.
        text: String,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_one(start: &usize) -> bool {
    *start == 1
}

fn shared<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column, .. } => write!(f, "{file}:{line}:{column}"),
            Self::Set { name, .. } => write!(f, "--set {name}"),
        }
    }
}

/// Characters of a source line that are shown; longer lines are cut round the place.
const SHOWN: usize = 110;

impl Diagnostic {
    /// The message for people, with ANSI colours if `colour`. Ends without a line break.
    pub fn render(&self, colour: bool) -> String {
        let paint = |code: &'static str, text: &str| {
            if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
        };
        let (red, blue, bold) = ("1;31", "1;34", "1");
        let mut out = format!("{}{}\n", paint(red, "error"), paint(bold, &format!(": {}", self.message)));
        let pad = " ".repeat(margin(&self.place));
        let _ = writeln!(out, "{pad}{} {}", paint(blue, "-->"), self.place);
        out.push_str(&excerpt(&self.place, &|text| paint(blue, text), &|text| paint(red, text)));
        if let Place::Set { name, text } = &self.place {
            let bar = paint(blue, "|");
            let shown = format!("--set {name}={}", printable(text).chars().take(SHOWN).collect::<String>());
            let _ = writeln!(out, "{pad} {bar}\n{pad} {bar} {shown}\n{pad} {bar}");
        }
        if let Some(Related { place, message }) = &self.related {
            let pad = " ".repeat(margin(place));
            let _ = writeln!(out, "{}: {message}\n{pad}{} {place}", paint(blue, "note"), paint(blue, "-->"));
            out.push_str(&excerpt(place, &|text| paint(blue, text), &|text| paint(blue, text)));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "{}: {hint}", paint("1;36", "hint"));
        }
        out.truncate(out.trim_end().len());
        out
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// How wide the line numbers are.
fn margin(place: &Place) -> usize {
    if let Place::File { line, .. } = place { line.to_string().len() } else { 1 }
}

/// The line with its carets; nothing for other places.
fn excerpt(place: &Place, quiet: &dyn Fn(&str) -> String, loud: &dyn Fn(&str) -> String) -> String {
    let Place::File { line, column, width, source, start, .. } = place else { return String::new() };
    let (shown, start) = part(source, *column, *start);
    let width = (*width).clamp(1, shown.chars().count().saturating_sub(start).max(1));
    // A character may take two columns on a terminal, or none.
    let columns = |from: usize, count: usize| shown.chars().skip(from).take(count).collect::<String>().width();
    let caret = format!("{}{}", " ".repeat(columns(0, start)), "^".repeat(columns(start, width).max(1)));
    let (pad, bar) = (" ".repeat(margin(place)), quiet("|"));
    format!("{pad} {bar}\n{} {bar} {shown}\n{pad} {bar} {}\n", quiet(&line.to_string()), loud(&caret))
}

/// The part of a line round a column (from 1), and where in that part the column is (from 0). `source` begins at column
/// `start`.
fn part(source: &str, column: usize, start: usize) -> (String, usize) {
    let source = printable(source);
    let at = column.saturating_sub(start);
    let length = source.chars().count();
    if length <= SHOWN && start == 1 {
        return (source.trim_end().to_owned(), at.min(length));
    }
    let from = if at + SHOWN / 2 < SHOWN { 0 } else { at - SHOWN / 2 };
    let lead = if from > 0 || start > 1 { "…" } else { "" };
    let tail = if from + SHOWN < length { "…" } else { "" };
    let cut: String = source.chars().skip(from).take(SHOWN).collect();
    (format!("{lead}{cut}{tail}"), at - from + lead.chars().count())
}

/// The text with every control character as a space, so that a file cannot steer a terminal and carets stay in line.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
