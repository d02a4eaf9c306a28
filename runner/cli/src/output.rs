//! What goes to the terminal: data to stdout, everything else to stderr.

use std::{
    borrow::Cow,
    env,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

pub(crate) use runner_report::grouped as count;
use runner_spec::Diagnostic;

use crate::{
    args::{Color, Global},
    failure::Failure,
    redact::redact,
};

/// See [`Output::is_unread`].
static UNREAD: AtomicBool = AtomicBool::new(false);

/// How to write.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// One JSON document on stdout and nothing else.
    pub(crate) json: bool,
    /// No progress, less text.
    pub(crate) quiet: bool,
    /// More text.
    pub(crate) verbose: bool,
    /// For stdout.
    pub(crate) paint: Paint,
    /// For stderr.
    pub(crate) paint_errors: Paint,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        let colour = |terminal: bool| match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !no_color && !dumb,
        };
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            paint: Paint(colour(io::stdout().is_terminal())),
            paint_errors: Paint(colour(io::stderr().is_terminal())),
        }
    }

    /// Text for stdout, where no document was asked for.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.raw(text.as_bytes()) }
    }

    /// The one document, on stdout.
    pub(crate) fn document(&self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
        text.push('\n');
        self.raw(text.as_bytes())
    }

    /// One document of several, on a line of its own.
    pub(crate) fn line(&self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string(value).map_err(Failure::failed)?;
        text.push('\n');
        self.raw(text.as_bytes())
    }

    /// Bytes for stdout. That nobody reads it any more (`runner runs | head`) is no failure, and hides none.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                UNREAD.store(true, Ordering::Relaxed);
                Ok(())
            }
            written => written.map_err(|error| Failure::failed(format!("cannot write to stdout: {error}"))),
        }
    }

    /// Whether a write found that nobody reads stdout any more: whoever writes without end may stop.
    pub(crate) fn is_unread(&self) -> bool {
        UNREAD.load(Ordering::Relaxed)
    }

    /// A line on stderr, unless it shall be quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.stderr(&escaped(text));
        }
    }

    /// An error on stderr.
    pub(crate) fn error(&self, message: &str, hint: Option<&str>) {
        let paint = self.paint_errors;
        let mut text = format!("{} {}", paint.red("error:"), escaped(message));
        if let Some(hint) = hint {
            let _ = write!(text, "\n{} {}", paint.cyan("hint:"), escaped(hint));
        }
        self.stderr(&text);
    }

    /// A warning on stderr.
    pub(crate) fn warning(&self, message: &str) {
        self.stderr(&format!("{} {}", self.paint_errors.yellow("warning:"), escaped(message)));
    }

    /// What is wrong with a pipeline, on stderr.
    pub(crate) fn diagnostics(&self, diagnostics: &[Diagnostic]) {
        let all: Vec<_> = diagnostics.iter().map(|one| one.render(self.paint_errors.0)).collect();
        self.stderr(&all.join("\n\n"));
    }

    /// Text on stderr, where no output is set up yet.
    pub(crate) fn complain(text: &str) {
        let _ = write!(io::stderr(), "{text}");
    }

    fn stderr(&self, text: &str) {
        // There is nobody to tell that stderr is closed.
        let _ = writeln!(io::stderr(), "{}", redact(text));
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }
}

/// The text with escapes for control characters, so that what stands in a file or an argument cannot steer a terminal. Lines
/// and tabs stay.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !['\n', '\t'].contains(&c);
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let one = |out: &mut String, c: char| if steers(c) { out.extend(c.escape_default()) } else { out.push(c) };
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| one(&mut out, c));
    Cow::Owned(out)
}

/// At most so many characters of a text, with an ellipsis where there are more.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A text as the cell of a table: on one line, and without what steers a terminal.
fn cell(text: &str) -> Cow<'_, str> {
    match escaped(text) {
        text if text.contains(['\n', '\t']) => Cow::Owned(text.replace(['\n', '\t'], " ")),
        text => text,
    }
}

/// A table as text: columns two spaces apart, a heading, numbers to the right.
///
/// `columns` is the heading and whether the column is of numbers. Nothing is coloured but the heading.
pub(crate) fn table(columns: &[(&str, bool)], rows: &[Vec<String>], paint: Paint) -> String {
    let columns: Vec<(Cow<'_, str>, bool)> = columns.iter().map(|(name, number)| (cell(name), *number)).collect();
    let rows: Vec<Vec<Cow<'_, str>>> = rows.iter().map(|row| row.iter().map(|text| cell(text)).collect()).collect();
    let width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> =
        columns.iter().enumerate().map(|(i, (name, _))| width(i).max(name.chars().count())).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, (_, number)), width) in cells.zip(&columns).zip(&widths) {
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            let _ = if *number { write!(line, "  {pad}{cell}") } else { write!(line, "  {cell}{pad}") };
        }
        line.truncate(line.trim_end().len());
        line
    };
    let mut text = paint.dim(&line(&mut columns.iter().map(|(name, _)| name.as_ref())));
    text.push('\n');
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(Cow::as_ref)));
        text.push('\n');
    }
    text
}

/// `0.9753`, `12,034`, `1.2e-5`: four digits after the point, or as many as it takes.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "not a number".to_owned() } else { value.to_string() };
    }
    let size = value.abs();
    if value.fract() == 0.0 && size < 1e15 {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", count(size as u64));
    }
    if size < 1e-3 { format!("{value:.2e}") } else { format!("{value:.4}") }
}

/// `12 ms`, `3.4 s`, `2 m 05 s`, `1 h 02 m`
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else {
        let whole = seconds.round() as u64;
        if whole < 3600 {
            format!("{} m {:02} s", whole / 60, whole % 60)
        } else {
            format!("{} h {:02} m", whole / 3600, whole % 3600 / 60)
        }
    }
}

/// `12 B`, `3.4 kB`, `5.6 MB`
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people_are_rounded_and_have_units() {
        let numbers = [0.97531, 1.0, -12_345.0, 0.000_012_34, f64::NAN, 0.5, 1234.5].map(number);
        assert_eq!(numbers, ["0.9753", "1", "-12,345", "1.23e-5", "not a number", "0.5000", "1234.5000"]);
        let spans = [12u64, 3_400, 59_960, 125_000, 3_720_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["12 ms", "3.4 s", "1 m 00 s", "2 m 05 s", "1 h 02 m"]);
        assert_eq!([12, 3_400, 5_600_000].map(size), ["12 B", "3.4 kB", "5.6 MB"]);
    }

    #[test]
    fn a_cell_cannot_steer_a_terminal() {
        let rows = [vec!["a\u{1b}[2Jb\0\u{9b}".into(), "x\ny".into()]];
        let text = table(&[("l\u{7}", false), ("", false)], &rows, Paint(false));
        assert_eq!(text, "  l\\u{7}\n  a\\u{1b}[2Jb\\u{0}\\u{9b}  x y\n");
        assert_eq!(escaped("two\n\tlines, café"), "two\n\tlines, café");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!([cut("héllo", 5), cut("héllo", 2)], ["héllo", "hé…"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["image".into(), "10,000".into()], vec!["t".into(), "7".into()]];
        let text = table(&[("stage", false), ("rows", true)], &rows, Paint(false));
        assert_eq!(text, "  stage    rows\n  image  10,000\n  t           7\n");
    }
}
