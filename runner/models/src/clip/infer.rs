//! A CLIP model ready to encode.

use std::sync::OnceLock;

use runner_data::{ClipTokenizer, Preprocess};

use crate::{
    ModelError,
    clip::{ClipConfig, gpu::OnGpu, host::OnHost, network::Values},
    parts::Tokenizer,
    weights::Weights,
};

/// A CLIP model with its tokenizer and preprocessing. Shared between threads; encoding does not change it.
pub struct Clip {
    config: ClipConfig,
    towers: Towers,
    logit_scale: f32,
    tokenizer: OnceLock<ClipTokenizer>,
    /// Where the tokenizer comes from, if it is not there yet.
    source: Tokenizer,
    preprocess: Preprocess,
}

/// Both towers, where they are computed.
enum Towers {
    Host(Box<OnHost>),
    Gpu(OnGpu),
}

impl std::fmt::Debug for Clip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clip").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Clip {
    /// A model with all its weights, on a GPU or else on the processor.
    pub(crate) fn new(
        config: ClipConfig,
        values: &mut Values<'_>,
        tokenizer: ClipTokenizer,
        preprocess: Preprocess,
        gpu: Option<u32>,
    ) -> Result<Self, ModelError> {
        check_size(&config, &preprocess)?;
        let mut log_scale = config.logit_scale_init;
        let mut values = |name: &str, shape: &[usize]| {
            let values = values(name, shape)?;
            if let ("logit_scale", [value]) = (name, values.as_slice()) {
                log_scale = *value;
            }
            Ok(values)
        };
        let towers = match gpu {
            Some(gpu) => Towers::Gpu(OnGpu::load(gpu, config, &mut values)?),
            None => Towers::Host(Box::new(OnHost::load(config, &mut values)?)),
        };
        let tokenizer = OnceLock::from(bounded(&config, tokenizer));
        let (logit_scale, source) = (log_scale.exp(), Tokenizer::None);
        Ok(Self { config, towers, logit_scale, tokenizer, source, preprocess })
    }

    /// A model on the processor that reads its weights and its tokenizer when it needs them.
    pub(crate) fn over(
        config: ClipConfig,
        weights: Weights,
        source: Tokenizer,
        preprocess: Preprocess,
    ) -> Result<Self, ModelError> {
        check_size(&config, &preprocess)?;
        let log_scale = weights.tensor("logit_scale", &[])?.first().copied().unwrap_or(config.logit_scale_init);
        let towers = Towers::Host(Box::new(OnHost::over(config, weights)?));
        let (logit_scale, tokenizer) = (log_scale.exp(), OnceLock::new());
        Ok(Self { config, towers, logit_scale, tokenizer, source, preprocess })
    }

    /// The architecture.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Turns texts into the ids that [`Clip::encode_texts`] takes. Read when it is first asked for: a large vocabulary takes longer
    /// to read than a picture to encode.
    pub fn tokenizer(&self) -> Result<&ClipTokenizer, ModelError> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let tokenizer = bounded(&self.config, self.source.load()?);
        Ok(self.tokenizer.get_or_init(|| tokenizer))
    }

    /// Turns pictures into the pixels that [`Clip::encode_images`] takes.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Components of an embedding.
    pub fn dim(&self) -> usize {
        self.config().dim
    }

    /// What similarities are multiplied with before the softmax: exp of the checkpoint's `logit_scale`.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }

    /// Embeds `n` preprocessed pictures, `[n, channels, height, width]`, as `[n, dim]`, projected and not normalised.
    pub fn encode_images(&self, pixels: &[f32], n: usize, threads: usize) -> Result<Vec<f32>, ModelError> {
        let (side, channels) = (self.config().vision.image_size(), self.config().vision.channels());
        let image = check_pixels(pixels, n, channels, side)?;
        match &self.towers {
            Towers::Host(host) => host.images(pixels, image, threads),
            Towers::Gpu(gpu) => gpu.images(pixels),
        }
    }

    /// Embeds tokenized texts as `[n, dim]`, projected and not normalised.
    pub fn encode_texts(&self, ids: &[Vec<u32>], threads: usize) -> Result<Vec<f32>, ModelError> {
        match &self.towers {
            Towers::Host(host) => host.texts(ids, threads),
            Towers::Gpu(gpu) => gpu.texts(ids),
        }
    }
}

/// A tokenizer that gives no more ids than the text tower has positions.
fn bounded(config: &ClipConfig, tokenizer: ClipTokenizer) -> ClipTokenizer {
    let context = tokenizer.context().min(config.text.positions);
    tokenizer.with_context(context)
}

/// Preprocessing must make what the image tower takes.
pub(crate) fn check_size(config: &ClipConfig, preprocess: &Preprocess) -> Result<(), ModelError> {
    let (side, channels) = (config.vision.image_size(), config.vision.channels());
    check_preprocess(preprocess, channels, side)
}

/// Preprocessing must make square pictures of this many channels and pixels a side.
pub(crate) fn check_preprocess(preprocess: &Preprocess, channels: usize, side: usize) -> Result<(), ModelError> {
    let (height, width) = preprocess.size();
    if (3, height, width) == (channels, side, side) {
        return Ok(());
    }
    let problem =
        format!("preprocessing gives 3 × {height} × {width} values, the model takes {channels} × {side} × {side}");
    Err(ModelError::Input(problem))
}

/// Pixels must be those of `n` square pictures; gives the number of values of one.
pub(crate) fn check_pixels(pixels: &[f32], n: usize, channels: usize, side: usize) -> Result<usize, ModelError> {
    let image = channels * side * side;
    if n.checked_mul(image) != Some(pixels.len()) {
        let problem = format!("{} pixel values, expected {n} × {channels} × {side} × {side}", pixels.len());
        return Err(ModelError::Input(problem));
    }
    Ok(image)
}
