//! OpenAI's clean-up of text before CLIP's tokenizer: what `ftfy.fix_text`, `html.unescape` twice, white space and
//! lower case do there.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::{
    encoding::{fix_encoding, from_c1},
    html::{unescape, unescape_whole},
};

/// What is done to text before the tokenizer's own normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// Nothing: how `transformers` uses `tokenizer.json`.
    None,
    /// OpenAI's `basic_clean` and `whitespace_clean` (see [`clean`]).
    OpenAi,
}

/// Cleans text as OpenAI's CLIP does: mends it, unescapes HTML twice, makes runs of white space one space, lower-cases.
pub fn clean(text: &str) -> String {
    let mended = mend(text);
    let once = unescape(&mended);
    let unescaped = unescape(&once);
    // Python counts the separators U+001C to U+001F as white space.
    let words = unescaped.split(|c: char| c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").to_lowercase()
}

/// `ftfy.fix_text`: the same steps until nothing changes, line by line.
fn mend(text: &str) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~' if byte != b'&')) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    // Once a line looks like markup, references there and in later lines are meant as they stand.
    let mut escaped = true;
    for line in text.split_inclusive('\n') {
        escaped &= !line.contains('<');
        let mut line = line.to_owned();
        // Every step shortens the text or brings it nearer to what no step changes; the bound is for safety.
        for _ in 0..64 {
            let mended = mend_once(&line, escaped);
            if mended == line {
                break;
            }
            line = mended;
        }
        out.push_str(&line);
    }
    out
}

fn mend_once(text: &str, escaped: bool) -> String {
    let text = if escaped { unescape_whole(text) } else { Cow::Borrowed(text) };
    let text: String =
        fix_encoding(&text).chars().flat_map(|c| standard_width(from_c1(c))).map(straight_quote).collect();
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' => {
                out.push('\n');
                characters.next_if_eq(&'\n');
            }
            '\u{85}' | '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\u{1B}' if characters.peek() == Some(&'[') => {
                // A terminal's escape sequence, or else a control character.
                let mut ahead = characters.clone();
                ahead.next();
                let end = ahead.find(|c| !(c.is_ascii_digit() || *c == ';'));
                if end.is_some_and(|c| c.is_ascii_alphabetic()) {
                    characters = ahead;
                }
            }
            '\0'..='\u{8}' | '\u{B}' | '\u{E}'..='\u{1F}' | '\u{7F}' => {}
            '\u{206A}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFC}' => {}
            other => out.push(other),
        }
    }
    out.nfc().collect()
}

/// Without ligatures and digraphs of Latin letters, and of standard width.
fn standard_width(character: char) -> impl Iterator<Item = char> {
    let folded: &str = match character {
        '\u{3000}' => " ",
        '\u{FB05}' => "\u{17F}t",
        _ => "",
    };
    // The standard widths of what these blocks hold are their compatibility decompositions.
    let decomposes = matches!(character,
        '\u{FF01}'..='\u{FFEF}' | '\u{FB00}'..='\u{FB04}' | '\u{FB06}'
        | '\u{132}' | '\u{133}' | '\u{149}' | '\u{1C4}'..='\u{1CC}' | '\u{1F1}'..='\u{1F3}');
    let plain = (folded.is_empty() && !decomposes).then_some(character);
    let compatible = decomposes.then(|| std::iter::once(character).nfkc());
    folded.chars().chain(plain).chain(compatible.into_iter().flatten())
}

fn straight_quote(character: char) -> char {
    match character {
        '\u{2BC}' | '\u{2018}'..='\u{201B}' => '\'',
        '\u{201C}'..='\u{201F}' => '"',
        other => other,
    }
}
