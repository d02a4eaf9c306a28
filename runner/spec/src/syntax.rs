//! Says in plain words why a text is not YAML, and where that began.

use saphyr_parser::ScanError;

use crate::report::{Mistake, Span};

/// What the parser says (a part of it), what is meant, and what to do.
const WORDS: &[(&str, &str, &str)] = &[
    (
        "mapping values are not allowed",
        "a `:` where none can be",
        "quote text that contains `: `, and check the indentation",
    ),
    (
        "unknown anchor",
        "an unknown alias: there is no anchor of that name before it",
        "quote text that begins with `*`",
    ),
    ("simple key expect", "a key without its `:`", "write `KEY: VALUE`"),
    (
        "expected key",
        "a line that does not belong to the mapping round it",
        "write `KEY: VALUE`, and indent keys of one mapping alike",
    ),
    (
        "expected '-' indicator",
        "a line that does not belong to the list round it",
        "begin it with `- `, and indent items of one list alike",
    ),
    (
        "sequence entries are not allowed",
        "a list item where none can be",
        "write the list on lines of its own, or with brackets: `[one, two]`",
    ),
    (
        "unknown escape character",
        "an unknown escape in double quotes",
        "write `\\\\` for a backslash, or use single quotes",
    ),
    ("hexadecimal number", "an escape without its digits", "write `\\x41` or `\\u0041`, or use single quotes"),
    ("escape code", "an escape of no character", "write another code, or use single quotes"),
    ("trailing content after double-quoted", "text behind a closing quote", "put all of it into the quotes"),
    ("document-start", "something behind the end of the document", "remove it, or check the indentation"),
    ("document start", "something behind the end of the document", "remove it, or check the indentation"),
    ("after document end", "something behind the end of the document", "remove it"),
    (
        "comment intercepting",
        "a comment inside text of several lines",
        "put the text into quotes, or the comment elsewhere",
    ),
    (
        "wrongly indented line in block",
        "a line of a text block that is indented less than its first",
        "indent all lines of the block alike",
    ),
    ("document indicator", "a `---` or `...` inside quotes", "close the quotes before it"),
    ("mapping keys are not allowed", "a `?` key where none can be", "quote text that begins with `? `"),
    ("recursion limit", "brackets nested too deeply", "write it with fewer brackets"),
    (
        "block scalar, did not find",
        "something behind the `|` or `>` of a text block",
        "put the text on the lines below it, indented",
    ),
    ("anchor or alias", "an anchor or alias without a name", "quote text that begins with `&` or `*`"),
    ("cannot start with '-'", "text that begins with `-` inside brackets", "quote it"),
    ("illegal placement of ':'", "a `:` where none can be", "quote text that contains it"),
    ("simple key expected", "a key that is longer than a line", "write `KEY: VALUE` on one line"),
    ("invalid indentation", "a line that is indented less than what it belongs to", "indent it more"),
    ("tag", "a YAML tag", "quote text that begins with `!`"),
    ("directive", "a YAML directive", "quote text that begins with `%`"),
];

/// The mistake that a text is not YAML.
pub(crate) fn mistake(error: &ScanError, text: &str) -> Mistake {
    let at = error.marker().index().min(text.chars().count());
    let info = error.info();
    let before = Before::of(text, at);
    let here = Span::of(at, at + 1);
    if before.tab {
        return Mistake::at(here, "a tab in the indentation").hint("indent with spaces");
    }
    let begins = text.chars().nth(at).filter(|c| info.contains("quoted scalar") && "'\"".contains(*c));
    if let Some((from, quote)) = before.quote.or(begins.map(|quote| (at, quote)))
        && ["end of stream", "eof", "indentation in quoted", "document indicator"]
            .iter()
            .any(|words| info.contains(words))
    {
        return Mistake::at(Span::of(from, from + 1), format!("a {quote} without its closing {quote}"))
            .hint("close the quotes, or quote the text with the other sort");
    }
    let in_brackets =
        ["flow", "eof", "end of stream", "misplaced bracket", "indentation in flow", "expected key", "node content"];
    if let Some(&(from, open)) = before.open.last()
        && in_brackets.iter().any(|words| info.contains(words))
    {
        let close = if open == '{' { '}' } else { ']' };
        let opened = Span::of(from, from + 1);
        // `[${{ x }}]`: the innermost brackets are those of the expression.
        let preceded = |back: usize, words: &str| {
            let start = from.checked_sub(back)?;
            text.chars().skip(start).take(words.len()).eq(words.chars()).then_some(start)
        };
        if let Some(start) = preceded(2, "${{").or_else(|| preceded(1, "${")) {
            let mistake = Mistake::at(Span::of(start, start + 3), "an expression inside brackets stands in quotes");
            return mistake.hint("write `\"${{ … }}\"`");
        }
        if before.same_line(from) && at < text.chars().count() {
            let mistake = Mistake::at(here, format!("expected `,` or `{close}`")).also(opened, "opened here");
            return mistake.hint("close the brackets, or quote text with brackets, braces or commas in it");
        }
        let mistake = Mistake::at(opened, format!("a `{open}` without its `{close}`"));
        let end = before.last_text;
        return mistake.also(Span::of(end, end + 1), "expected behind this").hint(format!("add `{close}`"));
    }
    if info.contains("misplaced bracket") {
        return Mistake::at(here, "a closing bracket that closes nothing").hint("remove it, or quote the text");
    }
    if let Some(c) = info.strip_prefix("unexpected character: `").and_then(|rest| rest.chars().next()) {
        return Mistake::at(here, format!("text cannot begin with `{c}`")).hint("quote it");
    }
    // What is missing at the end of the text is missed where the text ends.
    let place = if before.behind { Span::of(before.last_text, before.last_text + 1) } else { here };
    match WORDS.iter().find(|(words, ..)| info.contains(words)) {
        Some((_, message, hint)) => Mistake::at(place, *message).hint(*hint),
        None => Mistake::at(place, format!("not valid YAML: {info}")),
    }
}

/// What stands before a place, seen without a grammar: enough for brackets and quotes.
#[derive(Default)]
struct Before {
    /// Brackets that are open, with their positions.
    open: Vec<(usize, char)>,
    /// The quote that is open.
    quote: Option<(usize, char)>,
    /// Where the line of the place begins.
    line: usize,
    /// The last character that is no white space.
    last_text: usize,
    /// There is a tab in the indentation of the line.
    tab: bool,
    /// Only white space follows `last_text`, up to and behind the place.
    behind: bool,
}

impl Before {
    fn of(text: &str, at: usize) -> Self {
        let mut before = Self::default();
        let (mut last, mut comment, mut indentation, mut escaped) = ('\n', false, true, false);
        for (i, c) in text.chars().enumerate().take(at) {
            if c == '\n' {
                (before.line, comment, indentation, before.tab) = (i + 1, false, true, false);
                last = c;
                continue;
            }
            before.tab |= indentation && c == '\t';
            indentation &= c.is_whitespace();
            if !c.is_whitespace() && !comment {
                before.last_text = i;
            }
            if comment {
                continue;
            }
            match (before.quote, c) {
                (Some((_, '"')), '\\') => escaped = !escaped,
                (Some((_, quote)), _) if c == quote && !(quote == '"' && escaped) => before.quote = None,
                (Some(_), _) => escaped = false,
                // Quotes begin text only at its beginning; elsewhere they are an apostrophe.
                (None, '"' | '\'') if last.is_whitespace() || "[{,:".contains(last) => {
                    (before.quote, escaped) = (Some((i, c)), false);
                }
                (None, '#') if last.is_whitespace() => comment = true,
                (None, '[' | '{') if !before.open.is_empty() || last.is_whitespace() => before.open.push((i, c)),
                (None, ']' | '}') => drop(before.open.pop()),
                _ => {}
            }
            last = c;
        }
        before.tab |= indentation && text.chars().nth(at) == Some('\t');
        before.behind = text.chars().skip(before.last_text + 1).all(char::is_whitespace);
        before
    }

    fn same_line(&self, at: usize) -> bool {
        at >= self.line
    }
}
