//! OpenAI's clean-up of text before CLIP's tokenizer: what `ftfy.fix_text`, `html.unescape` twice, white space and
//! lower case do there.

use super::html::unescape;

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
    let unescaped = unescape(&unescape(text));
    let words: Vec<&str> = unescaped.split_whitespace().collect();
    words.join(" ").to_lowercase()
}
