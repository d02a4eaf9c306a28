//! A training state as bytes, exactly: a safetensors file in f32 with the weights and the optimizer's moments.

use runner_data::{ClipTokenizer, Preprocess};
use runner_nn::optim::AdamW;
use serde::{Deserialize, Serialize};

use super::{ClipTrainer, TrainOptions, TrainSetup};
use crate::{
    ClipConfig, ModelError, bundle,
    safetensors::{Dtype, Reader, Tensor},
};

/// Raised when the state changes its form.
const VERSION: u32 = 1;
/// What stands for the file in messages.
const NAME: &str = "training checkpoint";
/// The metadata entry with [`Header`].
const HEADER: &str = "training.json";
/// What the moments' names start with.
const MOMENTS: [&str; 2] = ["first_moment.", "second_moment."];

/// What the state holds besides tensors and the model's texts.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    steps: u64,
    seed: u64,
    options: TrainOptions,
}

impl ClipTrainer {
    /// Everything that training needs to go on, bit for bit as if it had not stopped.
    pub fn save(&self) -> Vec<u8> {
        let header = Header { version: VERSION, steps: self.optimizer.steps, seed: self.seed, options: self.options };
        let weights = self.tensors();
        let mut tensors: Vec<Tensor<'_>> =
            weights.iter().map(|(name, shape, values)| Tensor { name, shape, values }).collect();
        let moments = [&self.optimizer.first, &self.optimizer.second];
        let names: Vec<[String; 2]> =
            (0..self.parameters.len()).map(|i| MOMENTS.map(|moment| format!("{moment}{i}"))).collect();
        let shapes: Vec<[[usize; 1]; 2]> =
            (0..self.parameters.len()).map(|i| moments.map(|moment| [moment[i].len()])).collect();
        for (i, (names, shapes)) in names.iter().zip(&shapes).enumerate() {
            for ((name, shape), moment) in names.iter().zip(shapes).zip(moments) {
                tensors.push(Tensor { name, shape, values: &moment[i] });
            }
        }
        let header = serde_json::to_string(&header).unwrap_or_default();
        bundle::save(&tensors, Dtype::F32, &self.texts, &[(HEADER, &header)])
    }

    /// Goes on from what [`ClipTrainer::save`] gave.
    pub fn load(bytes: Vec<u8>, threads: usize, gpu: Option<u32>) -> Result<Self, ModelError> {
        let reader = Reader::from_bytes(NAME, bytes)?;
        let bad = |problem: String| ModelError::file(NAME, problem);
        let text = |name: &str| reader.metadata().get(name).ok_or_else(|| bad(format!("no `{name}`")));
        let header: Header = serde_json::from_str(text(HEADER)?).map_err(|error| bad(format!("{HEADER}: {error}")))?;
        if header.version != VERSION {
            return Err(bad(format!("version {}, this program reads version {VERSION}", header.version)));
        }
        let config = ClipConfig::parse(NAME, text("config.json")?)?;
        let settings = text("tokenizer_config.json").ok().map(String::as_str);
        let tokenizer = ClipTokenizer::from_json(text("tokenizer.json")?, settings).map_err(|e| bad(e.to_string()))?;
        let preprocess = Preprocess::from_config(text("preprocessor_config.json")?);
        let preprocess = preprocess.map_err(|error| bad(format!("preprocessor_config.json: {error}")))?;
        let setup = TrainSetup { config, options: header.options, tokenizer, preprocess, seed: header.seed };
        let mut trainer = Self::with_weights(setup, threads, gpu, &mut |name, shape| reader.tensor(name, shape))?;
        trainer.optimizer.steps = header.steps;
        let AdamW { first, second, .. } = &mut trainer.optimizer;
        for (moments, name) in [first, second].into_iter().zip(MOMENTS) {
            for (i, (moment, parameter)) in moments.iter_mut().zip(&trainer.parameters).enumerate() {
                let len = if header.steps == 0 { 0 } else { parameter.len() };
                *moment = reader.tensor(&format!("{name}{i}"), &[len])?;
            }
        }
        Ok(trainer)
    }
}
