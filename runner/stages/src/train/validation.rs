//! How good a model is on rows that it was not trained on.

use std::collections::BTreeMap;

use runner_contract::{Batch, ImageRef, JobContext, Need, StageError};
use runner_data::Pixels;
use runner_models::Clip;

use super::{
    examples::{Captioned, Columns, Examples},
    settings::Settings,
};
use crate::vectors::{best, dot, normalize};

/// Pictures and texts that are encoded together.
const CHUNK: usize = 64;

/// What is measured.
pub(super) enum Validation {
    /// The class of each picture, found among the classes by their prompts: several a class.
    ZeroShot { images: Vec<Pixels>, labels: Vec<i64>, classes: Vec<(i64, Vec<String>)> },
    /// A caption that is true of each picture, found among the captions of a few hundred pictures.
    Captions(Captioned),
}

/// Pictures among whose captions one is looked for.
const POOL: usize = 256;

impl Validation {
    /// Zero-shot classification over the port `classes`.
    pub(super) fn zero_shot(context: &JobContext<'_>, settings: &Settings) -> Result<Self, StageError> {
        let rows = context.base.whole("classes")?;
        let names = rows.text("name")?;
        let prompts = |name: &str| settings.templates.iter().map(|template| template.replace("{}", name)).collect();
        let classes = rows.integers("label")?.iter().copied().zip(names.iter().flatten().map(prompts)).collect();
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        let needs = [Need::pixels(&settings.image), Need::column("label")];
        for batch in context.access.rows("validation")?.scan(&needs)? {
            let batch = batch?;
            images.extend(pictures(&batch, &settings.image)?);
            labels.extend_from_slice(batch.integers("label")?);
        }
        Self::ZeroShot { images, labels, classes }.checked()
    }

    /// Finding captions.
    pub(super) fn captions(context: &JobContext<'_>, columns: &Columns, seed: u64) -> Result<Self, StageError> {
        Self::Captions(Examples::read(context, "validation", columns)?.one_caption_each(seed)).checked()
    }

    fn checked(self) -> Result<Self, StageError> {
        if self.images().is_empty() {
            return Err(StageError::new("no rows on `validation`; leave the port out, or connect rows"));
        }
        Ok(self)
    }

    fn images(&self) -> &[Pixels] {
        match self {
            Self::ZeroShot { images, .. } | Self::Captions(Captioned { images, .. }) => images,
        }
    }

    /// What the series is called.
    pub(super) fn metric(&self) -> &'static str {
        match self {
            Self::ZeroShot { .. } => "validation.top1",
            Self::Captions(_) => "validation.recall1",
        }
    }

    /// The share of pictures that get it right.
    pub(super) fn accuracy(&self, clip: &Clip, threads: usize) -> Result<f64, StageError> {
        let images = encode_images(clip, self.images(), threads)?;
        let dim = clip.dim();
        let right = match self {
            Self::ZeroShot { labels, classes, .. } => {
                let mut vectors = Vec::with_capacity(classes.len() * dim);
                for (_, prompts) in classes {
                    vectors.extend(pooled(&encode_texts(clip, prompts, threads)?, dim));
                }
                let predicted = nearest(&images, &vectors, dim).map(|place| classes.get(place).map(|class| class.0));
                predicted.zip(labels).filter(|(predicted, label)| predicted.as_ref() == Some(label)).count()
            }
            Self::Captions(captioned) => {
                let vectors = encode_texts(clip, &captioned.texts, threads)?;
                let pools = images.chunks(POOL * dim).zip(vectors.chunks(POOL * dim)).enumerate();
                pools
                    .map(|(pool, (images, vectors))| {
                        let first = pool * POOL;
                        let found = nearest(images, vectors, dim).enumerate();
                        found.filter(|(image, place)| captioned.is_true(first + place, first + image)).count()
                    })
                    .sum()
            }
        };
        Ok(right as f64 / self.images().len() as f64)
    }
}

/// The decoded pictures of a column.
fn pictures(batch: &Batch, column: &str) -> Result<Vec<Pixels>, StageError> {
    let owned = |image: ImageRef<'_>| match image {
        ImageRef::Pixels { height, width, channels, data } => {
            Ok(Pixels { height, width, channels, data: data.to_vec() })
        }
        ImageRef::Encoded { path, .. } => Err(StageError::new(format!("{path}: the picture was not decoded"))),
    };
    batch.images(column)?.into_iter().map(owned).collect()
}

/// The place of the nearest candidate of each query.
fn nearest<'a>(queries: &'a [f32], candidates: &'a [f32], dim: usize) -> impl Iterator<Item = usize> + 'a {
    queries.chunks_exact(dim.max(1)).map(move |query| {
        let scores: Vec<_> = candidates.chunks_exact(dim.max(1)).map(|candidate| dot(query, candidate)).collect();
        best(&scores).unwrap_or(usize::MAX)
    })
}

/// The direction of the sum.
fn pooled(vectors: &[f32], dim: usize) -> Vec<f32> {
    let mut sum = vec![0.0; dim];
    for vector in vectors.chunks_exact(dim.max(1)) {
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
    }
    normalize(&mut sum);
    sum
}

fn encode_images(clip: &Clip, images: &[Pixels], threads: usize) -> Result<Vec<f32>, StageError> {
    let (height, width) = clip.preprocess().size();
    let size = 3 * height * width;
    let mut all = Vec::with_capacity(images.len() * clip.dim());
    for chunk in images.chunks(CHUNK) {
        let mut pixels = vec![0.0; chunk.len() * size];
        for (image, out) in chunk.iter().zip(pixels.chunks_exact_mut(size)) {
            let failed = |error| StageError::because("a picture for validation", error);
            clip.preprocess().apply_into(image.as_ref(), out).map_err(failed)?;
        }
        all.extend(clip.encode_images(&pixels, chunk.len(), threads).map_err(crate::stage_error)?);
    }
    all.chunks_exact_mut(clip.dim().max(1)).for_each(normalize);
    Ok(all)
}

/// Distinct texts are encoded once.
fn encode_texts(clip: &Clip, texts: &[String], threads: usize) -> Result<Vec<f32>, StageError> {
    let mut places = BTreeMap::new();
    let mut distinct = Vec::new();
    for text in texts {
        places.entry(text.as_str()).or_insert_with(|| {
            distinct.push(text.as_str());
            distinct.len() - 1
        });
    }
    let (dim, tokenizer) = (clip.dim(), clip.tokenizer().map_err(crate::stage_error)?);
    let mut vectors = Vec::with_capacity(distinct.len() * dim);
    for chunk in distinct.chunks(CHUNK) {
        let tokens = chunk.iter().map(|text| tokenizer.encode(text));
        let tokens: Result<Vec<_>, _> = tokens.collect();
        let tokens = tokens.map_err(|error| StageError::because("a text for validation", error))?;
        vectors.extend(clip.encode_texts(&tokens, threads).map_err(crate::stage_error)?);
    }
    vectors.chunks_exact_mut(dim.max(1)).for_each(normalize);
    Ok(texts.iter().flat_map(|text| vectors[places[text.as_str()] * dim..][..dim].iter().copied()).collect())
}
