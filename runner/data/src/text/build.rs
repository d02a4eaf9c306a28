//! Writes a `tokenizer.json` from a vocabulary and merges, as `transformers`' `CLIPTokenizer` sets one up.

use std::{collections::BTreeMap, io::Read};

use flate2::read::GzDecoder;
use serde_json::{Map, Value, json};

use super::{END, START};

/// Merges in OpenAI's file that CLIP uses; the file holds more.
const OPENAI_MERGES: usize = 49_152 - 256 - 2;

/// Splits text into words, contractions, single digits and runs of other signs.
const PATTERN: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

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
pub(super) fn vocabulary(merges: &[(String, String)]) -> Vec<String> {
    let bytes: Vec<String> = byte_alphabet().into_iter().map(|(_, character)| character.to_string()).collect();
    let ends: Vec<String> = bytes.iter().map(|byte| format!("{byte}</w>")).collect();
    let merged = merges.iter().map(|(left, right)| format!("{left}{right}"));
    let special = [START, END].map(str::to_owned);
    bytes.iter().cloned().chain(ends).chain(merged).chain(special).collect()
}

/// The text of a `tokenizer.json` of this vocabulary.
pub(super) fn tokenizer_json(vocab: &Map<String, Value>, merges: &[(String, String)]) -> Result<String, String> {
    let id = |token: &str| vocab.get(token).cloned().ok_or_else(|| format!("the vocabulary lacks `{token}`"));
    let added = |token: &str| -> Result<Value, String> {
        Ok(json!({"id": id(token)?, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                  "normalized": false, "special": true}))
    };
    let mut special = [(id(START)?, START), (id(END)?, END)];
    special.sort_by_key(|(id, _)| id.as_u64());
    let added = special.iter().map(|(_, token)| added(token)).collect::<Result<Vec<_>, _>>()?;
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {"type": "RobertaProcessing", "sep": [END, id(END)?], "cls": [START, id(START)?],
                           "trim_offsets": false, "add_prefix_space": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
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
    tokenizer_json(&ids.into_iter().map(|(token, id)| (token, id.into())).collect(), &merges)
}

/// From OpenAI's `bpe_simple_vocab_16e6.txt`, packed or not.
pub(super) fn from_openai(file: &[u8]) -> Result<String, String> {
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
    from_merges(&merges)
}

/// From merges alone, with the vocabulary that follows from them.
pub(super) fn from_merges(merges: &[(String, String)]) -> Result<String, String> {
    let ids = vocabulary(merges).into_iter().enumerate().map(|(id, token)| (token, id.into()));
    tokenizer_json(&ids.collect(), merges)
}

fn pair(line: &str) -> Option<(String, String)> {
    let (left, right) = line.trim_end().split_once(' ')?;
    (!left.is_empty() && !right.is_empty() && !right.contains(' ')).then(|| (left.to_owned(), right.to_owned()))
}
