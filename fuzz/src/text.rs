//! Tokenizers, and texts.

use std::sync::LazyLock;

use runner_data::{ClipTokenizer, clean};

static OPENAI: LazyLock<ClipTokenizer> = LazyLock::new(|| ClipTokenizer::openai().expect("it is inside the program"));

/// A `tokenizer.json`, and any text through the clean-up and OpenAI's tokenizer.
pub fn tokenizer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if text.starts_with('{') {
        if let Ok(tokenizer) = ClipTokenizer::from_json(&text, None) {
            let _ = tokenizer.encode("a photo of a cat");
        }
        return;
    }
    let cleaned = clean(&text);
    assert_eq!(cleaned.trim(), cleaned);
    let ids = OPENAI.encode(&text).expect("any text has tokens");
    assert!((2..=77).contains(&ids.len()));
    assert!(ids.iter().all(|id| (*id as usize) < OPENAI.vocab_size()));
}
