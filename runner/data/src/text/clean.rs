//! OpenAI's clean-up of text before CLIP's tokenizer: what `ftfy.fix_text`, `html.unescape` twice, white space and
//! lower case do there.
//!
//! Of `ftfy`'s repairs, all that do not guess are here; of those that guess an encoding, the common one: UTF-8 that was read
//! as windows-1252 or Latin-1 (`â€™`, `Ã©`). Text broken in other ways reaches the tokenizer as it is.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::html::{WINDOWS_1252, unescape, unescape_whole};

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
        for _ in 0..16 {
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
    let text = decode_again(&text);
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{80}'..='\u{9F}' => out.push(WINDOWS_1252[character as usize - 0x80]),
            '\r' => {
                out.push('\n');
                characters.next_if_eq(&'\n');
            }
            '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\u{2BC}' | '\u{2018}'..='\u{201B}' => out.push('\''),
            '\u{201C}'..='\u{201F}' => out.push('"'),
            '\u{3000}' => out.push(' '),
            // The standard widths of what these blocks hold are their compatibility decompositions.
            '\u{FF01}'..='\u{FFEF}' | '\u{FB00}'..='\u{FB04}' | '\u{FB06}' => {
                out.extend(std::iter::once(character).nfkc())
            }
            '\u{FB05}' => out.push_str("\u{17F}t"),
            '\u{132}' | '\u{133}' | '\u{149}' | '\u{1C4}'..='\u{1CC}' | '\u{1F1}'..='\u{1F3}' => {
                out.extend(std::iter::once(character).nfkc());
            }
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

/// Undoes the reading of UTF-8 as windows-1252 or Latin-1, wherever characters make up a UTF-8 sequence that way.
///
/// Of two-byte sequences only those of Latin-1's characters (`Ã©`, `Â£`): others occur in proper text (`É»`).
fn decode_again(text: &str) -> Cow<'_, str> {
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let (mut at, mut changed) = (0, false);
    while let Some(&character) = characters.get(at) {
        let length = match byte_of(character) {
            Some(0xC2 | 0xC3) => 2,
            Some(0xE1..=0xEF) => 3,
            Some(0xF0..=0xF4) => 4,
            _ => 1,
        };
        let bytes: Option<Vec<u8>> = characters
            .get(at..at + length)
            .filter(|_| length > 1)
            .and_then(|sequence| sequence.iter().map(|&character| byte_of(character)).collect());
        let decoded = bytes.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        match decoded {
            Some(decoded) => {
                out.push_str(decoded);
                (at, changed) = (at + length, true);
            }
            // The second byte of `à` is a no-break space, which often has become a space.
            None if character == 'Ã' && lost_no_break_space(&characters[..at], &characters[at + 1..]) => {
                out.push('à');
                (at, changed) = (at + 1, true);
            }
            None => {
                out.push(character);
                at += 1;
            }
        }
    }
    if changed { out.into() } else { text.into() }
}

/// Whether `Ã` between these characters stands for `à`: after a small letter or a word, before a space that ends it.
fn lost_no_break_space(before: &[char], after: &[char]) -> bool {
    let word = before.strip_suffix(&[' ']).unwrap_or(before);
    let ends_word = after.first() == Some(&' ') && after.get(1) != Some(&' ');
    ends_word && word.last().is_none_or(char::is_ascii_lowercase)
}

/// The byte above 0x7F that windows-1252, or Latin-1 where that has none, reads as this character.
fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ 0x80..=0xFF => u8::try_from(code).ok(),
        _ => WINDOWS_1252.iter().zip(0x80..).find(|(other, _)| **other == character).map(|(_, byte)| byte),
    }
}
