//! candle as a process of its own that answers the lines that `engine.py` describes.
//!
//!     candle MODEL INPUTS
//!
//! MODEL is a CLIPModel folder; the number of threads is rayon's (`RAYON_NUM_THREADS`).

use std::{
    env,
    error::Error,
    fs,
    io::{self, BufRead, Write},
    path::Path,
    time::Instant,
};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::clip::{
    ClipConfig, ClipModel, text_model::Activation, text_model::ClipTextConfig, vision_model::ClipVisionConfig,
};
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Values of a picture of 224 × 224.
const IMAGE: usize = 3 * 224 * 224;

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(model), Some(inputs)) = (arguments.next(), arguments.next()) else {
        return Err("usage: candle MODEL INPUTS".into());
    };
    let (model, inputs) = (Path::new(&model), Path::new(&inputs));
    let config = config(&serde_json::from_slice(&fs::read(model.join("config.json"))?)?)?;
    let weights = candle_core::safetensors::load(model.join("model.safetensors"), &Device::Cpu)?;
    let model = ClipModel::new(VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu), &config)?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [what, tower, size, last] = words.as_slice() else {
            return Err(format!("expected four words, found `{line}`").into());
        };
        let input = if *tower == "image" { pixels(inputs, size.parse()?)? } else { prompts(inputs, size)? };
        let run = || if *tower == "image" { model.get_image_features(&input) } else { model.get_text_features(&input) };
        if *what == "save" {
            let values = run()?.flatten_all()?.to_vec1::<f32>()?;
            fs::write(last, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())?;
            println!("saved");
        } else {
            let start = Instant::now();
            for _ in 0..last.parse::<usize>()? {
                run()?;
            }
            println!("{}", start.elapsed().as_secs_f64());
        }
        io::stdout().flush()?;
    }
    Ok(())
}

/// The sizes of a model from its `config.json`, whose activation is CLIP's quick GELU.
fn config(file: &Value) -> Result<ClipConfig> {
    let number = |part: &str, name: &str| {
        let missing = || format!("config.json has no number {part}.{name}");
        file[part][name].as_u64().map(|value| value as usize).ok_or_else(missing)
    };
    let [text, vision] = ["text_config", "vision_config"];
    let dim = file["projection_dim"].as_u64().ok_or("config.json has no number projection_dim")? as usize;
    Ok(ClipConfig {
        text_config: ClipTextConfig {
            vocab_size: number(text, "vocab_size")?,
            embed_dim: number(text, "hidden_size")?,
            activation: Activation::QuickGelu,
            intermediate_size: number(text, "intermediate_size")?,
            max_position_embeddings: number(text, "max_position_embeddings")?,
            pad_with: None,
            num_hidden_layers: number(text, "num_hidden_layers")?,
            num_attention_heads: number(text, "num_attention_heads")?,
            projection_dim: dim,
        },
        vision_config: ClipVisionConfig {
            embed_dim: number(vision, "hidden_size")?,
            activation: Activation::QuickGelu,
            intermediate_size: number(vision, "intermediate_size")?,
            num_hidden_layers: number(vision, "num_hidden_layers")?,
            num_attention_heads: number(vision, "num_attention_heads")?,
            projection_dim: dim,
            num_channels: 3,
            image_size: number(vision, "image_size")?,
            patch_size: number(vision, "patch_size")?,
        },
        logit_scale_init_value: 2.6592,
        image_size: number(vision, "image_size")?,
    })
}

fn pixels(inputs: &Path, count: usize) -> Result<Tensor> {
    let bytes = fs::read(inputs.join("pixels.f32"))?;
    let values = bytes.as_chunks().0.iter().take(count * IMAGE).map(|bytes| f32::from_le_bytes(*bytes));
    Ok(Tensor::from_vec(values.collect::<Vec<_>>(), (count, 3, 224, 224), &Device::Cpu)?)
}

/// Token ids, padded to 77 or to the longest prompt. With 0: the end of a prompt is its first largest id.
fn prompts(inputs: &Path, size: &str) -> Result<Tensor> {
    let mut ids: Vec<Vec<u32>> = serde_json::from_slice(&fs::read(inputs.join("prompts.json"))?)?;
    let length = if size == "padded" { 77 } else { ids.iter().map(Vec::len).max().unwrap_or(0) };
    ids.iter_mut().for_each(|ids| ids.resize(length, 0));
    Ok(Tensor::new(ids, &Device::Cpu)?)
}
