//! What samples have, as columns: `image`, `label` (from `cls`), `text` and `captions` (from `txt`), `json`.

use std::sync::Arc;

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Digest, ImageForm, ImageRef, ImagesBuilder, KeyHasher, Schema, StageError,
};

use super::{
    super::{IMAGE, LABEL, batch_error, imagenet::Truth, memory::Remembered},
    samples::{Part, Sample, Samples},
    shards::{Archive, Piece},
};
use crate::DataError;

/// The text of a sample, as it is.
const TEXT: &str = "text";
/// Its lines: several captions of one picture.
const CAPTIONS: &str = "captions";
const JSON: &str = "json";

/// What is remembered of a tar. Raised when keys are made in another way.
const KEYS: &str = "webdataset/1";

/// Where labels come from, and what they are called.
#[derive(Clone, Default)]
pub(in super::super) struct Labels {
    /// The name of each class, where somebody says.
    pub(in super::super) classes: Option<Vec<String>>,
    /// ImageNet's ground truth, for samples that are called as its validation pictures are.
    pub(in super::super) truth: Option<Arc<Truth>>,
}

/// The columns of a dataset.
pub(in super::super) struct Columns {
    pub(super) schema: Schema,
    pub(super) classes: Option<Vec<String>>,
    truth: Option<Arc<Truth>>,
}

/// Keys of a shard's columns, in the order of the schema.
pub(super) struct Digests {
    /// Of its samples' names.
    pub(super) keys: Digest,
    pub(super) columns: Vec<Digest>,
}

/// Columns that somebody reads.
pub(super) struct Wanted(Vec<String>);

impl Wanted {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|wanted| wanted == name)
    }

    /// The members to read for them.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> {
        self.0.iter().filter_map(|name| part(name))
    }
}

/// The member that a column is made of.
fn part(column: &str) -> Option<Part> {
    match column {
        IMAGE => Some(Part::Image),
        LABEL => Some(Part::Class),
        TEXT | CAPTIONS => Some(Part::Text),
        JSON => Some(Part::Json),
        _ => None,
    }
}

impl Columns {
    /// The columns of samples such as this one.
    pub(super) fn of(sample: &Sample, labels: Labels) -> Result<Self, String> {
        let has = |part| sample.get(part).is_some();
        let labelled = labels.truth.is_some() || has(Part::Class);
        let all = [
            (IMAGE, ColumnType::Image, has(Part::Image)),
            (LABEL, ColumnType::Label, labelled),
            (TEXT, ColumnType::Text, has(Part::Text)),
            (CAPTIONS, ColumnType::Texts, has(Part::Text)),
            (JSON, ColumnType::Text, has(Part::Json)),
        ];
        let there = all.into_iter().filter(|(_, _, there)| *there);
        let schema = Schema::new(there.map(|(name, kind, _)| Column::new(name, kind)));
        let columns = Self { schema, classes: labels.classes.filter(|_| labelled), truth: labels.truth };
        if labelled {
            columns.label(sample)?;
        }
        Ok(columns)
    }

    pub(super) fn wanted(&self, dataset: &str, columns: &[String]) -> Result<Wanted, StageError> {
        match columns.iter().find(|name| self.schema.get(name).is_none()) {
            Some(unknown) => {
                let have = self.schema.names();
                Err(StageError::new(format!("dataset {dataset} has no column `{unknown}`: it has {have}")))
            }
            None => Ok(Wanted(columns.to_vec())),
        }
    }

    /// A sample's label, from where this dataset has them.
    fn label(&self, sample: &Sample) -> Result<i64, String> {
        if let Some(truth) = &self.truth {
            return truth.of(&sample.key).map(|label| label as i64);
        }
        let (member, content) = sample.get(Part::Class).ok_or_else(|| missing(Part::Class))?;
        let text = std::str::from_utf8(content).unwrap_or_default().trim();
        let label = text.parse::<i64>().ok().filter(|label| *label >= 0);
        let label = label.ok_or_else(|| format!("`{}` holds {text:?}, expected a class number from 0", member.name))?;
        match &self.classes {
            Some(classes) if label as u64 >= classes.len() as u64 => {
                Err(format!("`{}` holds {label}, but there are {} classes", member.name, classes.len()))
            }
            _ => Ok(label),
        }
    }

    /// Samples as rows.
    pub(super) fn batch(
        &self,
        dataset: &str,
        rows: &[Sample],
        wanted: &Wanted,
        samples: &Samples,
    ) -> Result<Batch, DataError> {
        let mut batch = Batch::new(rows.iter().map(|sample| format!("{dataset}/{}", sample.key)).collect());
        for column in self.schema.columns.iter().filter(|column| wanted.has(&column.name)) {
            let data = self.column(&column.name, rows, samples)?;
            batch = batch.with(&column.name, data).map_err(batch_error)?;
        }
        Ok(batch)
    }

    fn column(&self, name: &str, rows: &[Sample], samples: &Samples) -> Result<ColumnData, DataError> {
        let failed = |sample: &Sample, message: String| samples.wrong(sample, message);
        let content = |sample: &Sample, part| -> Result<Vec<u8>, DataError> {
            let found = sample.get(part).map(|(_, content)| content.to_vec());
            found.ok_or_else(|| failed(sample, missing(part)))
        };
        let text = |sample: &Sample, part: Part| -> Result<String, DataError> {
            let text = String::from_utf8(content(sample, part)?);
            text.map_err(|_| failed(sample, format!("its {} is not UTF-8", part.name())))
        };
        Ok(match name {
            IMAGE => {
                let mut images = ImagesBuilder::new(ImageForm::Encoded);
                for sample in rows {
                    let image = sample.get(Part::Image).ok_or_else(|| failed(sample, missing(Part::Image)))?;
                    let (member, bytes) = image;
                    images.push(ImageRef::Encoded { bytes, path: &member.name }).map_err(batch_error)?;
                }
                ColumnData::Images(images)
            }
            LABEL => {
                let label = |sample| self.label(sample).map_err(|message| failed(sample, message));
                ColumnData::Labels(rows.iter().map(label).collect::<Result<_, _>>()?)
            }
            TEXT => {
                let line = |sample| Ok(text(sample, Part::Text)?.trim().to_owned());
                ColumnData::Text(rows.iter().map(line).collect::<Result<_, DataError>>()?)
            }
            CAPTIONS => {
                let lines = |sample| {
                    let text = text(sample, Part::Text)?;
                    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
                };
                ColumnData::Texts(rows.iter().map(lines).collect::<Result<_, DataError>>()?)
            }
            _ => ColumnData::Text(rows.iter().map(|sample| text(sample, Part::Json)).collect::<Result<_, _>>()?),
        })
    }

    /// Keys of an object's samples, from what tells its content from another's.
    pub(super) fn keys_of_version(&self, version: &Digest) -> Digests {
        let key = |column: &Column| {
            let key = KeyHasher::new("webdataset-object/1").digest("version", version);
            self.with_truth(key.part("column", column.name.as_bytes()), &column.name)
        };
        Digests { keys: *version, columns: self.schema.columns.iter().map(key).collect() }
    }

    fn with_truth(&self, key: KeyHasher, column: &str) -> Digest {
        match self.truth.as_ref().filter(|_| column == LABEL) {
            Some(truth) => key.digest("truth", &truth.digest).finish(),
            None => key.finish(),
        }
    }

    /// Keys of a shard's samples, from their content.
    pub(super) fn keys_of_content(
        &self,
        archive: &Archive,
        piece: &Piece,
        remembered: &Remembered,
    ) -> Result<Digests, DataError> {
        let truth = self.truth.as_ref().map(|truth| truth.digest.to_string()).unwrap_or_default();
        let part = |name: &str| {
            let of = if name == LABEL { truth.as_str() } else { "" };
            format!("{KEYS} {}/{:?} {name} {of}", piece.number, piece.rows)
        };
        let columns = self.schema.columns.iter().map(|column| column.name.as_str());
        let parts: Vec<String> = std::iter::once("keys").chain(columns).map(part).collect();
        let stamp = archive.place.stamp(&archive.entry);
        let known = stamp.as_ref().and_then(|stamp| remembered.parts(stamp, &parts));
        let mut digests = match known {
            Some(known) => known,
            None => {
                let digests = self.read_keys(archive, piece)?;
                if let (Some(stamp), super::Place::Disk(path)) = (&stamp, &archive.place) {
                    remembered.keep(stamp, path, parts.into_iter().zip(digests.iter().copied()));
                }
                digests
            }
        };
        let keys = digests.remove(0);
        Ok(Digests { keys, columns: digests })
    }

    /// The key of the samples' names, then that of each column.
    fn read_keys(&self, archive: &Archive, piece: &Piece) -> Result<Vec<Digest>, DataError> {
        let parts = self.schema.columns.iter().filter_map(|column| part(&column.name));
        let mut samples = archive.samples(piece.start, parts)?;
        let mut names = KeyHasher::new("names/1");
        let fresh = |column: &Column| KeyHasher::new("members/1").part("column", column.name.as_bytes());
        let mut keys: Vec<KeyHasher> = self.schema.columns.iter().map(fresh).collect();
        let mut left = piece.rows.known();
        while left != Some(0)
            && let Some(sample) = samples.next()?
        {
            left = left.map(|left| left - 1);
            names = names.part("key", sample.key.as_bytes());
            let mut more = Vec::with_capacity(keys.len());
            for (key, column) in keys.into_iter().zip(&self.schema.columns) {
                more.push(match column.name.as_str() {
                    LABEL => {
                        let label = self.label(&sample).map_err(|message| samples.wrong(&sample, message))?;
                        key.part("label", &label.to_le_bytes())
                    }
                    name => {
                        let content = part(name).and_then(|part| sample.get(part)).map(|(_, content)| content);
                        key.digest("file", &Digest::of(content.unwrap_or_default()))
                    }
                });
            }
            keys = more;
        }
        Ok(std::iter::once(names.finish()).chain(keys.into_iter().map(KeyHasher::finish)).collect())
    }
}

fn missing(part: Part) -> String {
    format!("it has no {}, which the first sample has", part.name())
}
