//! open_clip's configurations: `open_clip_config.json`, and the names that open_clip knows without a file.
//!
//! What public CLIP checkpoints with a vision transformer or a modified ResNet use is supported: those of LAION, DataComp,
//! CommonPool, DFN and MetaCLIP. Other settings are refused by name, not ignored.

mod known;

use std::ops::RangeInclusive;

use runner_data::PreprocessCfg;
use serde_json::{Value, json};

pub(crate) use known::{Known, like};

use crate::{
    ModelError,
    clip::{Activation, ClipConfig, ModifiedResNetConfig, Pooling, TextConfig, TowerConfig, VisionConfig, VitConfig},
    fields::Fields,
};

/// Layer norms are made without saying so.
pub(crate) const EPS: f32 = 1e-5;
/// The logarithm of 1/0.07, where training begins.
pub(crate) const LOG_SCALE: f32 = 2.6592;

/// A setting that changes what a model computes, its value in supported models, and what it means.
type Fixed = (&'static str, fn() -> Value, &'static str);

const MODEL: &[Fixed] =
    &[("multimodal_cfg", || Value::Null, "a CoCa model"), ("init_logit_bias", || Value::Null, "a SigLIP model")];

const VISION: &[Fixed] = &[
    ("timm_model_name", || Value::Null, "an image tower of timm (SigLIP, EVA, ConvNeXt, MobileCLIP, ViTamin)"),
    ("eva_model_name", || Value::Null, "an EVA image tower"),
    ("attentional_pool", || json!(false), "attentional pooling"),
    ("no_ln_pre", || json!(false), "no layer norm before the blocks (CLIPA)"),
    ("pos_embed_type", || json!("learnable"), "positions that are not learned"),
    ("final_ln_after_pool", || json!(false), "layer norm after pooling (CLIPA)"),
    ("pool_type", || json!("tok"), "pooling other than the class token (CLIPA)"),
    ("global_average_pool", || json!(false), "pooling other than the class token"),
    ("input_patchnorm", || json!(false), "normalised patches"),
];

const TEXT: &[Fixed] = &[
    ("hf_model_name", || Value::Null, "a text tower of Hugging Face"),
    ("hf_tokenizer_name", || Value::Null, "a tokenizer other than CLIP's"),
    ("tokenizer_kwargs", || Value::Null, "settings for the tokenizer"),
    ("tokenizer_mode", || Value::Null, "settings for the tokenizer"),
    ("embed_cls", || json!(false), "a class token in texts (CoCa)"),
    ("no_causal_mask", || json!(false), "texts without a causal mask (SigLIP, CLIPA)"),
    ("final_ln_after_pool", || json!(false), "layer norm after pooling"),
    ("pool_type", || json!("argmax"), "pooling other than the largest id"),
    ("proj_bias", || json!(false), "a projection with bias (SigLIP)"),
    ("proj_type", || json!("linear"), "another projection"),
];

const TOWER: &[Fixed] = &[
    ("act_kwargs", || Value::Null, "settings for the activation"),
    ("norm_kwargs", || Value::Null, "settings for layer norm"),
    ("block_type", || Value::Null, "other blocks"),
    ("qk_norm", || json!(false), "normalised queries and keys"),
    ("scaled_cosine_attn", || json!(false), "cosine attention"),
    ("scale_heads", || json!(false), "scaled heads"),
    ("scale_attn_inner", || json!(false), "a layer norm in attention"),
    ("scale_attn", || json!(false), "a layer norm after attention"),
    ("scale_fc", || json!(false), "a layer norm in the MLP"),
];

/// Settings that do not change what a trained model computes, or that are read elsewhere.
const FREE: &[&str] = &[
    "embed_dim",
    "vision_cfg",
    "text_cfg",
    "quick_gelu",
    "custom_text",
    "init_logit_scale",
    "nonscalar_logit_scale",
    "cast_dtype",
    "output_dict",
    "layers",
    "width",
    "heads",
    "head_width",
    "mlp_ratio",
    "patch_size",
    "image_size",
    "context_length",
    "vocab_size",
    "ls_init_value",
    "patch_dropout",
    "output_tokens",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
    "hf_model_pretrained",
    "hf_proj_type",
    "hf_pooler_type",
    "pad_id",
    "eos_id",
    "dynamic_img_size",
];

/// A model's configuration and its preprocessing, from the text of an `open_clip_config.json`.
pub(crate) fn parse(file: &str, text: &str) -> Result<(ClipConfig, PreprocessCfg), ModelError> {
    let root = Fields::parse(file, text)?;
    if root.get("model_cfg").is_none() {
        return Err(root.problem("model_cfg: expected an object, found nothing"));
    }
    let config = model(&root.section("model_cfg")?)?;
    let preprocess = match root.get("preprocess_cfg") {
        Some(value) => {
            PreprocessCfg::from_json(value, file).map_err(|error| ModelError::file(file, error.to_string()))?
        }
        None => PreprocessCfg::default(),
    };
    let side = config.vision.image_size();
    Ok((config, PreprocessCfg { size: (side, side), ..preprocess }))
}

/// The object `model_cfg`.
fn model(fields: &Fields<'_>) -> Result<ClipConfig, ModelError> {
    check(fields, &[MODEL])?;
    let (vision, text) = (fields.section("vision_cfg")?, fields.section("text_cfg")?);
    check(&vision, &[VISION, TOWER])?;
    check(&text, &[TEXT, TOWER])?;
    let activation = match fields.get("quick_gelu") {
        None | Some(Value::Bool(false)) => Activation::Gelu,
        Some(Value::Bool(true)) => Activation::QuickGelu,
        Some(other) => return Err(fields.wrong("quick_gelu", "true or false", other)),
    };
    Ok(ClipConfig {
        text: TextConfig {
            tower: {
                let width = text.number("width", 512, 1..=65_536)?;
                let heads = text.number("heads", 8, 1..=1_024)?;
                tower(&text, width, heads, activation)?
            },
            vocab: text.number("vocab_size", 49_408, 1..=4_000_000)?,
            positions: text.number("context_length", 77, 1..=65_536)?,
            pooling: Pooling::LargestId,
        },
        vision: image_tower(&vision, activation)?,
        dim: fields.get("embed_dim").map_or_else(
            || Err(fields.problem("embed_dim: missing")),
            |_| fields.number("embed_dim", 512, 1..=65_536),
        )?,
        logit_scale_init: LOG_SCALE,
    })
}

fn image_tower(fields: &Fields<'_>, activation: Activation) -> Result<VisionConfig, ModelError> {
    let image_size = side(fields, "image_size", 224)?;
    let head_width = fields.number("head_width", 64, 1..=65_536)?;
    if fields.get("layers").is_some_and(Value::is_array) {
        let width = fields.number("width", 64, 2..=1_024)?;
        let config = ModifiedResNetConfig {
            layers: fields.numbers("layers", [3, 4, 6, 3], 1..=1_024)?,
            width,
            heads: divided(fields, 32 * width, head_width)?,
            image_size,
        };
        if !width.is_multiple_of(2) {
            return Err(fields.problem(&format!("width: expected an even number, found {width}")));
        }
        return Ok(VisionConfig::ResNet(config));
    }
    let width = fields.number("width", 768, 1..=65_536)?;
    let patch_size = side(fields, "patch_size", 16)?;
    if patch_size > image_size {
        return Err(fields.problem(&format!("patch_size: {patch_size} is larger than image_size, {image_size}")));
    }
    let heads = divided(fields, width, head_width)?;
    Ok(VisionConfig::Vit(VitConfig {
        tower: tower(fields, width, heads, activation)?,
        image_size,
        patch_size,
        channels: 3,
    }))
}

/// Heads of so many components.
fn divided(fields: &Fields<'_>, width: usize, head_width: usize) -> Result<usize, ModelError> {
    if head_width > width || !width.is_multiple_of(head_width) {
        return Err(fields.problem(&format!("head_width: {width} components do not divide into heads of {head_width}")));
    }
    Ok(width / head_width)
}

fn tower(fields: &Fields<'_>, width: usize, heads: usize, activation: Activation) -> Result<TowerConfig, ModelError> {
    let ratio = match fields.get("mlp_ratio") {
        None => 4.0,
        Some(value) => value.as_f64().ok_or_else(|| fields.wrong("mlp_ratio", "a number", value))?,
    };
    // As `int(width * mlp_ratio)`.
    let hidden = (width as f64 * ratio) as usize;
    if !(1..=262_144).contains(&hidden) {
        return Err(fields.problem(&format!("mlp_ratio: {ratio} times {width} is not between 1 and 262144")));
    }
    if !width.is_multiple_of(heads) {
        return Err(fields.problem(&format!("heads: {width} components do not divide into {heads}")));
    }
    Ok(TowerConfig { width, layers: fields.number("layers", 12, 1..=1_024)?, heads, hidden, activation, eps: EPS })
}

/// A number, or two equal ones.
fn side(fields: &Fields<'_>, name: &str, default: usize) -> Result<usize, ModelError> {
    const RANGE: RangeInclusive<usize> = 1..=8_192;
    if fields.get(name).is_some_and(Value::is_array) {
        let [height, width] = fields.numbers(name, [default; 2], RANGE)?;
        if height != width {
            return Err(
                fields.problem(&format!("{name}: pictures of {height} × {width} are not supported, only squares"))
            );
        }
        return Ok(height);
    }
    fields.number(name, default, RANGE)
}

/// Every setting is one that is known, and has a value that is supported.
fn check(fields: &Fields<'_>, fixed: &[&[Fixed]]) -> Result<(), ModelError> {
    for (name, value) in fields.iter() {
        if FREE.contains(&name) {
            continue;
        }
        match fixed.iter().copied().flatten().find(|(fixed, ..)| *fixed == name) {
            Some((_, expected, meaning)) if *value != expected() => {
                return Err(fields.problem(&format!("{name}: {meaning} is not supported")));
            }
            Some(_) => {}
            None => return Err(fields.problem(&format!("{name}: a setting that is not known here, so not supported"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<(ClipConfig, PreprocessCfg), String> {
        parse("open_clip_config.json", text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_configuration_of_the_hub_is_read() {
        let text = r#"{"model_cfg": {"embed_dim": 1280, "vision_cfg": {"image_size": 224, "layers": 48, "width": 1664,
            "head_width": 104, "mlp_ratio": 4.9231, "patch_size": 14}, "text_cfg": {"context_length": 77, "vocab_size": 49408,
            "width": 1280, "heads": 20, "layers": 32}}, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "resize_mode": "squash",
            "size": 999}}"#;
        let (found, preprocess) = config(text).unwrap();
        let VisionConfig::Vit(vit) = found.vision else { panic!("{:?}", found.vision) };
        assert_eq!((vit.tower.hidden, vit.tower.heads, vit.tower.activation), (8192, 16, Activation::Gelu));
        assert_eq!((preprocess.size, preprocess.mean), ((224, 224), [0.5; 3]));
        assert_eq!(found, Known::parse("ViT-bigG-14").unwrap().config);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let with = |vision: &str, text: &str, more: &str| {
            let text =
                format!(r#"{{"model_cfg": {{"embed_dim": 512, "vision_cfg": {vision}, "text_cfg": {text}{more}}}}}"#);
            config(&text).unwrap_err()
        };
        assert_eq!(
            with(r#"{"timm_model_name": "vit_base_patch16_siglip_224"}"#, "{}", ""),
            "open_clip_config.json: vision_cfg.timm_model_name: an image tower of timm (SigLIP, EVA, ConvNeXt, MobileCLIP, \
             ViTamin) is not supported"
        );
        assert!(with("{}", r#"{"hf_model_name": "roberta-base"}"#, "").contains("a text tower of Hugging Face"));
        assert!(with("{}", "{}", r#", "multimodal_cfg": {}"#).contains("a CoCa model is not supported"));
        assert!(with(r#"{"no_ln_pre": true}"#, "{}", "").contains("no layer norm before the blocks"));
        assert!(with(r#"{"swin": true}"#, "{}", "").contains("vision_cfg.swin: a setting that is not known here"));
        assert!(with(r#"{"image_size": [224, 336]}"#, "{}", "").contains("only squares"));
        assert!(with(r#"{"head_width": 60}"#, "{}", "").contains("do not divide into heads of 60"));
        assert!(config("{}").unwrap_err().contains("model_cfg: expected an object"));
    }

    #[test]
    fn settings_at_their_defaults_are_no_obstacle() {
        let text = r#"{"model_cfg": {"embed_dim": 64, "quick_gelu": true, "custom_text": true, "vision_cfg": {"patch_dropout": 0.5,
            "pool_type": "tok", "ls_init_value": 0.0001, "layers": 2, "width": 128, "image_size": [32, 32], "patch_size": 8},
            "text_cfg": {"no_causal_mask": false, "hf_tokenizer_name": null, "heads": 8}}}"#;
        assert_eq!(config(text).unwrap().0.text.tower.activation, Activation::QuickGelu);
    }
}
