//! The pairs to train on, in memory, and the batches made of them.

use std::{
    collections::{BTreeMap, HashMap},
    thread,
};

use runner_contract::{Batch, ColumnType, ImageRef, JobContext, Need, Random, Schema, StageError};
use runner_data::{ClipTokenizer, Pixels, Preprocess};
use runner_models::train::Augment;

use super::settings::Settings;

/// Which columns hold what.
#[derive(Clone)]
pub(super) struct Columns {
    image: String,
    captions: String,
    /// Several captions a row.
    several: bool,
    /// `claims` and `facts` are there.
    facts: bool,
}

impl Columns {
    pub(super) fn of(settings: &Settings, schema: &Schema) -> Self {
        let is_texts = |name: &str| schema.get(name).is_some_and(|column| column.kind == ColumnType::Texts);
        let several = is_texts(&settings.captions);
        Self {
            image: settings.image.clone(),
            captions: settings.captions.clone(),
            several,
            facts: several && is_texts("claims") && is_texts("facts"),
        }
    }

    pub(super) fn needs(&self) -> Vec<Need> {
        let mut needs = vec![Need::pixels(&self.image), Need::column(&self.captions)];
        if self.facts {
            needs.extend(["claims", "facts"].map(Need::column));
        }
        needs
    }
}

/// A set of claims, a bit each.
type Claims = Vec<u64>;

/// Pictures with their captions. Pixels are held as bytes, captions once each however often they occur.
#[derive(Default)]
pub(super) struct Examples {
    ids: Vec<String>,
    images: Vec<Pixels>,
    /// For each row, its captions among `captions`.
    of_row: Vec<Vec<u32>>,
    /// Distinct captions with what they claim.
    captions: Vec<(String, Claims)>,
    /// For each row, what is not false of it; empty where nothing is known.
    facts: Vec<Claims>,
}

impl Examples {
    /// Reads all rows of a port.
    pub(super) fn read(context: &JobContext<'_>, port: &str, columns: &Columns) -> Result<Self, StageError> {
        let mut examples = Self::default();
        let mut names = Names::default();
        for batch in context.access.rows(port)?.scan(&columns.needs())? {
            context.base.check()?;
            examples.push(&batch?, columns, &mut names)?;
        }
        if examples.len() < 2 {
            return Err(StageError::new(format!(
                "{} rows on `{port}`: contrastive training needs two",
                examples.len()
            )));
        }
        Ok(examples)
    }

    fn push(&mut self, batch: &Batch, columns: &Columns, names: &mut Names) -> Result<(), StageError> {
        let captions = match columns.several {
            true => batch.texts(&columns.captions)?,
            false => {
                batch.text(&columns.captions)?.iter().map(|text| text.iter().map(|&t| t.to_owned()).collect()).collect()
            }
        };
        let claims = if columns.facts { Some((batch.texts("claims")?, batch.texts("facts")?)) } else { None };
        let ids = batch.ids()?;
        for (i, (image, texts)) in batch.images(&columns.image)?.into_iter().zip(captions).enumerate() {
            let id = ids.value(i).to_owned();
            let ImageRef::Pixels { height, width, channels, data } = image else {
                return Err(StageError::new(format!("row `{id}`: the picture was not decoded")));
            };
            if texts.is_empty() {
                return Err(StageError::new(format!("row `{id}` has no caption")));
            }
            let row = match &claims {
                Some((claims, facts)) => {
                    self.facts.push(names.set(facts[i].iter().map(String::as_str)));
                    if claims[i].len() != texts.len() {
                        let message = format!("row `{id}` has {} captions and {} claims", texts.len(), claims[i].len());
                        return Err(StageError::new(message));
                    }
                    let sets =
                        claims[i].iter().map(|claim| names.set(claim.split(';').filter(|name| !name.is_empty())));
                    texts.into_iter().zip(sets.collect::<Vec<_>>()).collect::<Vec<_>>()
                }
                None => texts.into_iter().map(|text| (text, Claims::new())).collect(),
            };
            let row = row.into_iter().map(|caption| self.intern(caption, names)).collect();
            self.of_row.push(row);
            self.images.push(Pixels { height, width, channels, data: data.to_vec() });
            self.ids.push(id);
        }
        Ok(())
    }

    fn intern(&mut self, caption: (String, Claims), names: &mut Names) -> u32 {
        let next = self.captions.len() as u32;
        *names.captions.entry(caption).or_insert_with_key(|caption| {
            self.captions.push(caption.clone());
            next
        })
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The pictures, each with one of its captions.
    pub(super) fn one_caption_each(self, seed: u64) -> Captioned {
        let chosen = self.of_row.iter().zip(&self.ids).map(|(captions, id)| {
            let chosen = Random::new(seed, "train/validation", id).below(captions.len());
            self.captions[captions[chosen] as usize].clone()
        });
        let (texts, claims) = chosen.unzip();
        Captioned { images: self.images, texts, claims, facts: self.facts }
    }

    /// The captions that the vocabulary is learned from: each once, however often it occurs, so that a thousand pictures
    /// with one sentence weigh no more than one.
    pub(super) fn distinct_captions(&self) -> impl Iterator<Item = String> + '_ {
        self.captions.iter().map(|(text, _)| text.clone())
    }
}

/// Pictures with a caption each.
pub(super) struct Captioned {
    pub(super) images: Vec<Pixels>,
    pub(super) texts: Vec<String>,
    claims: Vec<Claims>,
    facts: Vec<Claims>,
}

impl Captioned {
    /// Whether the caption of row `caption` is true of the picture of row `image`.
    pub(super) fn is_true(&self, caption: usize, image: usize) -> bool {
        let known = self.facts.get(image).zip(self.claims.get(caption));
        self.texts.get(caption) == self.texts.get(image) || known.is_some_and(|(facts, claims)| holds(claims, facts))
    }
}

/// Numbers for claims and captions while reading.
#[derive(Default)]
struct Names {
    claims: BTreeMap<String, usize>,
    captions: HashMap<(String, Claims), u32>,
}

impl Names {
    fn set<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> Claims {
        let mut set = Claims::new();
        for name in names {
            let next = self.claims.len();
            let bit = match self.claims.get(name) {
                Some(&bit) => bit,
                None => *self.claims.entry(name.to_owned()).or_insert(next),
            };
            if set.len() <= bit / 64 {
                set.resize(bit / 64 + 1, 0);
            }
            set[bit / 64] |= 1 << (bit % 64);
        }
        set
    }
}

/// Whether all of `claims` are among `facts`.
fn holds(claims: &[u64], facts: &[u64]) -> bool {
    claims.iter().enumerate().all(|(i, &word)| word & !facts.get(i).copied().unwrap_or(0) == 0)
}

/// A batch as the trainer takes it.
pub(super) struct Made {
    /// `[n, 3, size, size]`
    pub(super) pixels: Vec<f32>,
    /// Token ids of the n captions.
    pub(super) texts: Vec<Vec<u32>>,
    /// `[n, n]`, see the trainer's batch; `None` where nothing is known of claims.
    pub(super) true_pairs: Option<Vec<bool>>,
}

/// Makes batches of rows.
pub(super) struct Batches<'a> {
    examples: &'a Examples,
    preprocess: Preprocess,
    /// Token ids of each distinct caption.
    tokens: Vec<Vec<u32>>,
    augment: Augment,
    seed: u64,
    threads: usize,
}

impl<'a> Batches<'a> {
    /// Tokenizes every caption.
    pub(super) fn new(
        settings: &Settings,
        examples: &'a Examples,
        tokenizer: &ClipTokenizer,
        threads: usize,
    ) -> Result<Self, StageError> {
        let tokens = tokenize(tokenizer, examples)?;
        Ok(Self {
            examples,
            preprocess: settings.preprocess(),
            tokens,
            augment: settings.augment.into_augment(),
            seed: settings.seed,
            threads: threads.max(1),
        })
    }

    /// The batch of these rows in this epoch: which caption and how a picture is changed depend on seed, epoch and row
    /// alone.
    pub(super) fn make(&self, rows: &[usize], epoch: u64) -> Result<Made, StageError> {
        let chosen: Vec<u32> = rows
            .iter()
            .map(|&row| {
                let captions = &self.examples.of_row[row];
                let mut random = Random::new(self.seed, "train/caption", &self.draw(row, epoch));
                captions[random.below(captions.len())]
            })
            .collect();
        let texts = chosen.iter().map(|&caption| self.tokens[caption as usize].clone()).collect();
        let true_pairs = (!self.examples.facts.is_empty()).then(|| self.true_pairs(rows, &chosen));
        Ok(Made { pixels: self.pixels(rows, epoch)?, texts, true_pairs })
    }

    /// Names a row in an epoch, to draw for it.
    fn draw(&self, row: usize, epoch: u64) -> String {
        format!("{epoch}/{}", self.examples.ids[row])
    }

    fn pixels(&self, rows: &[usize], epoch: u64) -> Result<Vec<f32>, StageError> {
        let (height, width) = self.preprocess.size();
        let size = 3 * height * width;
        let mut pixels = vec![0.0; rows.len() * size];
        let share = rows.len().div_ceil(self.threads).max(1);
        thread::scope(|scope| {
            let parts = rows.chunks(share).zip(pixels.chunks_mut(share * size));
            let workers: Vec<_> = parts
                .map(|(rows, out)| {
                    scope.spawn(move || {
                        rows.iter()
                            .zip(out.chunks_exact_mut(size))
                            .try_for_each(|(&row, out)| self.picture(row, epoch, out))
                    })
                })
                .collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|_| Err(StageError::new("preparing a batch stopped unexpectedly")))
            })
        })?;
        Ok(pixels)
    }

    fn picture(&self, row: usize, epoch: u64, out: &mut [f32]) -> Result<(), StageError> {
        let image = &self.examples.images[row];
        let failed = |error| StageError::because(format!("row `{}`", self.examples.ids[row]), error);
        if self.augment.is_none() {
            return self.preprocess.apply_into(image.as_ref(), out).map_err(failed);
        }
        let mut random = Random::new(self.seed, "train/augment", &self.draw(row, epoch));
        let changed = self.augment.apply(image, &mut random);
        self.preprocess.apply_into(changed.as_ref(), out).map_err(failed)
    }

    /// Whether the caption of row j is true of the picture of row i.
    fn true_pairs(&self, rows: &[usize], chosen: &[u32]) -> Vec<bool> {
        let claims: Vec<_> = chosen.iter().map(|&caption| &self.examples.captions[caption as usize].1).collect();
        let mut pairs = Vec::with_capacity(rows.len() * rows.len());
        for (i, &row) in rows.iter().enumerate() {
            let facts = &self.examples.facts[row];
            pairs.extend(claims.iter().enumerate().map(|(j, claims)| i == j || holds(claims, facts)));
        }
        pairs
    }
}

/// The token ids of every distinct caption; one that does not fit is an error.
fn tokenize(tokenizer: &ClipTokenizer, examples: &Examples) -> Result<Vec<Vec<u32>>, StageError> {
    let uncut = tokenizer.clone().with_context(tokenizer.context() + 1);
    examples
        .captions
        .iter()
        .map(|(text, _)| {
            let tokens = uncut.encode(text).map_err(|error| StageError::because(format!("caption `{text}`"), error))?;
            if tokens.len() > tokenizer.context() {
                let context = tokenizer.context();
                return Err(StageError::new(format!(
                    "the caption `{text}` has more than {context} tokens; set a larger `context` or `vocabulary`"
                )));
            }
            Ok(tokens)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_is_true_where_every_claim_is_a_fact() {
        let mut names = Names::default();
        let many: Vec<_> = (0..70).map(|i| format!("c{i}")).collect();
        let all = names.set(many.iter().map(String::as_str));
        let some = names.set(["c3", "c69"].into_iter());
        let few = names.set(["c3"].into_iter());
        let none = names.set([].into_iter());
        assert!(holds(&some, &all) && holds(&few, &some) && holds(&none, &few) && holds(&none, &none));
        assert!(!holds(&all, &some) && !holds(&some, &few) && !holds(&few, &none));
    }
}
