//! Contrastive training of a CLIP model, step by step.

mod augment;
mod compute;
mod init;
mod pairs;
mod state;
#[cfg(test)]
mod tests;

use runner_data::{ClipTokenizer, Preprocess};
use runner_nn::{Step, optim};
use serde::{Deserialize, Serialize};

use crate::{
    BundleTexts, Clip, ClipConfig, ModelError, Pooling, VisionConfig, bundle,
    clip::{Parameter, check_size},
    safetensors::{Dtype, Tensor},
};

pub use augment::Augment;
use compute::Compute;
pub use pairs::true_pairs;

/// The logit scale that training may not exceed, as a logarithm: ln 100 (section 2.5 of the paper). It may not fall
/// below 1 either.
const MAX_LOG_SCALE: f32 = 4.605_170_2;

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// Steps in all: the learning rate reaches its end with the last.
    pub steps: u64,
    /// Steps over which the learning rate rises from 0 to its peak.
    pub warmup: u64,
    /// The peak; from there it falls to 0 along half a cosine.
    pub learning_rate: f32,
    /// Decoupled weight decay, on the matrices of linear maps; not on biases, norms, embeddings and the logit scale.
    pub weight_decay: f32,
    /// AdamW's decay of the mean gradient.
    pub beta1: f32,
    /// AdamW's decay of the mean squared gradient.
    pub beta2: f32,
    /// AdamW's addition to the denominator.
    pub eps: f32,
    /// The largest norm of the gradient of all parameters together; longer ones are shortened to it.
    pub max_gradient_norm: f32,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            steps: 4_000,
            warmup: 200,
            learning_rate: 2e-3,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-6,
            max_gradient_norm: 1.0,
        }
    }
}

/// What to train.
#[derive(Clone, Debug)]
pub struct TrainSetup {
    /// The architecture. Its vocabulary and the place where text is read must fit the tokenizer.
    pub config: ClipConfig,
    /// How to train it.
    pub options: TrainOptions,
    /// Travels with the model.
    pub tokenizer: ClipTokenizer,
    /// Travels with the model.
    pub preprocess: Preprocess,
    /// Decides the initial weights.
    pub seed: u64,
}

/// Image-text pairs: text i was given to image i.
#[derive(Clone, Copy, Debug)]
pub struct TrainBatch<'a> {
    /// Preprocessed pixels, `[n, channels, height, width]`.
    pub pixels: &'a [f32],
    /// Token ids of the n texts.
    pub texts: &'a [Vec<u32>],
    /// `[n, n]`, images by texts: whether text j is true of image i too, see [`true_pairs`]. Off the diagonal such a pair
    /// is no negative and is left out of both softmaxes. `None`: equal texts are true of each other's images.
    pub true_pairs: Option<&'a [bool]>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// Steps done, this one included.
    pub step: u64,
    /// The symmetric cross-entropy before the step, in nats.
    pub loss: f32,
    /// The norm of the gradient before it was shortened.
    pub gradient_norm: f32,
    /// What similarities are multiplied with, after the step.
    pub logit_scale: f32,
    /// The learning rate of this step.
    pub learning_rate: f32,
}

/// A model being trained, and the optimizer's state. On the processor equal calls give equal bits, for any number of threads.
pub struct ClipTrainer {
    config: ClipConfig,
    options: TrainOptions,
    texts: BundleTexts,
    tokenizer: ClipTokenizer,
    preprocess: Preprocess,
    compute: Box<dyn Compute>,
    parameters: Vec<Parameter>,
    optimizer: optim::AdamW,
    /// What the weights started from; kept for the checkpoint.
    seed: u64,
}

impl ClipTrainer {
    /// A trainer at step 0, with weights from the seed; on a GPU where one is named, by its index.
    pub fn new(setup: TrainSetup, threads: usize, gpu: Option<u32>) -> Result<Self, ModelError> {
        let (config, seed) = (setup.config, setup.seed);
        check(&setup)?;
        Self::with_weights(setup, threads, gpu, &mut |name, shape| Ok(init::values(&config, seed, name, shape)))
    }

    fn with_weights(
        setup: TrainSetup,
        threads: usize,
        gpu: Option<u32>,
        values: &mut crate::clip::Values<'_>,
    ) -> Result<Self, ModelError> {
        let TrainSetup { config, options, tokenizer, preprocess, seed } = setup;
        let data = |error: runner_data::DataError| ModelError::Input(error.to_string());
        let texts = BundleTexts {
            config: config.to_json(Some((tokenizer.start(), tokenizer.end()))).to_string(),
            tokenizer: tokenizer.to_json().map_err(data)?,
            tokenizer_config: tokenizer.config_json(),
            preprocessor: preprocess.to_json(),
            card: None,
        };
        let (compute, parameters) = compute::place(config, threads, gpu, values)?;
        let optimizer = optim::AdamW::new(options.beta1, options.beta2, options.eps, parameters.len());
        Ok(Self { config, options, texts, seed, tokenizer, preprocess, compute, parameters, optimizer })
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.optimizer.steps
    }

    /// Trains on one batch.
    pub fn step(&mut self, batch: &TrainBatch<'_>) -> Result<StepStats, ModelError> {
        let (loss, gradients) = self.gradients(batch)?;
        let options = &self.options;
        let schedule =
            optim::Schedule { peak: options.learning_rate, warmup: options.warmup, total: options.steps, floor: 0.0 };
        let learning_rate = schedule.rate(self.optimizer.steps);
        let (optimizer, parameters) = (&mut self.optimizer, &self.parameters);
        let (mut gradient_norm, mut logit_scale) = (0.0, 0.0);
        self.compute.update(&mut |values| {
            gradient_norm = optim::global_norm(&gradients);
            let factor = optim::clip_factor(gradient_norm, options.max_gradient_norm);
            let decay = |place: usize| if parameters[place].decay { options.weight_decay } else { 0.0 };
            optimizer.step(values, &gradients, optim::Stride { rate: learning_rate, factor }, decay);
            for (values, _) in values.iter_mut().zip(parameters).filter(|(_, parameter)| parameter.is_log_scale()) {
                values[0] = values[0].clamp(0.0, MAX_LOG_SCALE);
                logit_scale = values[0].exp();
            }
        });
        self.compute.recycle(gradients);
        Ok(StepStats { step: self.optimizer.steps, loss, gradient_norm, logit_scale, learning_rate })
    }

    /// The loss of a batch and the gradient of every parameter, in order.
    fn gradients(&self, batch: &TrainBatch<'_>) -> Result<(f32, Vec<Vec<f32>>), ModelError> {
        let n = batch.texts.len();
        let vision = &self.config.vision;
        let [channels, side] = [vision.channels(), vision.image_size()];
        if n == 0 || batch.pixels.len() != n * channels * side * side {
            let problem = format!(
                "a batch of {n} texts and {} pixel values, expected as many of {channels} × {side} × {side}",
                batch.pixels.len()
            );
            return Err(ModelError::Input(problem));
        }
        if batch.true_pairs.is_some_and(|pairs| pairs.len() != n * n) {
            return Err(ModelError::Input(format!("`true_pairs` of a batch of {n} is not {n} × {n}")));
        }
        let equal = batch.true_pairs.is_none().then(|| pairs::equal_texts(batch.texts));
        let true_pairs = batch.true_pairs.or(equal.as_deref()).unwrap_or_default();
        let texts: Vec<&[u32]> = batch.texts.iter().map(Vec::as_slice).collect();
        let Step { loss, gradients } = self.compute.gradients(batch.pixels, &texts, true_pairs)?;
        Ok((loss, gradients))
    }

    /// The model as it is now, ready to encode.
    pub fn clip(&self) -> Result<Clip, ModelError> {
        let mut tensors = self.tensors().into_iter();
        let mut next = |name: &str, _: &[usize]| {
            let found = tensors.next().filter(|(found, _, _)| found == name);
            found.map(|(_, _, values)| values).ok_or_else(|| ModelError::tensor("training", name, "out of order"))
        };
        Clip::new(self.config, &mut next, self.tokenizer.clone(), self.preprocess.clone(), None)
    }

    /// The model as it is now, as a bundle. `card` is its model card, JSON.
    pub fn export(&self, dtype: Dtype, card: Option<String>) -> Vec<u8> {
        let tensors = self.tensors();
        let tensors: Vec<Tensor<'_>> =
            tensors.iter().map(|(name, shape, values)| Tensor { name, shape, values }).collect();
        bundle::save(&tensors, dtype, &BundleTexts { card, ..self.texts.clone() }, &[])
    }

    /// The weights as a checkpoint has them: name, shape, values, in the order that the network asks for them.
    fn tensors(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let mut tensors = Vec::new();
        for (parameter, values) in self.parameters.iter().zip(self.compute.read()) {
            let mut rest = values.as_slice();
            for (name, shape) in &parameter.parts {
                let (part, after) = rest.split_at(shape.iter().product());
                tensors.push((name.clone(), shape.clone(), part.to_vec()));
                rest = after;
            }
        }
        tensors
    }
}

/// The parts of a model fit each other.
fn check(setup: &TrainSetup) -> Result<(), ModelError> {
    let TrainSetup { config, tokenizer, preprocess, .. } = setup;
    let bad = |problem: String| Err(ModelError::Input(problem));
    check_size(config, preprocess)?;
    if !matches!(config.vision, VisionConfig::Vit(_)) {
        return bad("the image tower is a modified ResNet; only vision transformers can be trained".to_owned());
    }
    if tokenizer.vocab_size() > config.text.vocab {
        let (tokens, rows) = (tokenizer.vocab_size(), config.text.vocab);
        return bad(format!("the tokenizer has {tokens} tokens, the model's vocabulary {rows}"));
    }
    if config.text.pooling != Pooling::Token(tokenizer.end()) {
        let (pooling, end) = (config.text.pooling, tokenizer.end());
        return bad(format!("the model reads text at {pooling:?}, the tokenizer ends it with {end}"));
    }
    Ok(())
}
