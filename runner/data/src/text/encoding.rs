//! Text that was read in the wrong encoding, and back: `ftfy.fix_encoding`.
//!
//! The heuristics and their tables are those of ftfy (Robyn Speer, Apache-2.0); the tables come from `reference/ftfy_tables.py`. OpenAI's
//! and open_clip's tokenizers run ftfy over every text, so equal tokens need the same guesses.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use regex::Regex;
use serde::Deserialize;

/// The file, as the script writes it.
#[derive(Deserialize)]
struct File {
    encodings: Vec<(String, String)>,
    bad: String,
    first: [String; 3],
    continuation: String,
    continuation_strict: String,
}

/// A single-byte encoding, with holes filled as browsers do.
struct Encoding {
    name: String,
    /// The bytes of the characters beyond ASCII.
    bytes: HashMap<char, u8>,
}

impl Encoding {
    /// Byte 0x1A stands for U+FFFD in these.
    fn sloppy(&self) -> bool {
        self.name.starts_with("sloppy")
    }

    fn encode(&self, text: &str) -> Option<Vec<u8>> {
        let byte = |c: char| match c {
            '\u{1A}' => self.bytes.get(&c).copied(),
            c if c.is_ascii() => u8::try_from(c).ok(),
            c => self.bytes.get(&c).copied(),
        };
        text.chars().map(byte).collect()
    }
}

struct Tables {
    encodings: Vec<Encoding>,
    bad: Regex,
    /// What the first byte of a sequence of 2, 3 and 4 looks like.
    first: [HashSet<char>; 3],
    continuation: HashSet<char>,
    /// Those that do not begin a word by themselves.
    continuation_strict: HashSet<char>,
}

/// `None` never: a test reads the tables.
static TABLES: LazyLock<Option<Tables>> = LazyLock::new(|| {
    let file: File = serde_json::from_str(include_str!("../../embedded/ftfy.json")).ok()?;
    let encoding = |(name, characters): (String, String)| {
        let bytes = characters.chars().zip((0x80..=0xFF).chain([0x1A])).collect();
        Encoding { name, bytes }
    };
    let set = |text: String| text.chars().collect();
    Some(Tables {
        encodings: file.encodings.into_iter().map(encoding).collect(),
        bad: Regex::new(&file.bad).ok()?,
        first: file.first.map(set),
        continuation: set(file.continuation),
        continuation_strict: set(file.continuation_strict),
    })
});

/// Undoes wrong decodings, one after the other, until the text looks like none or nothing helps.
pub(super) fn fix_encoding(text: &str) -> String {
    let mut text = text.to_owned();
    if text.is_ascii() {
        return text;
    }
    let Some(tables) = TABLES.as_ref() else { return text };
    // Each step shortens the text, or leaves fewer control characters.
    while let Some(fixed) = tables.step(&text).filter(|fixed| *fixed != text) {
        text = fixed;
    }
    text
}

impl Tables {
    fn step(&self, text: &str) -> Option<String> {
        if text.is_ascii() || !self.bad.is_match(text) {
            return None;
        }
        let mut latin_1 = None;
        for encoding in &self.encodings {
            let Some(mut bytes) = encoding.encode(text) else { continue };
            if encoding.name == "latin-1" {
                latin_1 = Some(bytes.clone());
            }
            if encoding.name != "macroman" {
                bytes = restore_no_break_spaces(bytes);
            }
            if encoding.sloppy() {
                bytes = replace_lost(bytes);
            }
            if let Some(decoded) = decode_variants(&bytes) {
                return Some(decoded);
            }
        }
        if let Some(fixed) = self.fix_embedded(text).filter(|fixed| fixed != text) {
            return Some(fixed);
        }
        // What is left of Latin-1 are control characters, which windows-1252 has letters for; but not for all.
        let undefined = |byte: &u8| matches!(byte, 0x81 | 0x8D | 0x8F | 0x90 | 0x9D);
        if latin_1.is_some_and(|bytes| !bytes.iter().any(undefined)) {
            let fixed: String = text.chars().map(from_c1).collect();
            if fixed != text {
                return Some(fixed);
            }
        }
        Some(text.chars().map(from_c1).collect())
    }

    /// Parts that are UTF-8 read in one of several encodings, amid proper text.
    fn fix_embedded(&self, text: &str) -> Option<String> {
        let characters: Vec<char> = text.chars().collect();
        let mut out = String::with_capacity(text.len());
        let (mut at, mut found) = (0, false);
        while let Some(character) = characters.get(at) {
            let inside = at > 0 && self.continuation_strict.contains(&characters[at - 1]);
            let mut end = at;
            while let Some(length) = (!inside).then(|| self.sequence(&characters[end..])).flatten() {
                end += length;
            }
            if end == at {
                out.push(*character);
                at += 1;
                continue;
            }
            let part: String = characters[at..end].iter().collect();
            if part.len() < text.len() && self.bad.is_match(&part) {
                out.push_str(&fix_encoding(&part));
                found = true;
            } else {
                out.push_str(&part);
            }
            at = end;
        }
        found.then_some(out)
    }

    /// The length of the UTF-8 sequence that characters look like.
    fn sequence(&self, characters: &[char]) -> Option<usize> {
        let (first, rest) = characters.split_first()?;
        (1..=3).find_map(|more| {
            let fits = self.first[more - 1].contains(first)
                && rest.get(..more)?.iter().all(|character| self.continuation.contains(character));
            fits.then_some(more + 1)
        })
    }
}

/// What browsers take the control characters U+0080 to U+009F for.
pub(super) fn from_c1(character: char) -> char {
    match character {
        '\u{80}'..='\u{9F}' => super::html::WINDOWS_1252[character as usize - 0x80],
        other => other,
    }
}

/// Puts 0xA0 back where a program took it for a space, amid what is UTF-8 otherwise.
fn restore_no_break_spaces(bytes: Vec<u8>) -> Vec<u8> {
    let mut grave = Vec::with_capacity(bytes.len());
    let mut rest = &bytes[..];
    // `Ã ` is `à`, mostly a word of its own: "à la", but not in "às", "àquele".
    while let [first, after @ ..] = rest {
        let starts = |words: &[&[u8]], text: &[u8]| words.iter().any(|word| text.starts_with(word));
        match after {
            [b' ', more @ ..] if *first == 0xC3 && !starts(&[b" ", b"quele", b"quela", b"quilo", b"s "], more) => {
                grave.extend([0xC3, 0xA0, b' ']);
                rest = more;
            }
            _ => {
                grave.push(*first);
                rest = after;
            }
        }
    }
    let more = |byte: u8| (0x80..=0xBF).contains(&byte);
    let inner = |byte: u8| more(byte) && !matches!(byte, 0x85 | 0xA0);
    let length = |bytes: &[u8]| match *bytes {
        [0xC2 | 0xC3 | 0xC5 | 0xCE | 0xD0 | 0xD9, b' ', ..] => 2,
        [0xE2 | 0xE3, b' ', last, ..] if inner(last) => 3,
        [0xE0..=0xE3, middle, b' ', ..] if inner(middle) => 3,
        [0xF0, b' ', c, d, ..] if more(c) && more(d) => 4,
        [0xF0, b, b' ', d, ..] if more(b) && more(d) => 4,
        [0xF0, b, c, b' ', ..] if more(b) && more(c) => 4,
        _ => 0,
    };
    let mut at = 0;
    while at < grave.len() {
        let length = length(&grave[at..]);
        for byte in &mut grave[at..at + length] {
            if *byte == b' ' {
                *byte = 0xA0;
            }
        }
        at += length.max(1);
    }
    grave
}

/// Replaces UTF-8 sequences of which bytes were lost (0x1A, or a question mark) by U+FFFD.
fn replace_lost(bytes: Vec<u8>) -> Vec<u8> {
    if !bytes.iter().any(|byte| matches!(byte, 0x1A | b'?')) {
        return bytes;
    }
    let lost = |byte: u8| matches!(byte, 0x1A | b'?');
    let more = |byte: u8| byte == 0x1A || (0x80..=0xBF).contains(&byte);
    let any = |byte: u8| lost(byte) || more(byte);
    let (high, low) = (|byte: u8| (0xA0..=0xAF).contains(&byte), |byte: u8| (0xB0..=0xBF).contains(&byte));
    // At most one question mark a sequence, except in pairs of surrogates.
    let length = |bytes: &[u8]| match *bytes {
        [0xC2..=0xDF, 0x1A, ..] | [0xC2 | 0xC3, b'?', ..] => 2,
        [0xED, b, c, 0xED, e, f, ..] if high(b) && low(e) && (lost(c) && any(f) || any(c) && lost(f)) => 6,
        [0xE0..=0xEF, b, c, ..] if lost(b) && more(c) || more(b) && lost(c) => 3,
        [0xF0..=0xF4, b, c, d, ..]
            if lost(b) && more(c) && more(d) || more(b) && lost(c) && more(d) || more(b) && more(c) && lost(d) =>
        {
            4
        }
        [0x1A, ..] => 1,
        _ => 0,
    };
    let mut out = Vec::with_capacity(bytes.len() + 8);
    let mut rest = &bytes[..];
    while let Some(first) = rest.first() {
        let length = length(rest);
        if length == 0 {
            out.push(*first);
        } else {
            out.extend("\u{FFFD}".as_bytes());
        }
        rest = &rest[length.max(1)..];
    }
    out
}

/// UTF-8, and where it holds 0xED or 0xC0 also its variants: pairs of surrogates (CESU-8), and Java's null.
fn decode_variants(bytes: &[u8]) -> Option<String> {
    if !bytes.iter().any(|byte| matches!(byte, 0xED | 0xC0)) {
        return std::str::from_utf8(bytes).ok().map(str::to_owned);
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        rest = match *rest {
            [] => break,
            [0xC0, 0x80, ref after @ ..] => {
                plain.push(0);
                after
            }
            [0xED, b @ 0xA0..=0xAF, c @ 0x80..=0xBF, 0xED, e @ 0xB0..=0xBF, f @ 0x80..=0xBF, ref after @ ..] => {
                let [b, c, e, f] = [b, c, e, f].map(u32::from);
                let code = ((b & 0xF) << 16) + ((c & 0x3F) << 10) + ((e & 0xF) << 6) + (f & 0x3F) + 0x1_0000;
                plain.extend(char::from_u32(code)?.to_string().as_bytes());
                after
            }
            [byte, ref after @ ..] => {
                plain.push(byte);
                after
            }
        };
    }
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_can_be_read() {
        let tables = TABLES.as_ref().map(|tables| tables.encodings.iter().map(|e| e.bytes.len()).collect::<Vec<_>>());
        assert_eq!(tables, Some(vec![129; 10]));
    }
}
