//! Whether a model is whole: its weights of the shapes that its configuration says, finite, and computing what was expected.

use std::path::Path;

use runner_contract::Digest;

use crate::{Hub, Loaded, ModelError, parts::Parts, safetensors::Reader};

/// What was found of a model that is whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// A digest of everything that decides its results.
    pub identity: Digest,
    /// Tensors that the network takes.
    pub tensors: usize,
    /// Values in them, each finite.
    pub parameters: u64,
    /// What was compared with expected values, and the largest difference, relative to the largest expected value.
    pub differences: Vec<(&'static str, f32)>,
}

impl Hub {
    /// Reads all of a model and computes something with it. `against` is a safetensors file of what is expected: for `pixels`
    /// (`[n, 3, side, side]`) `images` (`[n, dim]`) or `logits` (`[n, classes]`), and for `ids` (`[n, tokens]`, as floating-point
    /// numbers) `texts` (`[n, dim]`). Computes on a GPU where one is named.
    pub fn verify(
        &self,
        reference: &str,
        against: Option<&Path>,
        threads: usize,
        gpu: Option<u32>,
    ) -> Result<Verified, ModelError> {
        let identity = self.info(reference)?.identity;
        let (mut tensors, mut parameters) = (0, 0);
        let loaded = Parts::open(&self.place(reference)?)?.load_noting(gpu, &mut |_, shape, _| {
            tensors += 1;
            parameters += shape.iter().product::<usize>() as u64;
        })?;
        let (height, width) = loaded.preprocess().size();
        let grey = vec![0.0; 3 * height * width];
        finite("a grey picture", &loaded.encode_images(&grey, 1, threads)?)?;
        if let Loaded::Clip(clip) = &loaded {
            let last = u32::try_from(clip.config().text.vocab - 1).unwrap_or(u32::MAX);
            finite("a text of one token", &clip.encode_texts(&[vec![last]], threads)?)?;
        }
        let differences =
            against.map_or_else(|| Ok(Vec::new()), |path| compare(&loaded, &Reader::open(path)?, threads))?;
        Ok(Verified { identity, tensors, parameters, differences })
    }
}

fn finite(of: &str, values: &[f32]) -> Result<(), ModelError> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(ModelError::Input(format!("the features of {of} hold {value}: the model overflows"))),
        None => Ok(()),
    }
}

fn compare(loaded: &Loaded, expected: &Reader, threads: usize) -> Result<Vec<(&'static str, f32)>, ModelError> {
    let all = |name: &str| -> Result<Option<(usize, Vec<f32>)>, ModelError> {
        let Some(shape) = expected.shape(name) else { return Ok(None) };
        Ok(Some((shape.first().copied().unwrap_or(1), expected.tensor(name, shape)?)))
    };
    let mut found = Vec::new();
    let mut add = |name: &'static str, computed: &[f32]| -> Result<(), ModelError> {
        let Some((_, expected_values)) = all(name)? else { return Ok(()) };
        if expected_values.len() != computed.len() {
            let problem = format!("{} values, the model gives {}", expected_values.len(), computed.len());
            return Err(ModelError::tensor(expected.name(), name, problem));
        }
        found.push((name, difference(computed, &expected_values)));
        Ok(())
    };
    if let Some((n, pixels)) = all("pixels")? {
        add("images", &loaded.encode_images(&pixels, n, threads)?)?;
        if let Loaded::Classifier(classifier) = loaded {
            add("logits", &classifier.logits(&pixels, n, threads)?)?;
        }
    }
    if let (Some((n, ids)), Loaded::Clip(clip)) = (all("ids")?, loaded) {
        let length = (ids.len() / n.max(1)).max(1);
        let ids: Vec<Vec<u32>> = ids.chunks(length).map(|ids| ids.iter().map(|id| *id as u32).collect()).collect();
        add("texts", &clip.encode_texts(&ids, threads)?)?;
    }
    if found.is_empty() {
        let problem = "nothing to compare with: expected `pixels` with `images` or `logits`, or `ids` with `texts`";
        return Err(ModelError::file(expected.name(), problem));
    }
    Ok(found)
}

/// The largest difference, relative to the largest expected value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let scale = expected.iter().fold(f32::MIN_POSITIVE, |max, value| max.max(value.abs()));
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale
}
