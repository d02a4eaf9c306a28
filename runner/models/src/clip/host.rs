//! A CLIP network on the processor. A tower's weights are read when it is first used.

use std::sync::{Mutex, OnceLock, PoisonError};

use runner_nn::{Backend, Fused};

use crate::{
    ModelError,
    clip::{
        ClipConfig, Network, VisionConfig,
        network::{Maker, Text, Values, Vision},
    },
    weights::Weights,
};

/// Texts encoded together, so that memory is bounded.
const TEXTS: usize = 256;

/// Both towers, those that are there.
pub(crate) struct OnHost {
    config: ClipConfig,
    vision: OnceLock<Vision<Fused>>,
    text: OnceLock<Text<Fused>>,
    /// Where towers that are not there yet come from; held by who reads one.
    weights: Mutex<Option<Weights>>,
}

impl OnHost {
    /// With all weights.
    pub(crate) fn load(config: ClipConfig, values: &mut Values<'_>) -> Result<Self, ModelError> {
        let (vision, text) = Network::new(&Fused::new(1)?, config, values)?.0.split();
        Ok(Self { config, vision: OnceLock::from(vision), text: OnceLock::from(text), weights: Mutex::new(None) })
    }

    /// With weights that are known by their shapes, and read when they are needed.
    pub(crate) fn over(config: ClipConfig, weights: Weights) -> Result<Self, ModelError> {
        let outline = Fused::outline()?;
        let mut shapes = |name: &str, shape: &[usize]| weights.check(name, shape).map(|()| Vec::new());
        let vision = match config.vision {
            VisionConfig::Vit(_) => {
                Maker::new(&outline, &mut shapes).vision(&config)?;
                OnceLock::new()
            }
            // Its weights are put together from several tensors, which takes their values.
            VisionConfig::ResNet(_) => {
                let (backend, mut values) = (Fused::new(1)?, |name: &str, shape: &[usize]| weights.tensor(name, shape));
                OnceLock::from(Maker::new(&backend, &mut values).vision(&config)?)
            }
        };
        Maker::new(&outline, &mut shapes).text(&config)?;
        Ok(Self { config, vision, text: OnceLock::new(), weights: Mutex::new(Some(weights)) })
    }

    /// Embeds pixels of pictures of `image` values: `[n, dim]`.
    pub(crate) fn images(&self, pixels: &[f32], image: usize, threads: usize) -> Result<Vec<f32>, ModelError> {
        let backend = Fused::new(threads)?;
        let vision = self.vision(&backend)?;
        let mut embeddings = Vec::with_capacity(pixels.len() / image.max(1) * self.config.dim);
        for pixels in pixels.chunks(vision.together() * image) {
            embeddings.append(&mut backend.values(&vision.images(&backend, pixels)?)?);
        }
        Ok(embeddings)
    }

    /// Embeds tokenized texts: `[n, dim]`.
    pub(crate) fn texts(&self, ids: &[Vec<u32>], threads: usize) -> Result<Vec<f32>, ModelError> {
        let backend = Fused::new(threads)?;
        let text = self.text(&backend)?;
        let mut embeddings = Vec::with_capacity(ids.len() * self.config.dim);
        for group in ids.chunks(TEXTS) {
            let texts: Vec<&[u32]> = group.iter().map(Vec::as_slice).collect();
            let texts = self.config.text.join(&texts)?;
            embeddings.append(&mut backend.values(&text.texts(&backend, &texts)?)?);
        }
        Ok(embeddings)
    }

    fn vision(&self, backend: &Fused) -> Result<&Vision<Fused>, ModelError> {
        self.tower(backend, &self.vision, |values| Maker::new(backend, values).vision(&self.config))
    }

    fn text(&self, backend: &Fused) -> Result<&Text<Fused>, ModelError> {
        self.tower(backend, &self.text, |values| Maker::new(backend, values).text(&self.config))
    }

    /// A tower, read by the first who asks for it, on the threads that compute for it.
    fn tower<'a, T>(
        &self,
        backend: &Fused,
        tower: &'a OnceLock<T>,
        make: impl FnOnce(&mut Values<'_>) -> Result<T, ModelError>,
    ) -> Result<&'a T, ModelError> {
        if let Some(tower) = tower.get() {
            return Ok(tower);
        }
        let weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tower) = tower.get() {
            return Ok(tower);
        }
        let gone = || ModelError::Input("a model without weights".to_owned());
        let weights = weights.as_ref().ok_or_else(gone)?;
        let made = make(&mut |name, shape| backend.workers().run(|| weights.tensor(name, shape)))?;
        Ok(tower.get_or_init(|| made))
    }
}
