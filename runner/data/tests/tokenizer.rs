//! Tokens equal transformers' `CLIPTokenizer`, the clean-up OpenAI's. Golden values: `reference/tokenizer.py`.

#![expect(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::{fs, path::Path};

use proptest::prelude::*;
use runner_data::{Cleaning, ClipTokenizer, clean, train_tokenizer};
use serde_json::{Value, json};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer")
}

/// The golden folder's tokenizer.
fn tokenizer() -> ClipTokenizer {
    let config = fs::read_to_string(folder().join("tokenizer_config.json")).unwrap();
    ClipTokenizer::from_folder(&folder(), Some(&config)).unwrap()
}

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/tokens.json")).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn tokens_equal_those_of_transformers() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.cleaning(), Cleaning::None);
    let golden = golden();
    let lines = golden["lines"].as_array().unwrap();
    assert!(lines.len() > 50);
    for line in lines {
        let text = line["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), ids(&line["ids"]), "{text:?}");
    }
}

#[test]
fn vocab_and_merges_make_the_same_tokenizer_as_tokenizer_json() {
    let whole: Value = serde_json::from_str(&fs::read_to_string(folder().join("tokenizer.json")).unwrap()).unwrap();
    let merges = whole["model"]["merges"].as_array().unwrap().iter().map(|pair| strings(pair).join(" "));
    let merges = format!("#version: 0.2\n{}\n", merges.collect::<Vec<_>>().join("\n"));
    let temporary = tempfile::tempdir().unwrap();
    fs::write(temporary.path().join("vocab.json"), whole["model"]["vocab"].to_string()).unwrap();
    fs::write(temporary.path().join("merges.txt"), merges).unwrap();
    let tokenizer = ClipTokenizer::from_folder(temporary.path(), None).unwrap();
    let again = ClipTokenizer::from_json(&tokenizer.to_json().unwrap(), Some(&tokenizer.config_json())).unwrap();
    for line in golden()["lines"].as_array().unwrap() {
        let text = line["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), ids(&line["ids"]), "{text:?}");
        assert_eq!(again.encode(text).unwrap(), ids(&line["ids"]), "{text:?}");
    }
    assert_eq!((again.context(), again.pad(), again.end()), (77, tokenizer.end(), tokenizer.end()));
}

#[test]
fn clips_own_tokenizer_is_inside_the_program() {
    let tokenizer = ClipTokenizer::openai().unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.context(), tokenizer.pad()), (49_408, 77, 0));
    assert_eq!(tokenizer.encode("a diagram").unwrap(), [49406, 320, 22697, 49407]);
    assert_eq!(tokenizer.encode("  A  CAT &amp;amp; a dog").unwrap(), [49406, 320, 2368, 261, 320, 1929, 49407]);
    let again = ClipTokenizer::from_json(&tokenizer.to_json().unwrap(), Some(&tokenizer.config_json())).unwrap();
    assert_eq!((again.cleaning(), again.pad()), (Cleaning::OpenAi, 0));
}

#[test]
fn text_that_is_too_long_keeps_the_end_token_and_short_text_is_padded_with_it() {
    let tokenizer = tokenizer().with_context(10);
    let long = tokenizer.encode(&"photo ".repeat(200)).unwrap();
    assert_eq!((long.len(), long[0], long[9]), (10, tokenizer.start(), tokenizer.end()));
    let short = tokenizer.encode_padded("photo").unwrap();
    assert_eq!(short.len(), 10);
    assert!(short[2..].iter().all(|id| *id == tokenizer.end()));
}

#[test]
fn clean_up_equals_openais() {
    for line in golden()["lines"].as_array().unwrap() {
        let text = line["text"].as_str().unwrap();
        assert_eq!(clean(text), line["cleaned"].as_str().unwrap(), "{text:?}");
    }
}

#[test]
fn messy_text_gives_the_tokens_of_openais_and_open_clips_code() {
    let cases: Value = serde_json::from_str(include_str!("golden/messy.json")).unwrap();
    let tokenizers = [("openai", ClipTokenizer::openai().unwrap()), ("open_clip", ClipTokenizer::open_clip().unwrap())];
    for (name, tokenizer) in tokenizers {
        assert_eq!(
            (tokenizer.vocab_size(), tokenizer.start(), tokenizer.end(), tokenizer.pad()),
            (49_408, 49_406, 49_407, 0)
        );
        // What a bundle stores gives it back.
        let again = ClipTokenizer::from_json(&tokenizer.to_json().unwrap(), Some(&tokenizer.config_json())).unwrap();
        for tokenizer in [tokenizer.with_context(10_000), again.with_context(10_000)] {
            for case in cases.as_array().unwrap() {
                let text = case["text"].as_str().unwrap();
                let tokens = tokenizer.encode(text).unwrap();
                let expected = ids(case.get(name).unwrap_or(&case["openai"]));
                assert_eq!(tokens[1..tokens.len() - 1], expected, "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn training_learns_the_merges_that_the_reference_learns() {
    let golden = golden();
    let merges = golden["merges"].as_array().unwrap();
    let tokenizer = train_tokenizer(strings(&golden["corpus"]), 514 + merges.len(), 32).unwrap();
    let json: Value = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
    assert_eq!(json["model"]["merges"].as_array().unwrap(), merges);
    assert_eq!(tokenizer.vocab_size(), 514 + merges.len());
    assert_eq!(tokenizer.encode("a photo of a photo").unwrap().len(), 7);
    assert_eq!(tokenizer.context(), 32);
    // The ids of the special tokens are the last, as in OpenAI's vocabulary.
    assert_eq!(tokenizer.end() as usize, tokenizer.vocab_size() - 1);
    assert!(train_tokenizer(Vec::new(), 100, 77).unwrap_err().to_string().contains("at least 514 tokens"));
}

#[test]
fn what_is_no_clip_tokenizer_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    let error = |name: &str, content: &str| {
        for file in fs::read_dir(temporary.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        fs::write(temporary.path().join(name), content).unwrap();
        ClipTokenizer::from_folder(temporary.path(), None).unwrap_err().to_string()
    };
    assert!(error("other", "").contains("expected tokenizer.json, or vocab.json and merges.txt"));
    assert!(error("tokenizer.json", "{").contains("tokenizer.json: not a tokenizer"));
    assert!(error("bpe_simple_vocab_16e6.txt.gz", "#v\na b\n").contains("expected 48894 merges"));
    fs::write(temporary.path().join("vocab.json"), "{\"a\": 0}").unwrap();
    fs::write(temporary.path().join("merges.txt"), "a b c\n").unwrap();
    let error = ClipTokenizer::from_folder(temporary.path(), None).unwrap_err().to_string();
    assert!(error.contains("merges.txt, line 1: expected two tokens"), "{error}");
}

/// The golden tokenizer with something else at these keys.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut tokenizer = serde_json::from_str(&fs::read_to_string(folder().join("tokenizer.json")).unwrap()).unwrap();
    change(&mut tokenizer);
    tokenizer.to_string()
}

#[test]
fn parts_that_no_clip_tokenizer_has_never_reach_the_library() {
    let part = |key: &'static str, part: Value| changed(move |whole| whole[key] = part);
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let sequence = |parts: Vec<Value>| json!({"type": "Sequence", "normalizers": parts});
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let model = |key: &'static str, part: Value| changed(move |whole| whole["model"][key] = part);
    for (tokenizer, message) in [
        (
            part("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
            "normalizer: type `Precompiled`",
        ),
        (
            part("normalizer", json!({"type": "Prepend", "prepend": "a".repeat(50_000_000)})),
            "normalizer: type `Prepend`",
        ),
        (part("normalizer", sequence(vec![replace("a", "a"); 9])), "normalizer: 9 parts, expected at most 8"),
        (part("normalizer", replace("a", "aa")), "Replace puts 2 bytes in the place of 1"),
        (part("normalizer", replace("", "a")), "Replace of nothing"),
        (part("normalizer", json!({"type": "Replace", "pattern": {"Regex": ".*"}, "content": " "})), "pattern `.*`"),
        (part("normalizer", sequence(vec![sequence(vec![])])), "normalizer: type `Sequence`"),
        (part("pre_tokenizer", json!({"type": "Sequence", "pretokenizers": [level, level]})), "ByteLevel 2 times"),
        (
            part("post_processor", json!({"type": "TemplateProcessing", "single": vec![text; 9]})),
            "9 pieces in its `single`",
        ),
        (part("decoder", json!({"type": "WordPiece"})), "decoder: type `WordPiece`"),
        (part("model", json!({"type": "WordPiece", "vocab": {}})), "model: type `WordPiece`"),
        (model("end_of_word_suffix", Value::Null), "`end_of_word_suffix` is null"),
        (model("dropout", json!(0.5)), "`dropout` leaves merges out at random"),
    ] {
        let error = ClipTokenizer::from_json(&tokenizer, None).unwrap_err().to_string();
        assert!(error.starts_with("tokenizer.json: not a tokenizer: ") && error.contains(message), "{error}");
    }
    let same_length = part("normalizer", sequence(vec![replace("ab", "ba"); 8]));
    assert!(ClipTokenizer::from_json(&same_length, None).is_ok());
}

#[test]
fn ids_of_a_tokenizer_are_distinct_and_below_its_size() {
    let id = |token: &'static str, id: Value| changed(move |whole| whole["model"]["vocab"][token] = id);
    for (tokenizer, message) in [
        (id("a", json!(1)), "another token has the same"),
        (id("a", json!(565)), "token `a` has the id 565: expected a number below 565"),
        (id("a", json!(1u64 << 31)), "token `a` has the id 2147483648: expected a number below 565"),
        (id("a", json!(-1)), "token `a` has the id -1"),
        (changed(|whole| whole["added_tokens"][0]["id"] = json!(5)), "has the id 5, but 563 in the vocabulary"),
    ] {
        let error = ClipTokenizer::from_json(&tokenizer, None).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let more = changed(|whole| {
        let token = json!({"id": 565, "content": "<|pad|>", "single_word": false, "lstrip": false, "rstrip": false,
                           "normalized": false, "special": true});
        whole["added_tokens"].as_array_mut().unwrap().push(token);
    });
    assert_eq!(ClipTokenizer::from_json(&more, None).unwrap().vocab_size(), 566);
}

#[test]
fn what_a_tokenizer_says_twice_is_checked_where_it_is_read() {
    let bad = r#"{"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "#;
    let twice = changed(|_| {}).replacen('{', bad, 1);
    assert!(ClipTokenizer::from_json(&twice, None).is_ok());
}

proptest! {
    #[test]
    fn any_text_gives_ids_of_the_vocabulary(text in any::<String>()) {
        let tokenizer = tokenizer();
        for tokenizer in [tokenizer.clone().with_cleaning(Cleaning::OpenAi), tokenizer] {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert!((2..=77).contains(&ids.len()));
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        }
    }

    #[test]
    fn cleaned_text_has_no_white_space_to_collapse(text in "(&[a-zA-Z#0-9]{0,6};?|Ã.|â€.|\\PC|\\s|\u{1b}\\[[0-9;]*m?){0,30}") {
        let cleaned = clean(&text);
        prop_assert!(!cleaned.contains("  ") && cleaned.trim() == cleaned, "{cleaned:?}");
    }
}
