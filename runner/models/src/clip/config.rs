//! The configuration of a CLIP model, as `config.json` of a Hugging Face `CLIPModel` has it.

use serde_json::{Map, Value, json};

use super::resnet::ModifiedResNetConfig;
use crate::{ModelError, fields::Fields};

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

/// The image tower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VisionConfig {
    /// A vision transformer.
    Vit(VitConfig),
    /// A modified ResNet.
    ResNet(ModifiedResNetConfig),
}

impl VisionConfig {
    /// Height and width of the input in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.image_size,
            Self::ResNet(resnet) => resnet.image_size,
        }
    }

    /// Channels of the input.
    pub fn channels(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.channels,
            Self::ResNet(_) => 3,
        }
    }
}

/// A vision transformer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VitConfig {
    /// Its blocks.
    pub tower: TowerConfig,
    /// Height and width of the input in pixels.
    pub image_size: usize,
    /// Height and width of a patch in pixels; what does not fill one is left out.
    pub patch_size: usize,
    /// Channels of the input, `num_channels`.
    pub channels: usize,
}

impl VitConfig {
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
        let root = Fields::parse(file, text)?;
        if let Some(found) = root.get("model_type").filter(|found| *found != "clip") {
            return Err(root.wrong("model_type", "`clip`", found));
        }
        let (text, vision) = (root.section("text_config")?, root.section("vision_config")?);
        let config = Self {
            text: TextConfig {
                tower: read_tower(&text, 512, 12, 8, 2048)?,
                vocab: text.number("vocab_size", 49_408, 1..=4_000_000)?,
                positions: text.number("max_position_embeddings", 77, 1..=65_536)?,
                pooling: match text.number("eos_token_id", 49_407, 0..=u32::MAX as usize)? {
                    2 => Pooling::LargestId,
                    id => Pooling::Token(u32::try_from(id).unwrap_or(u32::MAX)),
                },
            },
            vision: read_vision(&vision)?,
            dim: root.number("projection_dim", 512, 1..=65_536)?,
            logit_scale_init: root.real("logit_scale_init_value", 2.6592)?,
        };
        Ok(config)
    }

    /// Floating-point operations to embed an image, a multiplication and an addition being two: those of matrix products.
    pub fn image_flops(&self) -> u64 {
        let vit = match &self.vision {
            VisionConfig::Vit(vit) => vit,
            VisionConfig::ResNet(resnet) => return resnet.flops(self.dim),
        };
        let (tokens, width) = (vit.tokens() as u64, vit.tower.width as u64);
        let patches = (tokens - 1) * (vit.channels * vit.patch_size * vit.patch_size) as u64 * width;
        let maps = tokens * (4 * width * width + 2 * width * vit.tower.hidden as u64);
        let attention = 2 * tokens * tokens * width;
        2 * (patches + vit.tower.layers as u64 * (maps + attention) + width * self.dim as u64)
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
        let mut vision = vision_json(&self.vision);
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

fn vision_json(vision: &VisionConfig) -> Map<String, Value> {
    let mut map = match vision {
        VisionConfig::Vit(vit) => {
            let mut map = tower_json(&vit.tower, "clip_vision_model");
            map.insert("patch_size".into(), vit.patch_size.into());
            map
        }
        VisionConfig::ResNet(resnet) => {
            let mut map = Map::new();
            map.insert("model_type".into(), "clip_modified_resnet".into());
            map.insert("layers".into(), json!(resnet.layers));
            map.insert("width".into(), resnet.width.into());
            map.insert("num_attention_heads".into(), resnet.heads.into());
            map
        }
    };
    map.insert("image_size".into(), vision.image_size().into());
    map.insert("num_channels".into(), vision.channels().into());
    map
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

/// `vision_config`. Where it has a list of `layers`, it is a modified ResNet, as in open_clip's configurations.
fn read_vision(fields: &Fields<'_>) -> Result<VisionConfig, ModelError> {
    let image_size = fields.number("image_size", 224, 1..=8_192)?;
    if fields.get("layers").is_some() {
        let width = fields.number("width", 64, 2..=1_024)?;
        let config = ModifiedResNetConfig {
            layers: fields.numbers("layers", [3, 4, 6, 3], 1..=1_024)?,
            width,
            heads: fields.number("num_attention_heads", width / 2, 1..=1_024)?,
            image_size,
        };
        if !width.is_multiple_of(2) || !config.features().is_multiple_of(config.heads) {
            let problem =
                format!("width: {width} is not even, or 32 times it does not divide into {} heads", config.heads);
            return Err(fields.problem(&problem));
        }
        return Ok(VisionConfig::ResNet(config));
    }
    let config = VitConfig {
        tower: read_tower(fields, 768, 12, 12, 3072)?,
        image_size,
        patch_size: fields.number("patch_size", 32, 1..=8_192)?,
        channels: fields.number("num_channels", 3, 1..=64)?,
    };
    if config.patch_size > image_size {
        let problem = format!("patch_size: {} is larger than image_size, {image_size}", config.patch_size);
        return Err(fields.problem(&problem));
    }
    Ok(VisionConfig::Vit(config))
}

fn read_tower(
    fields: &Fields<'_>,
    width: usize,
    layers: usize,
    heads: usize,
    hidden: usize,
) -> Result<TowerConfig, ModelError> {
    let tower = TowerConfig {
        width: fields.number("hidden_size", width, 1..=65_536)?,
        layers: fields.number("num_hidden_layers", layers, 1..=1_024)?,
        heads: fields.number("num_attention_heads", heads, 1..=1_024)?,
        hidden: fields.number("intermediate_size", hidden, 1..=262_144)?,
        activation: match fields.word("hidden_act", "quick_gelu", &["gelu", "quick_gelu"])? {
            "gelu" => Activation::Gelu,
            _ => Activation::QuickGelu,
        },
        eps: fields.real("layer_norm_eps", 1e-5)?,
    };
    if !tower.width.is_multiple_of(tower.heads) {
        let (width, heads) = (tower.width, tower.heads);
        return Err(fields.problem(&format!("hidden_size: {width} does not divide into num_attention_heads, {heads}")));
    }
    if tower.eps < 0.0 {
        return Err(fields.problem(&format!("layer_norm_eps: expected a number from 0, found {}", tower.eps)));
    }
    Ok(tower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        ClipConfig::parse("m/config.json", text).unwrap_err().to_string()
    }

    fn vit(config: &ClipConfig) -> VitConfig {
        let VisionConfig::Vit(vit) = config.vision else { panic!("not a vision transformer") };
        vit
    }

    #[test]
    fn a_list_of_layers_is_a_modified_resnet() {
        let text = r#"{"projection_dim": 1024, "vision_config": {"layers": [3, 4, 6, 3], "width": 64}}"#;
        let config = ClipConfig::parse("config.json", text).unwrap();
        let resnet = ModifiedResNetConfig { layers: [3, 4, 6, 3], width: 64, heads: 32, image_size: 224 };
        assert_eq!(config.vision, VisionConfig::ResNet(resnet));
        // 6 billion multiplications and additions, of which a tenth is the attention at the end.
        assert_eq!(config.image_flops() / 1_000_000, 12_017);
        assert_eq!(config, ClipConfig::parse("config.json", &config.to_json(None).to_string()).unwrap());
        assert!(message(r#"{"vision_config": {"layers": [3, 4, 6]}}"#).contains("layers: expected 4 whole numbers"));
        assert!(
            message(r#"{"vision_config": {"layers": [1, 1, 1, 1], "num_attention_heads": 7}}"#).contains("7 heads")
        );
    }

    #[test]
    fn an_empty_configuration_is_vit_b_32() {
        let config = ClipConfig::parse("config.json", "{}").unwrap();
        let vision = vit(&config);
        assert_eq!((vision.tower.width, vision.tokens(), config.dim), (768, 50, 512));
        assert_eq!((config.text.tower.width, config.text.positions), (512, 77));
        assert_eq!(config.text.pooling, Pooling::Token(49_407));
        assert_eq!(vision.tower.activation, Activation::QuickGelu);
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
        assert_eq!(vit(&config).tokens(), 10);
        let again = ClipConfig::parse("config.json", &config.to_json(None).to_string()).unwrap();
        assert_eq!(config, again);
    }

    #[test]
    fn an_old_dict_section_wins() {
        let text = r#"{"text_config": {"hidden_size": 64}, "text_config_dict": {"hidden_size": 128},
            "vision_config_dict": null, "vision_config": {"hidden_size": 96}}"#;
        let config = ClipConfig::parse("config.json", text).unwrap();
        assert_eq!((config.text.tower.width, vit(&config).tower.width), (128, 96));
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
