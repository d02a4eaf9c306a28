//! Writes a `tokenizer.json` from a vocabulary and merges, as `transformers`' `CLIPTokenizer` sets one up.

use std::{collections::BTreeMap, io::Read};

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

use super::{END, START};

/// Whose tokenizer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `transformers`' `CLIPTokenizer`.
    Transformers,
    /// `SimpleTokenizer` of OpenAI's code.
    OpenAi,
    /// open_clip's `SimpleTokenizer`: other names for the special tokens.
    OpenClip,
}

impl Style {
    /// Start and end.
    pub(super) fn special(self) -> [&'static str; 2] {
        match self {
            Self::Transformers | Self::OpenAi => [START, END],
            Self::OpenClip => ["<start_of_text>", "<end_of_text>"],
        }
    }
}

/// Merges in OpenAI's file that CLIP uses; the file holds more.
const OPENAI_MERGES: usize = 49_152 - 256 - 2;

/// What is split off a word.
const CONTRACTIONS: &str = "'s|'t|'re|'ve|'m|'ll|'d";
/// Words, single digits and runs of other signs.
const WORDS: &str = r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Letters and numbers of Unicode 17 and 18, which Python's `regex` module knows and the crate `regex` does not yet.
const NEW_LETTERS: &str = "558 58B-58C 88F C5C CDC 208F 209D-209F A7CE-A7CF A7D2 A7D4 A7DD A7E2 A7F1 AB6C-AB6D 107BB-107BF \
    10940-10959 10EC5-10EC7 10ED9-10EEE 11B0A 11DB0-11DDB 11DF1 16EA0-16EB8 16EBB-16ED3 16FF2-16FF3 187F8-187FF 18CD6-18CDA \
    18D09-18D20 18D80-18DF2 18E00-19191 191A0-191D2 1B123-1B128 1B168 1D6A6 1DF1F-1DF24 1DF2B-1DF81 1DF90-1DF96 1DFCD-1DFFF \
    1E6C0-1E6DE 1E6E0-1E6E2 1E6E4-1E6E5 1E6E7-1E6ED 1E6F0-1E6F4 1E6FE-1E6FF 2B73A-2B73F 2B81E 2CEA2-2CEAD 323B0-33479 3D000-3FC3F";
const NEW_NUMBERS: &str = "11DE0-11DE9 1246F 12475-1247F 12550-12686 16FF4-16FF6";

/// How the original tokenizers split text: contractions whatever the case (also "'ſ"), and with today's letters.
pub(super) fn original_pattern() -> String {
    let class = |name: &str, ranges: &str| {
        let ranges = ranges.split(' ').map(|range| format!(r"\x{{{}}}", range.replace('-', r"}-\x{")));
        format!("{name}{}", ranges.collect::<String>())
    };
    let (letters, numbers) = (class(r"\p{L}", NEW_LETTERS), class(r"\p{N}", NEW_NUMBERS));
    // U+0345 is no letter but a variant of one, so whatever the case it is neither: it vanishes.
    let words = WORDS.replace(r"[^\s", r"[^\s\x{345}").replace(r"\p{L}", &letters).replace(r"\p{N}", &numbers);
    format!("(?i:{CONTRACTIONS})|{words}")
}

/// The 256 characters that stand for the 256 bytes: printable Latin-1 for themselves, the rest from U+0100 on, in the
/// order in which CLIP's vocabulary begins (GPT-2's `bytes_to_unicode`).
pub(super) fn byte_alphabet() -> Vec<(u8, char)> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let plain = (0..=255u8).filter(printable).map(|byte| (byte, char::from(byte)));
    let rest = (0..=255u8).filter(|byte| !printable(byte));
    let moved = rest.zip('\u{100}'..);
    plain.chain(moved).collect()
}

/// The vocabulary in CLIP's order: the bytes, the bytes at a word's end, one token a merge, start, end.
pub(super) fn vocabulary(merges: &[(String, String)], style: Style) -> Vec<String> {
    let bytes: Vec<String> = byte_alphabet().into_iter().map(|(_, character)| character.to_string()).collect();
    let ends: Vec<String> = bytes.iter().map(|byte| format!("{byte}</w>")).collect();
    let merged = merges.iter().map(|(left, right)| format!("{left}{right}"));
    let special = style.special().map(str::to_owned);
    bytes.iter().cloned().chain(ends).chain(merged).chain(special).collect()
}

/// The text of a `tokenizer.json` of this vocabulary.
pub(super) fn tokenizer_json(
    vocab: &Map<String, Value>,
    merges: &[(String, String)],
    style: Style,
) -> Result<String, String> {
    let id = |token: &str| vocab.get(token).cloned().ok_or_else(|| format!("the vocabulary lacks `{token}`"));
    let added = |token: &str| -> Result<Value, String> {
        Ok(json!({"id": id(token)?, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                  "normalized": false, "special": true}))
    };
    let [start, end] = style.special();
    let mut special = [(id(start)?, start), (id(end)?, end)];
    special.sort_by_key(|(id, _)| id.as_u64());
    let theirs = style == Style::Transformers;
    // The original tokenizers find special tokens with the words, not before them: `ClipTokenizer` does.
    let added = special.iter().filter(|_| theirs).map(|(_, token)| added(token)).collect::<Result<Vec<_>, _>>()?;
    let normalizer = json!({"type": "Sequence", "normalizers": [
        {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        {"type": "Lowercase"},
    ]});
    // The original tokenizers match text that is clean already, and once.
    let pattern = match theirs {
        true => format!(r"<\|startoftext\|>|<\|endoftext\|>|{CONTRACTIONS}|{WORDS}"),
        false => original_pattern(),
    };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": theirs.then_some(normalizer),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": theirs},
        ]},
        "post_processor": {"type": "RobertaProcessing", "sep": [end, id(end)?], "cls": [start, id(start)?],
                           "trim_offsets": false, "add_prefix_space": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": end, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": merges},
    });
    Ok(tokenizer.to_string())
}

/// From `vocab.json` and `merges.txt`.
pub(super) fn from_vocab(vocab: &str, merges: &str) -> Result<String, String> {
    let ids: BTreeMap<String, u32> =
        serde_json::from_str(vocab).map_err(|error| format!("not a map of tokens to ids: {error}"))?;
    let lines = merges
        .lines()
        .enumerate()
        .filter(|(i, line)| !(line.trim().is_empty() || *i == 0 && line.starts_with("#version")));
    let merges =
        lines.map(|(i, line)| pair(line).ok_or_else(|| format!("merges.txt, line {}: expected two tokens", i + 1)));
    let merges = merges.collect::<Result<Vec<_>, _>>()?;
    tokenizer_json(&ids.into_iter().map(|(token, id)| (token, id.into())).collect(), &merges, Style::Transformers)
}

/// From OpenAI's `bpe_simple_vocab_16e6.txt`, packed or not.
pub(super) fn from_openai(file: &[u8], style: Style) -> Result<String, String> {
    let mut text = String::new();
    let read = match file.starts_with(&[0x1F, 0x8B]) {
        true => GzDecoder::new(file).read_to_string(&mut text),
        false => { file }.read_to_string(&mut text),
    };
    read.map_err(|error| format!("not gzip text: {error}"))?;
    let merges: Vec<_> = text.lines().skip(1).take(OPENAI_MERGES).map_while(pair).collect();
    if merges.len() != OPENAI_MERGES {
        return Err(format!("expected {OPENAI_MERGES} merges after the first line, found {}", merges.len()));
    }
    from_merges(&merges, style)
}

/// From merges alone, with the vocabulary that follows from them.
pub(super) fn from_merges(merges: &[(String, String)], style: Style) -> Result<String, String> {
    let ids = vocabulary(merges, style).into_iter().enumerate().map(|(id, token)| (token, id.into()));
    tokenizer_json(&ids.collect(), merges, style)
}

fn pair(line: &str) -> Option<(String, String)> {
    let (left, right) = line.trim_end().split_once(' ')?;
    (!left.is_empty() && !right.is_empty() && !right.contains(' ')).then(|| (left.to_owned(), right.to_owned()))
}
