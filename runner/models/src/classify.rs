//! Pictures against texts: the softmax over `logits_per_image`, as in CLIP's README. And pictures by a classifier's own
//! classes.

use runner_contract::ImageRef;

use crate::{Classifier, Clip, ModelError};

/// How texts or classes fit one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Classified {
    /// One a text: scaled cosine similarities, `logits_per_image`; one a class: the classifier's.
    pub logits: Vec<f32>,
    /// Their softmax.
    pub probabilities: Vec<f32>,
}

/// Compares every picture (a path for messages, and a file's bytes) with every text.
pub fn classify(
    clip: &Clip,
    images: &[(String, Vec<u8>)],
    texts: &[String],
    threads: usize,
) -> Result<Vec<Classified>, ModelError> {
    let tokenizer = clip.tokenizer()?;
    let ids = texts.iter().map(|text| tokenizer.encode(text)).collect::<Result<Vec<_>, _>>();
    let ids = ids.map_err(|error| ModelError::Input(error.to_string()))?;
    let texts = normalised(clip.encode_texts(&ids, threads)?, clip.dim());
    let mut found = Vec::with_capacity(images.len());
    // One by one: memory does not grow with their number.
    for (path, bytes) in images {
        let pixels = clip.preprocess().apply(ImageRef::Encoded { bytes, path });
        let pixels = pixels.map_err(|error| ModelError::Input(error.to_string()))?;
        let image = normalised(clip.encode_images(&pixels, 1, threads)?, clip.dim());
        let cosine = |text: &[f32]| image.iter().zip(text).map(|(a, b)| a * b).sum::<f32>();
        let logits: Vec<f32> = texts.chunks_exact(clip.dim()).map(|text| clip.logit_scale() * cosine(text)).collect();
        found.push(Classified { probabilities: softmax(&logits), logits });
    }
    Ok(found)
}

impl Classifier {
    /// Tells which of its classes every picture (a path for messages, and a file's bytes) is.
    pub fn classify(&self, images: &[(String, Vec<u8>)], threads: usize) -> Result<Vec<Classified>, ModelError> {
        let each = images.iter().map(|(path, bytes)| {
            let pixels = self.preprocess().apply(ImageRef::Encoded { bytes, path });
            let pixels = pixels.map_err(|error| ModelError::Input(error.to_string()))?;
            let logits = self.logits(&pixels, 1, threads)?;
            Ok(Classified { probabilities: softmax(&logits), logits })
        });
        each.collect()
    }
}

/// Rows of `[n, dim]` made of length one; a row of zeros stays.
fn normalised(mut rows: Vec<f32>, dim: usize) -> Vec<f32> {
    for row in rows.chunks_exact_mut(dim.max(1)) {
        let length = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt() as f32;
        if length > 0.0 {
            row.iter_mut().for_each(|value| *value /= length);
        }
    }
    rows
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - greatest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_to_one_for_any_logits() {
        for logits in [vec![0.0, 1.0, 2.0], vec![100.0, -100.0], vec![3e38, 1.0], vec![7.0]] {
            let sum: f32 = softmax(&logits).iter().sum();
            assert!((sum - 1.0).abs() < 1e-6, "{logits:?}");
        }
        assert_eq!(softmax(&[0.0, 0.0]), [0.5, 0.5]);
    }

    #[test]
    fn rows_become_of_length_one() {
        assert_eq!(normalised(vec![3.0, 4.0, 0.0, 0.0], 2), [0.6, 0.8, 0.0, 0.0]);
    }
}
