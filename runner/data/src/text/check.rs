//! What a `tokenizer.json` may hold. The file comes with a folder that anybody may have made, and the library builds
//! whatever it names, so only the parts of CLIP's tokenizers reach it, and none that makes much text of little.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::error::short;

/// Most parts of one kind, one after the other. CLIP's tokenizers have three.
const MOST_PARTS: usize = 8;
/// Most bytes of what [`replace`] looks for and puts in its place.
const MOST_REPLACED: usize = 64;
/// Most bytes of the pattern that splits text into words. Those written by [`super::build`] hold 4 kB.
const MOST_PATTERN: usize = 16 << 10;
/// Most tokens beside the vocabulary.
const MOST_ADDED: usize = 1024;

/// Says what in a `tokenizer.json` is not of a CLIP tokenizer.
pub(super) fn check(tokenizer: &Value) -> Result<(), String> {
    let part = |name: &str| tokenizer.get(name).filter(|part| !part.is_null());
    normalizers(&parts(part("normalizer"), "normalizer", "normalizers")?)?;
    splitters(&parts(part("pre_tokenizer"), "pre_tokenizer", "pretokenizers")?)?;
    part("post_processor").map_or(Ok(()), post_processor)?;
    if let Some(decoder) = part("decoder") {
        expect(decoder, "decoder", &["ByteLevel"])?;
    }
    let model = part("model").ok_or("no model: expected one of type BPE")?;
    ids(model_vocabulary(model)?, part("added_tokens"))
}

/// The parts of a sequence, or the one part that stands alone. Sequences inside sequences are refused: nobody needs them.
fn parts<'a>(value: Option<&'a Value>, name: &str, inside: &str) -> Result<Vec<&'a Value>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    if value["type"] != "Sequence" {
        return Ok(vec![value]);
    }
    let parts = value[inside].as_array().ok_or_else(|| format!("{name}: a Sequence without `{inside}`"))?;
    if parts.len() > MOST_PARTS {
        return Err(format!("{name}: {} parts, expected at most {MOST_PARTS}", parts.len()));
    }
    Ok(parts.iter().collect())
}

/// The type of a part, if it is one of these.
fn expect<'a>(part: &'a Value, name: &str, types: &[&str]) -> Result<&'a str, String> {
    let found = part["type"].as_str().unwrap_or_default();
    match types.contains(&found) {
        true => Ok(found),
        false => {
            Err(format!("{name}: type `{}`, but those of CLIP's tokenizers are {}", short(found), types.join(", ")))
        }
    }
}

fn normalizers(parts: &[&Value]) -> Result<(), String> {
    for part in parts {
        if expect(part, "normalizer", &["NFC", "Lowercase", "Replace"])? == "Replace" {
            replace(part)?;
        }
    }
    Ok(())
}

/// What is put in must not be longer than what it is put for: a few of these in a row would make gigabytes of a caption.
fn replace(part: &Value) -> Result<(), String> {
    let content = part["content"].as_str().ok_or("normalizer: Replace without `content`")?;
    let shortest = match (part["pattern"]["Regex"].as_str(), part["pattern"]["String"].as_str()) {
        (Some(r"\s+"), _) => 1,
        (Some(other), _) => {
            return Err(format!(r"normalizer: Replace of the pattern `{}`, expected `\s+`", short(other)));
        }
        (None, Some("")) | (None, None) => return Err("normalizer: Replace of nothing".into()),
        (None, Some(text)) => text.len(),
    };
    if shortest > MOST_REPLACED {
        return Err(format!("normalizer: Replace of {shortest} bytes, expected at most {MOST_REPLACED}"));
    }
    match content.len() > shortest {
        true => Err(format!("normalizer: Replace puts {} bytes in the place of {shortest}", content.len())),
        false => Ok(()),
    }
}

fn splitters(parts: &[&Value]) -> Result<(), String> {
    let mut levels = 0;
    for part in parts {
        match expect(part, "pre_tokenizer", &["Split", "ByteLevel"])? {
            "ByteLevel" => levels += 1,
            _ => {
                let pattern = part["pattern"]["Regex"].as_str().or_else(|| part["pattern"]["String"].as_str());
                let length = pattern.map(str::len).ok_or("pre_tokenizer: Split without a pattern")?;
                if length > MOST_PATTERN {
                    return Err(format!("pre_tokenizer: a pattern of {length} bytes, expected at most {MOST_PATTERN}"));
                }
            }
        }
    }
    // Each makes two bytes of one.
    if levels > 1 { Err(format!("pre_tokenizer: ByteLevel {levels} times, expected once")) } else { Ok(()) }
}

/// A template may name the text as often as it likes, and each time is a copy.
fn post_processor(part: &Value) -> Result<(), String> {
    let types = ["RobertaProcessing", "TemplateProcessing", "ByteLevel"];
    if expect(part, "post_processor", &types)? == "TemplateProcessing" {
        for template in ["single", "pair"] {
            let pieces = part[template].as_array().map_or(0, Vec::len);
            if pieces > MOST_PARTS {
                return Err(format!(
                    "post_processor: {pieces} pieces in its `{template}`, expected at most {MOST_PARTS}"
                ));
            }
        }
    }
    Ok(())
}

/// The vocabulary of a model that merges pairs of bytes with `</w>` at word ends, the same way each time.
fn model_vocabulary(model: &Value) -> Result<&Map<String, Value>, String> {
    expect(model, "model", &["BPE"])?;
    if model["end_of_word_suffix"] != "</w>" {
        let found = short(&model["end_of_word_suffix"].to_string());
        return Err(format!("model: `end_of_word_suffix` is {found}, in CLIP's tokenizers it is \"</w>\""));
    }
    if !matches!(&model["continuing_subword_prefix"], Value::Null) && model["continuing_subword_prefix"] != "" {
        return Err("model: `continuing_subword_prefix` is set, in CLIP's tokenizers it is empty".into());
    }
    if model["dropout"].as_f64().is_some_and(|share| share != 0.0) {
        return Err("model: `dropout` leaves merges out at random: set it to null".into());
    }
    model["vocab"].as_object().ok_or_else(|| "model: no `vocab` of tokens and their ids".into())
}

/// Ids are rows of a table of embeddings: each stands for one token, and none lies behind the last.
fn ids(vocabulary: &Map<String, Value>, added: Option<&Value>) -> Result<(), String> {
    let added = added.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if added.len() > MOST_ADDED {
        return Err(format!("added_tokens: {} of them, expected at most {MOST_ADDED}", added.len()));
    }
    let mut more = Vec::new();
    for token in added {
        let content = token["content"].as_str().ok_or("added_tokens: a token without `content`")?;
        match vocabulary.get(content) {
            None => more.push((content, &token["id"])),
            Some(id) if *id == token["id"] => {}
            Some(id) => {
                let (content, other) = (short(content), short(&token["id"].to_string()));
                return Err(format!("added_tokens: `{content}` has the id {other}, but {id} in the vocabulary"));
            }
        }
    }
    let size = vocabulary.len() + more.len();
    let mut seen = HashSet::with_capacity(size);
    for (token, id) in vocabulary.iter().map(|(token, id)| (token.as_str(), id)).chain(more) {
        let wrong = |what: String| {
            let (token, id) = (short(token), short(&id.to_string()));
            Err(format!("token `{token}` has the id {id}: {what}"))
        };
        let Some(number) = id.as_u64().filter(|id| *id < size as u64) else {
            return wrong(format!("expected a number below {size}, which is how many tokens there are"));
        };
        if !seen.insert(number) {
            return wrong("another token has the same".into());
        }
    }
    Ok(())
}
