//! WebDataset: samples in tar files, read in order without unpacking them.
//!
//! A plain tar on disk is walked through once when it is opened (headers only), and cut in shards of bounded size. A packed
//! one, and one in a bucket, is a shard as it is: how many samples it has is known when it was read, and estimated before.

mod columns;
mod index;
mod samples;
mod shards;

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use runner_contract::{Batch, Digest, KeyHasher, Schema, ShardInfo, Source, StageError, pick};

use super::{
    Dataset, class_rows,
    layout::{CHUNK_BYTES, CHUNK_ROWS},
    memory::Remembered,
    place::{Entry, Place},
};
use crate::DataError;
use columns::Wanted;
pub(super) use columns::{Columns, Labels};
use index::{Building, Indices, KEPT};
use samples::Samples;
use shards::{Archive, Count, Piece};

/// Samples in tar files, one file after the other.
pub(super) struct WebDataset {
    name: String,
    columns: Columns,
    archives: Vec<Archive>,
    pieces: Vec<Piece>,
    remembered: Remembered,
    indices: Indices,
    /// By piece: rows, where they were counted; and digests.
    counted: Mutex<Vec<Option<usize>>>,
    keys: Mutex<Vec<Option<Keys>>>,
}

/// Keys of a piece's ids and columns, for so many of its first rows.
#[derive(Clone)]
struct Keys {
    ids: Digest,
    columns: Vec<Digest>,
}

impl WebDataset {
    /// Opens tars, which were seen. What their samples have, the first one says.
    pub(super) fn open(
        name: &str,
        files: Vec<(Place, Entry)>,
        labels: Labels,
        remembered: Remembered,
        cache: &Path,
    ) -> Result<Self, DataError> {
        let indices = Indices(cache.join("index"));
        let archives: Vec<Archive> = files.into_iter().map(|(place, entry)| Archive::new(place, entry)).collect();
        let Some(first) = archives.first() else {
            return Err(DataError::Invalid(format!("dataset {name}: no tar file")));
        };
        // A tar that was read before says from memory what its samples have.
        let mut samples = match first.indexed(&indices, &remembered, &KEPT)? {
            Some(samples) => samples,
            None => first.samples(0, samples::ALL)?,
        };
        let Some(sample) = samples.next()? else {
            return Err(first.place.failed("no samples in it: expected members such as 0001.jpg and 0001.cls"));
        };
        let columns = Columns::of(&sample, labels).map_err(|message| samples.wrong(&sample, message))?;
        drop(samples);
        let pieces = shards::pieces(&archives, sample.size())?;
        let counted = pieces.iter().map(|piece| piece.rows.known()).collect();
        let keys = Mutex::new(vec![None; pieces.len()]);
        let counted = Mutex::new(counted);
        Ok(Self { name: name.to_owned(), columns, archives, pieces, remembered, indices, counted, keys })
    }

    /// The pieces that the first rows reach into, and how many rows of each.
    fn limited(&self, limit: Option<usize>) -> Result<Vec<(usize, Option<usize>)>, DataError> {
        let Some(mut left) = limit else { return Ok((0..self.pieces.len()).map(|piece| (piece, None)).collect()) };
        let mut taken = Vec::new();
        for piece in 0..self.pieces.len() {
            if left == 0 {
                break;
            }
            let rows = self.count(piece, left)?.min(left);
            left -= rows;
            taken.extend((rows > 0).then_some((piece, Some(rows))));
        }
        Ok(taken)
    }

    /// How many rows a piece has; where more than `enough` it may say any number from there on.
    fn count(&self, piece: usize, enough: usize) -> Result<usize, DataError> {
        let known = |all: &Mutex<Vec<Option<usize>>>| {
            all.lock().unwrap_or_else(PoisonError::into_inner).get(piece).copied().flatten()
        };
        if let Some(rows) = known(&self.counted) {
            return Ok(rows);
        }
        let at = &self.pieces[piece];
        let mut samples = self.samples(at, &[])?;
        let mut rows = 0;
        while samples.next()?.is_some() {
            rows += 1;
            if rows > enough {
                return Ok(rows);
            }
        }
        self.counted(piece, rows);
        Ok(rows)
    }

    fn counted(&self, piece: usize, rows: usize) {
        if let Some(place) = self.counted.lock().unwrap_or_else(PoisonError::into_inner).get_mut(piece) {
            *place = Some(rows);
        }
    }

    fn info(&self, piece: usize, limit: Option<usize>) -> Result<ShardInfo, DataError> {
        let at = &self.pieces[piece];
        let known = self.counted.lock().unwrap_or_else(PoisonError::into_inner).get(piece).copied().flatten();
        let rows = limit.unwrap_or_else(|| {
            known.unwrap_or(match at.rows {
                Count::Exactly(rows) | Count::About(rows) => rows,
            })
        });
        let whole = known == Some(rows) || limit.is_none();
        let keys = self.keys(piece)?;
        let cut = |key: &Digest| match whole {
            true => *key,
            false => {
                KeyHasher::new("first-rows/1").digest("of", key).part("rows", &(rows as u64).to_le_bytes()).finish()
            }
        };
        let columns = self.columns.schema.columns.iter().zip(&keys.columns);
        let columns = columns.map(|(column, key)| (column.name.clone(), cut(key))).collect();
        Ok(ShardInfo { rows, ids: cut(&keys.ids), columns })
    }

    fn keys(&self, piece: usize) -> Result<Keys, DataError> {
        if let Some(Some(keys)) = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(piece) {
            return Ok(keys.clone());
        }
        let at = &self.pieces[piece];
        let archive = &self.archives[at.archive];
        let digests = match archive.is_walked() {
            true => self.columns.keys_of_content(archive, at, &self.remembered)?,
            // What would have to be fetched or unpacked is keyed as it lies there.
            false => self.columns.keys_of_version(&archive.place.digest(&archive.entry, &self.remembered)?),
        };
        let ids = KeyHasher::new("ids/1").part("name", self.name.as_bytes()).digest("keys", &digests.keys).finish();
        let keys = Keys { ids, columns: digests.columns };
        if let Some(place) = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get_mut(piece) {
            *place = Some(keys.clone());
        }
        Ok(keys)
    }
}

impl WebDataset {
    /// The piece that a shard is, and how many rows of it where not all are meant.
    fn shard(&self, shard: usize, limit: Option<usize>) -> Result<(usize, Option<usize>), StageError> {
        let found = self.limited(limit)?.get(shard).copied();
        found.ok_or_else(|| StageError::new(format!("dataset {} has no shard {shard}", self.name)))
    }
}

impl Source for WebDataset {
    fn shards(&self, limit: Option<usize>) -> Result<Vec<ShardInfo>, StageError> {
        let taken = self.limited(limit)?;
        self.prepare_keys(&taken)?;
        taken.into_iter().map(|(piece, rows)| self.info(piece, rows).map_err(StageError::from)).collect()
    }

    fn read<'a>(
        &'a self,
        shard: usize,
        limit: Option<usize>,
        columns: &[String],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>, StageError> {
        let wanted = self.columns.wanted(&self.name, columns)?;
        let (piece, rows) = self.shard(shard, limit)?;
        let at = &self.pieces[piece];
        let samples = self.samples(at, &wanted.parts().collect::<Vec<_>>())?;
        let left = rows.or(at.rows.known());
        let index = (!self.archives[at.archive].is_walked() && !samples.is_of_index()).then(Building::default);
        let mut chunks =
            Chunks { dataset: self, piece, samples, wanted, pending: None, left, rows: 0, ended: false, index };
        Ok(Box::new(std::iter::from_fn(move || chunks.next().map_err(StageError::from).transpose())))
    }

    fn rows(
        &self,
        shard: usize,
        limit: Option<usize>,
        positions: &[u32],
        columns: &[String],
    ) -> Result<Batch, StageError> {
        let wanted = self.columns.wanted(&self.name, columns)?;
        let (piece, _) = self.shard(shard, limit)?;
        if let Some(rows) = self.some(piece, positions, &wanted)? {
            return Ok(rows);
        }
        let rows = pick(self.read(shard, limit, columns)?, positions).collect::<Result<Vec<_>, _>>()?;
        Ok(Batch::concat(&rows)?)
    }

    fn side(&self, port: &str) -> Result<(Digest, Batch), StageError> {
        class_rows(&self.name, self.classes(), port)
    }
}

impl WebDataset {
    /// The samples of a shard with these parts, from memory where that is enough.
    fn samples(&self, at: &Piece, wanted: &[samples::Part]) -> Result<Samples, DataError> {
        let archive = &self.archives[at.archive];
        if let Some(samples) = archive.indexed(&self.indices, &self.remembered, wanted)? {
            return Ok(samples);
        }
        // What is passed over anyway is kept for the next time.
        let kept: &[samples::Part] = if archive.is_walked() { &[] } else { &KEPT };
        archive.samples(at.start, wanted.iter().chain(kept).copied())
    }

    /// The samples at these places, if they can be read without those between them.
    fn some(&self, piece: usize, positions: &[u32], wanted: &Wanted) -> Result<Option<Batch>, DataError> {
        let at = &self.pieces[piece];
        let archive = &self.archives[at.archive];
        let index = archive.indexed(&self.indices, &self.remembered, &[])?;
        let mut samples = match index {
            _ if !archive.is_plain() => return Ok(None),
            Some(samples) => samples,
            None if archive.is_walked() => archive.samples(at.start, [])?,
            None => return Ok(None),
        };
        let known: &[samples::Part] = if samples.is_of_index() { &KEPT } else { &[] };
        let (mut rows, mut left) = (Vec::with_capacity(positions.len()), positions);
        for position in 0.. {
            let Some((&next, after)) = left.split_first() else { break };
            let ends = at.rows.known().is_some_and(|rows| position as usize >= rows);
            let Some(mut sample) = (if ends { None } else { samples.next()? }) else {
                return Err(archive.place.failed("it has fewer samples than when it was opened"));
            };
            if position != next {
                continue;
            }
            left = after;
            for (part, member, content) in &mut sample.parts {
                if wanted.parts().any(|wanted| wanted == *part) && !known.contains(part) {
                    *content = archive.content(*part, member)?;
                }
            }
            rows.push(sample);
        }
        self.columns.batch(&self.name, &rows, wanted, &samples).map(Some)
    }

    /// Digests what has to be digested, on all threads.
    fn prepare_keys(&self, taken: &[(usize, Option<usize>)]) -> Result<(), DataError> {
        use rayon::prelude::*;
        taken.par_iter().try_for_each(|(piece, _)| self.keys(*piece).map(drop))
    }
}

impl Dataset for WebDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> &Schema {
        &self.columns.schema
    }

    fn classes(&self) -> Option<&[String]> {
        self.columns.classes.as_deref()
    }

    fn len(&self) -> usize {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.pieces.iter().zip(counted.iter());
        all.map(|(piece, known)| known.unwrap_or(piece.rows.estimate())).sum()
    }

    fn is_counted(&self) -> bool {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).iter().all(Option::is_some)
    }
}

/// A piece's samples, in batches of bounded size.
struct Chunks<'a> {
    dataset: &'a WebDataset,
    piece: usize,
    samples: Samples,
    wanted: Wanted,
    /// The first sample of the next batch.
    pending: Option<samples::Sample>,
    /// Samples still to read, where the piece does not reach to its tar's end.
    left: Option<usize>,
    /// Samples read.
    rows: usize,
    ended: bool,
    /// What will be remembered of the tar, if it is read to its end.
    index: Option<Building>,
}

impl Chunks<'_> {
    fn next(&mut self) -> Result<Option<Batch>, DataError> {
        let (mut rows, mut bytes) = (Vec::new(), 0u64);
        while let Some(sample) = match self.pending.take() {
            Some(sample) => Some(sample),
            None => self.sample()?,
        } {
            if !rows.is_empty() && (rows.len() >= CHUNK_ROWS || bytes.saturating_add(sample.size()) > CHUNK_BYTES) {
                self.pending = Some(sample);
                break;
            }
            bytes = bytes.saturating_add(sample.size());
            rows.push(sample);
        }
        if rows.is_empty() {
            return Ok(None);
        }
        self.dataset.columns.batch(&self.dataset.name, &rows, &self.wanted, &self.samples).map(Some)
    }

    fn sample(&mut self) -> Result<Option<samples::Sample>, DataError> {
        if self.ended || self.left == Some(0) {
            return Ok(None);
        }
        let sample = self.samples.next()?;
        match &sample {
            Some(_) => {
                self.rows += 1;
                if let (Some(index), Some(sample)) = (&mut self.index, &sample) {
                    index.add(sample);
                }
                self.left = self.left.map(|left| left - 1);
            }
            None => {
                self.ended = true;
                if self.left.is_some_and(|left| left > 0) {
                    let archive = &self.dataset.archives[self.dataset.pieces[self.piece].archive];
                    return Err(archive.place.failed("it has fewer samples than when it was opened"));
                }
                self.dataset.counted(self.piece, self.rows);
                let archive = &self.dataset.archives[self.dataset.pieces[self.piece].archive];
                if let Some(samples) = self.index.take().and_then(Building::finish) {
                    let version = archive.place.digest(&archive.entry, &self.dataset.remembered)?;
                    self.dataset.indices.keep(&version, samples);
                }
            }
        }
        Ok(sample)
    }
}
