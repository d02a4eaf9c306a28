//! CLIP's tokenizer: byte-level byte-pair encoding with `</w>` at word ends, through the crate `tokenizers`.
//!
//! What a checkpoint brings decides how it behaves. A `tokenizer.json`, or `vocab.json` with `merges.txt`, behaves as
//! `transformers`' `CLIPTokenizer` does: NFC, runs of white space to one space, lower case, and no other clean-up. OpenAI's
//! `bpe_simple_vocab_16e6.txt.gz` brings OpenAI's clean-up (see [`clean`]) as well; [`ClipTokenizer::with_cleaning`] overrides.

mod build;
mod check;
mod clean;
mod encoding;
mod html;
mod train;

use std::{fmt, path::Path, str::FromStr, sync::Arc};

use regex::Regex;
use serde_json::Value;
use tokenizers::Tokenizer;

use build::Style;
pub use clean::{Cleaning, clean};
pub use train::train_tokenizer;

use crate::{DataError, contain::contain, decode::MOST_BYTES, error::short, file};

/// CLIP's context length, where a checkpoint names none.
pub const CLIP_CONTEXT: usize = 77;

/// The merges of CLIP's vocabulary, as OpenAI publishes them.
static OPENAI: &[u8] = include_bytes!("../../embedded/bpe_simple_vocab_16e6.txt.gz");

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Turns text into token ids for a CLIP text tower. Cheap to clone.
#[derive(Clone)]
pub struct ClipTokenizer {
    inner: Arc<Tokenizer>,
    /// What finds words, in an original tokenizer; its first two groups are the special tokens.
    words: Option<Arc<Regex>>,
    cleaning: Cleaning,
    context: usize,
    start: u32,
    end: u32,
    pad: u32,
}

impl ClipTokenizer {
    /// Reads the tokenizer of a checkpoint folder: `tokenizer.json`, else `vocab.json` and `merges.txt`, else
    /// `bpe_simple_vocab_16e6.txt.gz`; with the text of its `tokenizer_config.json`, where there is one, which says context
    /// length and special tokens.
    pub fn from_folder(folder: &Path, config: Option<&str>) -> Result<Self, DataError> {
        let has = |name: &str| folder.join(name).is_file();
        let read = |name: &str| {
            let path = folder.join(name);
            file::read(&path, MOST_BYTES).map_err(DataError::io("read", &path))
        };
        let read_text = |name: &str| file::text(read(name)?).map_err(DataError::io("read", &folder.join(name)));
        let name = |file: &str| folder.join(file).display().to_string();
        if has("tokenizer.json") {
            Self::build(&read_text("tokenizer.json")?, config, &name("tokenizer.json"))
        } else if has("vocab.json") && has("merges.txt") {
            let (vocab, merges) = (read_text("vocab.json")?, read_text("merges.txt")?);
            let json =
                build::from_vocab(&vocab, &merges).map_err(|message| DataError::format(name("vocab.json"), message))?;
            Self::build(&json, config, &name("vocab.json"))
        } else if has("bpe_simple_vocab_16e6.txt.gz") {
            Self::from_openai(&read("bpe_simple_vocab_16e6.txt.gz")?)
        } else {
            Err(DataError::format(
                folder.display().to_string(),
                "no tokenizer: expected tokenizer.json, or vocab.json and merges.txt",
            ))
        }
    }

    /// A `tokenizer.json`, with the text of `tokenizer_config.json` where there is one.
    pub fn from_json(tokenizer: &str, config: Option<&str>) -> Result<Self, DataError> {
        Self::build(tokenizer, config, "tokenizer.json")
    }

    /// CLIP's own tokenizer, `SimpleTokenizer` of OpenAI's code, with its clean-up: 49,408 tokens, which are inside the program.
    pub fn openai() -> Result<Self, DataError> {
        Self::from_openai(OPENAI)
    }

    /// open_clip's `SimpleTokenizer`: the same, but special tokens in a text are spelled `<start_of_text>` and `<end_of_text>`.
    pub fn open_clip() -> Result<Self, DataError> {
        Self::from_merges(OPENAI, Style::OpenClip)
    }

    /// OpenAI's merges file (`bpe_simple_vocab_16e6.txt.gz`, or unpacked), with OpenAI's clean-up.
    pub fn from_openai(file: &[u8]) -> Result<Self, DataError> {
        Self::from_merges(file, Style::OpenAi)
    }

    fn from_merges(file: &[u8], style: Style) -> Result<Self, DataError> {
        let name = "bpe_simple_vocab_16e6.txt.gz";
        let json = build::from_openai(file, style).map_err(|message| DataError::format(name, message))?;
        let [start, end] = style.special();
        let config = serde_json::json!({"bos_token": start, "eos_token": end, "clean_up": "openai"});
        Ok(Self { pad: 0, ..Self::build(&json, Some(&config.to_string()), name)? })
    }

    fn build(json: &str, config: Option<&str>, file: &str) -> Result<Self, DataError> {
        let wrong = |message: String| DataError::format(file, message);
        let mut inner = parse(json).map_err(|message| wrong(format!("not a tokenizer: {message}")))?;
        // Both are done here: padding by `encode_padded`, truncation so that the end token stays last.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
        let config: Value = match config {
            Some(text) => serde_json::from_str(text).map_err(|error| {
                DataError::format(file.replace("tokenizer.json", "tokenizer_config.json"), error.to_string())
            })?,
            None => Value::Null,
        };
        let special = |key: &str| -> Option<String> {
            let token = config.get(key)?;
            token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
        };
        let id = |token: &str| {
            let id = inner.token_to_id(token);
            id.ok_or_else(|| wrong(format!("no token `{token}`: a CLIP tokenizer has `{START}` and `{END}`")))
        };
        let names = ["bos_token", "eos_token"].map(special);
        let names = [names[0].as_deref().unwrap_or(START), names[1].as_deref().unwrap_or(END)];
        let (start, end) = (id(names[0])?, id(names[1])?);
        let words = match inner.get_added_tokens_decoder().is_empty() {
            true => {
                let [start, end] = names.map(regex::escape);
                // Of clean text, which is in lower case.
                let pattern = format!("({start})|({end})|{}", build::original_pattern());
                Some(Arc::new(Regex::new(&pattern).map_err(|error| wrong(error.to_string()))?))
            }
            false => None,
        };
        let pad = special("pad_token").and_then(|token| inner.token_to_id(&token)).unwrap_or(end);
        // Files that never set it hold 1e30.
        let context =
            config.get("model_max_length").and_then(Value::as_f64).filter(|length| (2.0..1e6).contains(length));
        let context = context.map_or(CLIP_CONTEXT, |length| length as usize);
        let cleaning = match config.get("clean_up").and_then(Value::as_str) {
            Some("openai") => Cleaning::OpenAi,
            _ => Cleaning::None,
        };
        Ok(Self { inner: Arc::new(inner), words, cleaning, context, start, end, pad })
    }

    /// The same tokenizer for another context length (at least 2: start and end).
    #[must_use]
    pub fn with_context(mut self, context: usize) -> Self {
        self.context = context.max(2);
        self
    }

    /// The same tokenizer with another clean-up before it.
    #[must_use]
    pub fn with_cleaning(mut self, cleaning: Cleaning) -> Self {
        self.cleaning = cleaning;
        self
    }

    /// The token ids of `text`: start, at most `context − 2` tokens, end. Not padded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let cleaned;
        let text = match self.cleaning {
            Cleaning::None => text,
            Cleaning::OpenAi => {
                cleaned = clean(text);
                &cleaned
            }
        };
        let mut ids = vec![self.start];
        let mut rest = 0;
        if let Some(words) = &self.words {
            for word in words.captures_iter(text) {
                let special = [(1, self.start), (2, self.end)].into_iter().find_map(|(i, id)| Some((word.get(i)?, id)));
                if let Some((token, id)) = special {
                    self.extend(&mut ids, &text[rest..token.start()])?;
                    ids.push(id);
                    rest = token.end();
                }
            }
        }
        self.extend(&mut ids, &text[rest..])?;
        ids.truncate(self.context - 1);
        ids.push(self.end);
        Ok(ids)
    }

    fn extend(&self, ids: &mut Vec<u32>, text: &str) -> Result<(), DataError> {
        // A pattern of a folder's own may be one that the library gives up on.
        let encoding = contain(|| self.inner.encode_fast(text, false).map_err(|error| error.to_string()));
        let wrong = |error: String| DataError::Invalid(format!("cannot tokenize `{}`: {}", short(text), short(&error)));
        let encoding = encoding.map_err(wrong)?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// The token ids of `text`, padded to exactly `context` ids with [`ClipTokenizer::pad`].
    pub fn encode_padded(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let mut ids = self.encode(text)?;
        ids.resize(self.context, self.pad);
        Ok(ids)
    }

    /// Most ids of a text, start and end included.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The start token.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// The end token.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// What [`ClipTokenizer::encode_padded`] pads with: the end token as `transformers` does, 0 as OpenAI's code does.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The clean-up that runs before the tokenizer.
    pub fn cleaning(&self) -> Cleaning {
        self.cleaning
    }

    /// The text of a token, as the vocabulary has it (`cat</w>`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The text of a `tokenizer.json` that, with [`ClipTokenizer::config_json`], gives this tokenizer back.
    pub fn to_json(&self) -> Result<String, DataError> {
        self.inner.to_string(false).map_err(|error| DataError::Invalid(format!("cannot write the tokenizer: {error}")))
    }

    /// The text of the `tokenizer_config.json` beside it: context length, special tokens, and the clean-up as `clean_up`.
    pub fn config_json(&self) -> String {
        let token = |id| self.inner.id_to_token(id);
        let mut config = serde_json::json!({
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": self.context,
            "bos_token": token(self.start),
            "eos_token": token(self.end),
            "pad_token": token(self.pad),
            "unk_token": token(self.end),
        });
        if self.cleaning == Cleaning::OpenAi {
            config["clean_up"] = "openai".into();
        }
        config.to_string()
    }
}

/// The library's tokenizer of a text that was checked. What the library reads is what was checked: in a text that says
/// a thing twice it might read the other one.
fn parse(json: &str) -> Result<Tokenizer, String> {
    let value: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    check::check(&value)?;
    let json = value.to_string();
    drop(value);
    contain(|| Tokenizer::from_str(&json).map_err(|error| short(&error.to_string())))
}

impl fmt::Debug for ClipTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClipTokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("context", &self.context)
            .field("cleaning", &self.cleaning)
            .finish_non_exhaustive()
    }
}
