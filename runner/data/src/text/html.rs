//! HTML character references, in two dialects: Python's `html.unescape` and `ftfy`'s more careful one.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use html_escape::NAMED_ENTITIES;

/// Names that HTML also takes without a semicolon: those of HTML 2 to 4's Latin-1 characters, and a few capitals.
const WITHOUT_SEMICOLON: &str = "AElig AMP Aacute Acirc Agrave Aring Atilde Auml COPY Ccedil ETH Eacute Ecirc Egrave Euml GT \
    Iacute Icirc Igrave Iuml LT Ntilde Oacute Ocirc Ograve Oslash Otilde Ouml QUOT REG THORN Uacute Ucirc Ugrave Uuml Yacute aacute \
    acirc acute aelig agrave amp aring atilde auml brvbar ccedil cedil cent copy curren deg divide eacute ecirc egrave eth euml \
    frac12 frac14 frac34 gt iacute icirc iexcl igrave iquest iuml laquo lt macr micro middot nbsp not ntilde oacute ocirc ograve \
    ordf ordm oslash otilde ouml para plusmn pound quot raquo reg sect shy sup1 sup2 sup3 szlig thorn times uacute ucirc ugrave \
    uml uuml yacute yen yuml";

/// The longest name and its semicolon, in characters (as Python limits it).
const LONGEST: usize = 32;

static NAMED: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    NAMED_ENTITIES.iter().filter_map(|(name, text)| Some((std::str::from_utf8(name).ok()?, *text))).collect()
});

static BARE: LazyLock<HashSet<&'static str>> = LazyLock::new(|| WITHOUT_SEMICOLON.split_whitespace().collect());

/// What HTML reads `&#128;` to `&#159;` as: windows-1252, where it has a character.
pub(super) const WINDOWS_1252: [char; 32] = [
    '\u{20AC}', '\u{81}', '\u{201A}', '\u{192}', '\u{201E}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2C6}', '\u{2030}',
    '\u{160}', '\u{2039}', '\u{152}', '\u{8D}', '\u{17D}', '\u{8F}', '\u{90}', '\u{2018}', '\u{2019}', '\u{201C}',
    '\u{201D}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2DC}', '\u{2122}', '\u{161}', '\u{203A}', '\u{153}', '\u{9D}',
    '\u{17E}', '\u{178}',
];

/// Replaces character references as Python's `html.unescape` does: also without a semicolon, also as the start of a longer word.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    replace(text, |after| {
        if after.starts_with('#') {
            return numeric(after);
        }
        let mut end = after.char_indices().take(LONGEST).find(|(_, c)| "\t\n\u{C} <&#;".contains(*c));
        if let Some((at, ';')) = end {
            if let Some(text) = NAMED.get(&after[..at]).filter(|_| at > 0) {
                return Some(((*text).into(), at + 1));
            }
        } else if end.is_none() {
            end = after.char_indices().nth(LONGEST);
        }
        let word = &after[..end.map_or(after.len(), |(at, _)| at)];
        let prefixes = word.char_indices().map(|(at, c)| &word[..at + c.len_utf8()]).rev();
        let known = prefixes
            .filter(|prefix| BARE.contains(prefix))
            .find_map(|prefix| Some((*NAMED.get(prefix)?, prefix.len())));
        known.map(|(text, length)| (text.into(), length))
    })
}

/// Replaces character references as `ftfy.fixes.unescape_html` does: whole ones only, and names in capitals too.
pub(super) fn unescape_whole(text: &str) -> Cow<'_, str> {
    replace(text, |after| {
        let at = after.char_indices().take(26).find(|(_, c)| *c == ';')?.0;
        let name = &after[..at];
        if let Some(digits) = name.strip_prefix('#') {
            let (text, length) = (1..=24).contains(&digits.len()).then(|| numeric(after))??;
            return (length == at + 1).then_some((text, length));
        }
        if !(1..=24).contains(&at) || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        if let Some(text) = NAMED.get(name) {
            return Some(((*text).into(), at + 1));
        }
        let lower = name.to_ascii_lowercase();
        // `&NOTIN;` begins with a name that HTML knows, so it stays.
        let capital = name == name.to_ascii_uppercase() && unescape(&format!("&{name};")) == format!("&{name};");
        let text = NAMED.get(lower.as_str()).filter(|_| capital)?;
        Some((text.to_uppercase().into(), at + 1))
    })
}

type Replacement = (Cow<'static, str>, usize);

/// Replaces every `&…` for which `reference`, given what follows the `&`, finds a text and how many bytes it stands for.
fn replace(text: &str, reference: impl Fn(&str) -> Option<Replacement>) -> Cow<'_, str> {
    if !text.contains('&') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        match reference(after) {
            Some((text, length)) => {
                out.push_str(&text);
                rest = &after[length..];
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.into()
}

/// `#233;`, `#xE9`: the character, and the length of the reference.
fn numeric(after: &str) -> Option<Replacement> {
    let digits = after.strip_prefix('#')?;
    let (digits, radix) = match digits.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    let count = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    if count == 0 {
        return None;
    }
    let semicolon = usize::from(digits[count..].starts_with(';'));
    let length = after.len() - digits.len() + count + semicolon;
    let number = u32::from_str_radix(&digits[..count], radix).unwrap_or(u32::MAX);
    let character = match number {
        0 | 0xD800..=0xDFFF | 0x11_0000.. => Some('\u{FFFD}'),
        0x0D => Some('\r'),
        0x80..=0x9F => Some(WINDOWS_1252[number as usize - 0x80]),
        // Characters that HTML forbids vanish.
        0x01..=0x08 | 0x0B | 0x0E..=0x1F | 0x7F | 0xFDD0..=0xFDEF => None,
        number if number & 0xFFFE == 0xFFFE => None,
        number => char::from_u32(number),
    };
    Some((character.map(String::from).unwrap_or_default().into(), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_semicolon_are_all_known() {
        for name in BARE.iter() {
            assert!(NAMED.contains_key(name), "{name}");
        }
    }
}
