//! The configuration of a CLIP model, as `config.json` of a Hugging Face `CLIPModel` has it.

use serde_json::{Map, Value, json};

use crate::ModelError;

/// The activation between the two layers of a block's MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · Φ(x)` with the exact normal distribution function: most open_clip weights.
    Gelu,
    /// `x · σ(1.702 x)`: OpenAI's weights.
    QuickGelu,
}

/// A stack of transformer blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TowerConfig {
    /// Components of a token, `hidden_size`.
    pub width: usize,
    /// Blocks, `num_hidden_layers`.
    pub layers: usize,
    /// Attention heads; they divide the width.
    pub heads: usize,
    /// Components between the two layers of the MLP, `intermediate_size`.
    pub hidden: usize,
    /// `hidden_act`.
    pub activation: Activation,
    /// `layer_norm_eps`.
    pub eps: f32,
}

/// Where the text tower reads a sentence's features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// At the largest id: configurations that say `eos_token_id: 2`, as all did before transformers 4.31.
    LargestId,
    /// At the first token with this id. A text without one is read at its first token, as transformers does.
    Token(u32),
}

/// The text tower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextConfig {
    /// Its blocks.
    pub tower: TowerConfig,
    /// Rows of the token embedding, `vocab_size`.
    pub vocab: usize,
    /// The longest text in tokens, `max_position_embeddings`.
    pub positions: usize,
    /// Where features are read, from `eos_token_id`.
    pub pooling: Pooling,
}

/// The image tower, a vision transformer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VisionConfig {
    /// Its blocks.
    pub tower: TowerConfig,
    /// Height and width of the input in pixels.
    pub image_size: usize,
    /// Height and width of a patch in pixels; what does not fill one is left out.
    pub patch_size: usize,
    /// Channels of the input, `num_channels`.
    pub channels: usize,
}

impl VisionConfig {
    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Tokens of an image: its patches and the class token.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid() + 1
    }
}

/// A CLIP model's architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipConfig {
    /// The text tower.
    pub text: TextConfig,
    /// The image tower.
    pub vision: VisionConfig,
    /// Components of an embedding, `projection_dim`.
    pub dim: usize,
    /// Logarithm of the logit scale at the start of training, `logit_scale_init_value`.
    pub logit_scale_init: f32,
}

impl ClipConfig {
    /// Reads the text of a `config.json`. `file` names it in errors.
    ///
    /// Values left out are those of transformers' `CLIPConfig`. Numbers are bounded, so that nothing computed from them
    /// overflows; that the weights have these shapes is checked when they are read.
    pub fn parse(file: &str, text: &str) -> Result<Self, ModelError> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| ModelError::file(file, format!("not JSON: {error}")))?;
        let root = Fields { file, place: String::new(), map: object(file, "the configuration", &value)?.clone() };
        if let Some(found) = root.map.get("model_type").filter(|found| *found != "clip") {
            return Err(root.wrong("model_type", "`clip`", found));
        }
        let (text, vision) = (root.section("text_config")?, root.section("vision_config")?);
        let config = Self {
            text: TextConfig {
                tower: text.tower(512, 12, 8, 2048)?,
                vocab: text.number("vocab_size", 49_408, 1..=4_000_000)?,
                positions: text.number("max_position_embeddings", 77, 1..=65_536)?,
                pooling: match text.number("eos_token_id", 49_407, 0..=u32::MAX as usize)? {
                    2 => Pooling::LargestId,
                    id => Pooling::Token(u32::try_from(id).unwrap_or(u32::MAX)),
                },
            },
            vision: VisionConfig {
                tower: vision.tower(768, 12, 12, 3072)?,
                image_size: vision.number("image_size", 224, 1..=8_192)?,
                patch_size: vision.number("patch_size", 32, 1..=8_192)?,
                channels: vision.number("num_channels", 3, 1..=64)?,
            },
            dim: root.number("projection_dim", 512, 1..=65_536)?,
            logit_scale_init: root.real("logit_scale_init_value", 2.6592)?,
        };
        if config.vision.patch_size > config.vision.image_size {
            let problem = format!(
                "vision_config.patch_size: {} is larger than image_size, {}",
                config.vision.patch_size, config.vision.image_size
            );
            return Err(ModelError::file(file, problem));
        }
        Ok(config)
    }

    /// Floating-point operations to embed an image, a multiplication and an addition being two: those of matrix products.
    pub fn image_flops(&self) -> u64 {
        let VisionConfig { tower, patch_size, channels, .. } = self.vision;
        let (tokens, width) = (self.vision.tokens() as u64, tower.width as u64);
        let patches = (tokens - 1) * (channels * patch_size * patch_size) as u64 * width;
        let maps = tokens * (4 * width * width + 2 * width * tower.hidden as u64);
        let attention = 2 * tokens * tokens * width;
        2 * (patches + tower.layers as u64 * (maps + attention) + width * self.dim as u64)
    }

    /// A `config.json` that [`ClipConfig::parse`] reads back and that transformers loads. `tokens` are the ids of the
    /// tokenizer's start and end tokens, for readers that ask.
    pub fn to_json(&self, tokens: Option<(u32, u32)>) -> Value {
        let mut text = tower_json(&self.text.tower, "clip_text_model");
        text.insert("vocab_size".into(), self.text.vocab.into());
        text.insert("max_position_embeddings".into(), self.text.positions.into());
        text.insert("projection_dim".into(), self.dim.into());
        if let Some((start, end)) = tokens {
            text.insert("bos_token_id".into(), start.into());
            text.insert("pad_token_id".into(), end.into());
        }
        let eos = match self.text.pooling {
            Pooling::LargestId => 2,
            Pooling::Token(id) => id,
        };
        text.insert("eos_token_id".into(), eos.into());
        let mut vision = tower_json(&self.vision.tower, "clip_vision_model");
        vision.insert("image_size".into(), self.vision.image_size.into());
        vision.insert("patch_size".into(), self.vision.patch_size.into());
        vision.insert("num_channels".into(), self.vision.channels.into());
        vision.insert("projection_dim".into(), self.dim.into());
        json!({
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": self.dim,
            "logit_scale_init_value": exact(self.logit_scale_init),
            "text_config": text,
            "vision_config": vision,
        })
    }
}

/// The shortest decimal number that is this f32.
fn exact(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn tower_json(tower: &TowerConfig, model_type: &str) -> Map<String, Value> {
    let activation = match tower.activation {
        Activation::Gelu => "gelu",
        Activation::QuickGelu => "quick_gelu",
    };
    let mut map = Map::new();
    map.insert("model_type".into(), model_type.into());
    map.insert("hidden_size".into(), tower.width.into());
    map.insert("num_hidden_layers".into(), tower.layers.into());
    map.insert("num_attention_heads".into(), tower.heads.into());
    map.insert("intermediate_size".into(), tower.hidden.into());
    map.insert("hidden_act".into(), activation.into());
    map.insert("layer_norm_eps".into(), exact(tower.eps).into());
    map
}

fn object<'a>(file: &str, what: &str, value: &'a Value) -> Result<&'a Map<String, Value>, ModelError> {
    value
        .as_object()
        .ok_or_else(|| ModelError::file(file, format!("{what}: expected an object, found {}", found(value))))
}

/// A value in an error message: itself if short, else its type.
fn found(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return format!("`{text}`");
    }
    let kind = match value {
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
        _ => "a long value",
    };
    kind.to_owned()
}

/// One object of the configuration, and where it stands.
struct Fields<'a> {
    /// The file, for messages.
    file: &'a str,
    /// `text_config.`, or nothing.
    place: String,
    /// The values. `null` counts as left out.
    map: Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// An object inside this one. Old checkpoints have `NAME_dict` beside `NAME`; where it is not null it wins whole,
    /// its missing values being the defaults, as in transformers.
    fn section(&self, name: &str) -> Result<Fields<'a>, ModelError> {
        let dict = format!("{name}_dict");
        let chosen = [dict.as_str(), name].into_iter().find_map(|key| Some((key, self.get(key)?)));
        let map = match chosen {
            Some((key, value)) => object(self.file, key, value)?.clone(),
            None => Map::new(),
        };
        Ok(Fields { file: self.file, place: format!("{name}."), map })
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, expected: &str, value: &Value) -> ModelError {
        ModelError::file(self.file, format!("{}{name}: expected {expected}, found {}", self.place, found(value)))
    }

    fn number(&self, name: &str, default: usize, range: std::ops::RangeInclusive<usize>) -> Result<usize, ModelError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.wrong(name, &format!("a whole number from {} to {}", range.start(), range.end()), value)
        })
    }

    fn real(&self, name: &str, default: f32) -> Result<f32, ModelError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = value.as_f64().map(|number| number as f32);
        number.filter(|number| number.is_finite()).ok_or_else(|| self.wrong(name, "a number", value))
    }

    fn tower(&self, width: usize, layers: usize, heads: usize, hidden: usize) -> Result<TowerConfig, ModelError> {
        let tower = TowerConfig {
            width: self.number("hidden_size", width, 1..=65_536)?,
            layers: self.number("num_hidden_layers", layers, 1..=1_024)?,
            heads: self.number("num_attention_heads", heads, 1..=1_024)?,
            hidden: self.number("intermediate_size", hidden, 1..=262_144)?,
            activation: match self.get("hidden_act") {
                None => Activation::QuickGelu,
                Some(value) if value == "quick_gelu" => Activation::QuickGelu,
                Some(value) if value == "gelu" => Activation::Gelu,
                Some(value) => return Err(self.wrong("hidden_act", "`gelu` or `quick_gelu`", value)),
            },
            eps: self.real("layer_norm_eps", 1e-5)?,
        };
        if !tower.width.is_multiple_of(tower.heads) {
            let problem = format!(
                "{}hidden_size: {} does not divide into num_attention_heads, {}",
                self.place, tower.width, tower.heads
            );
            return Err(ModelError::file(self.file, problem));
        }
        if tower.eps < 0.0 {
            let problem = format!("{}layer_norm_eps: expected a number from 0, found {}", self.place, tower.eps);
            return Err(ModelError::file(self.file, problem));
        }
        Ok(tower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        ClipConfig::parse("m/config.json", text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_configuration_is_vit_b_32() {
        let config = ClipConfig::parse("config.json", "{}").unwrap();
        assert_eq!((config.vision.tower.width, config.vision.tokens(), config.dim), (768, 50, 512));
        assert_eq!((config.text.tower.width, config.text.positions), (512, 77));
        assert_eq!(config.text.pooling, Pooling::Token(49_407));
        assert_eq!(config.vision.tower.activation, Activation::QuickGelu);
        // 4.4 billion multiplications and additions, as is commonly said.
        assert_eq!(config.image_flops() / 1_000_000, 8_817);
    }

    #[test]
    fn the_written_form_is_read_back() {
        let text = r#"{"projection_dim": 24, "logit_scale_init_value": 4.6,
            "text_config": {"hidden_size": 32, "num_attention_heads": 2, "hidden_act": "gelu", "eos_token_id": 2,
                "layer_norm_eps": 1e-6, "vocab_size": 100, "num_hidden_layers": 3},
            "vision_config": {"image_size": 30, "patch_size": 8, "num_channels": 1}}"#;
        let config = ClipConfig::parse("config.json", text).unwrap();
        assert_eq!(config.text.pooling, Pooling::LargestId);
        assert_eq!(config.vision.tokens(), 10);
        let again = ClipConfig::parse("config.json", &config.to_json(None).to_string()).unwrap();
        assert_eq!(config, again);
    }

    #[test]
    fn an_old_dict_section_wins() {
        let text = r#"{"text_config": {"hidden_size": 64}, "text_config_dict": {"hidden_size": 128},
            "vision_config_dict": null, "vision_config": {"hidden_size": 96}}"#;
        let config = ClipConfig::parse("config.json", text).unwrap();
        assert_eq!((config.text.tower.width, config.vision.tower.width), (128, 96));
    }

    #[test]
    fn errors_name_the_field_and_what_was_expected() {
        assert_eq!(
            message(r#"{"text_config": {"hidden_act": "swish"}}"#),
            "m/config.json: text_config.hidden_act: expected `gelu` or `quick_gelu`, found `\"swish\"`"
        );
        assert_eq!(
            message(r#"{"model_type": "siglip"}"#),
            "m/config.json: model_type: expected `clip`, found `\"siglip\"`"
        );
        assert!(message(r#"{"vision_config": {"hidden_size": 1e30}}"#).contains("from 1 to 65536, found `1e+30`"));
        assert!(message(r#"{"vision_config": {"hidden_size": -4}}"#).contains("found `-4`"));
        assert!(message(r#"{"vision_config": []}"#).contains("vision_config: expected an object, found `[]`"));
        assert!(message(r#"{"vision_config": {"hidden_size": 100}}"#).contains("100 does not divide into"));
        assert!(message(r#"{"vision_config": {"patch_size": 600}}"#).contains("larger than image_size, 224"));
        assert!(message("[1").contains("not JSON"));
    }
}
