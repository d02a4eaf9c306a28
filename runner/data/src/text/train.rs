//! Trains a small byte-pair vocabulary that `transformers`' `CLIPTokenizer` can load.

use std::collections::{BTreeMap, HashMap};

use tokenizers::{NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::{ClipTokenizer, build};
use crate::DataError;

/// The bytes, the bytes at a word's end, start and end: what every CLIP vocabulary holds.
const FIXED: usize = 514;

/// Trains a CLIP tokenizer on `lines`: lower case, CLIP's splitting into words, byte-level merges with `</w>`.
///
/// `vocab_size` is at least 514 (the bytes twice, start and end) and is an upper bound: merges stop when no pair
/// occurs twice. The same lines give the same tokenizer: pairs are taken by count, then by text.
pub fn train_tokenizer(
    lines: impl IntoIterator<Item = String>,
    vocab_size: usize,
    context: usize,
) -> Result<ClipTokenizer, DataError> {
    let merges = vocab_size.checked_sub(FIXED).ok_or_else(|| {
        DataError::Invalid(format!("a CLIP vocabulary holds at least {FIXED} tokens, {vocab_size} asked for"))
    })?;
    let plain = tokenizer(&[])?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines {
        for word in words(&plain, &line)? {
            *counts.entry(word).or_default() += 1;
        }
    }
    let merges = learn(&counts, merges);
    Ok(tokenizer(&merges)?.with_context(context))
}

fn tokenizer(merges: &[(String, String)]) -> Result<ClipTokenizer, DataError> {
    ClipTokenizer::from_json(&build::from_merges(merges, build::Style::Transformers).map_err(DataError::Invalid)?, None)
}

/// The words of a line, in the byte alphabet.
fn words(tokenizer: &ClipTokenizer, line: &str) -> Result<Vec<String>, DataError> {
    let fail = |error: tokenizers::Error| DataError::Invalid(format!("cannot split {line:?} into words: {error}"));
    let mut text = NormalizedString::from(line);
    if let Some(normalizer) = tokenizer.inner.get_normalizer() {
        normalizer.normalize(&mut text).map_err(fail)?;
    }
    let mut split = PreTokenizedString::from(text);
    if let Some(splitter) = tokenizer.inner.get_pre_tokenizer() {
        splitter.pre_tokenize(&mut split).map_err(fail)?;
    }
    let splits = split.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    Ok(splits.into_iter().map(|(word, _, _)| word.to_owned()).collect())
}

/// The first `count` merges: the most frequent pair of neighbours, the smaller text first among equals.
fn learn(words: &BTreeMap<String, u64>, count: usize) -> Vec<(String, String)> {
    let mut words: Vec<(Vec<String>, u64)> = words
        .iter()
        .map(|(word, &times)| {
            let mut symbols: Vec<String> = word.chars().map(String::from).collect();
            if let Some(last) = symbols.last_mut() {
                last.push_str("</w>");
            }
            (symbols, times)
        })
        .collect();
    let mut merges = Vec::with_capacity(count);
    while merges.len() < count {
        let mut pairs: HashMap<(&str, &str), u64> = HashMap::new();
        for (symbols, times) in &words {
            for pair in symbols.windows(2) {
                if let [left, right] = pair {
                    *pairs.entry((left, right)).or_default() += times;
                }
            }
        }
        let best = pairs.into_iter().max_by(|(a, m), (b, n)| m.cmp(n).then_with(|| b.cmp(a)));
        let Some(((left, right), times)) = best else { break };
        if times < 2 {
            break;
        }
        let (left, right) = (left.to_owned(), right.to_owned());
        for (symbols, _) in &mut words {
            join(symbols, &left, &right);
        }
        merges.push((left, right));
    }
    merges
}

/// Joins every `left`, `right` in place, from the front.
fn join(symbols: &mut Vec<String>, left: &str, right: &str) {
    let mut joined: Vec<String> = Vec::with_capacity(symbols.len());
    let mut ended_in_merge = false;
    for symbol in symbols.drain(..) {
        match joined.last_mut() {
            Some(last) if !ended_in_merge && last == left && symbol == right => {
                last.push_str(&symbol);
                ended_in_merge = true;
            }
            _ => {
                ended_in_merge = false;
                joined.push(symbol);
            }
        }
    }
    *symbols = joined;
}
