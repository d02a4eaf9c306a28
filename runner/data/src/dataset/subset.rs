//! Some rows of a dataset: the first ones, or a sample that a seed decides.
//!
//! A row is drawn by the digest of the seed and its own name, so that the same pictures are drawn from another layout of
//! the same dataset, and a larger sample holds the smaller one (unless it is stratified).

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, OnceLock},
};

use rayon::prelude::*;
use runner_contract::{Batch, Digest, KeyHasher, Schema, ShardInfo, Source, StageError, pick};

use super::{Dataset, LABEL};
use crate::DataError;

/// Which rows of a dataset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// How many.
    pub amount: Amount,
    /// How they are picked.
    pub pick: Pick,
    /// As many of each class as it has among all, as far as that is possible.
    pub stratified: bool,
}

/// How many rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many; all if there are fewer.
    Rows(usize),
    /// This share of all, from 0 to 1.
    Share(f64),
}

/// How rows are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The first ones.
    First,
    /// At random, by a seed.
    Random(u64),
}

/// Some rows of a dataset, in its order.
pub(super) struct Subset {
    all: Arc<dyn Dataset>,
    choice: Choice,
    /// Found when it is first needed: for that all names are read.
    chosen: OnceLock<Chosen>,
}

/// By shard of the dataset: positions of the rows that are chosen.
struct Chosen {
    shards: Vec<(usize, Vec<u32>)>,
    rows: usize,
}

/// What is known of a row.
struct Row {
    shard: usize,
    position: u32,
    label: i64,
    /// Whoever has the least is drawn first.
    draw: u64,
}

impl Subset {
    pub(super) fn new(all: Arc<dyn Dataset>, choice: Choice) -> Result<Self, DataError> {
        if choice.stratified && all.schema().get(LABEL).is_none() {
            return Err(DataError::Invalid(format!(
                "dataset {} has no labels: a sample of it cannot be stratified",
                all.name()
            )));
        }
        Ok(Self { all, choice, chosen: OnceLock::new() })
    }

    fn chosen(&self) -> Result<&Chosen, StageError> {
        if let Some(chosen) = self.chosen.get() {
            return Ok(chosen);
        }
        let chosen = self.choose()?;
        Ok(self.chosen.get_or_init(|| chosen))
    }

    fn choose(&self) -> Result<Chosen, StageError> {
        let columns: Vec<String> = self.choice.stratified.then(|| LABEL.to_owned()).into_iter().collect();
        let shards = self.all.shards(None)?.len();
        let names: Vec<Vec<(String, i64)>> = (0..shards)
            .into_par_iter()
            .map(|shard| {
                let mut rows = Vec::new();
                for batch in self.all.read(shard, None, &columns)? {
                    let batch = batch?;
                    let labels =
                        if self.choice.stratified { batch.integers(LABEL)?.to_vec() } else { vec![0; batch.len()] };
                    let below =
                        |id: &str| id.strip_prefix(self.all.name()).unwrap_or(id).trim_start_matches('/').to_owned();
                    rows.extend(batch.ids()?.iter().map(|id| below(id.unwrap_or_default())).zip(labels));
                }
                Ok(rows)
            })
            .collect::<Result<_, StageError>>()?;
        let seed = match self.choice.pick {
            Pick::First => None,
            Pick::Random(seed) => Some(seed),
        };
        // File names tell rows apart in whatever folders they lie, if they do.
        let mut seen = HashSet::new();
        let stems_differ =
            seed.is_none() || names.iter().flatten().all(|(name, _)| seen.insert(Digest::of(stem(name).as_bytes())));
        drop(seen);
        let mut rows: Vec<Row> = Vec::new();
        for (shard, names) in names.iter().enumerate() {
            for ((name, label), position) in names.iter().zip(0..) {
                let draw = match seed {
                    None => rows.len() as u64,
                    Some(seed) => draw(seed, if stems_differ { stem(name) } else { name }),
                };
                rows.push(Row { shard, position, label: *label, draw });
            }
        }
        let wanted = match self.choice.amount {
            Amount::Rows(wanted) => wanted.min(rows.len()),
            Amount::Share(share) => (rows.len() as f64 * share.clamp(0.0, 1.0)).round() as usize,
        };
        let total = rows.len();
        let mut classes: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
        for row in rows {
            classes.entry(row.label).or_default().push(row);
        }
        let sizes: Vec<usize> = classes.values().map(Vec::len).collect();
        let mut shards: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for (mut class, quota) in classes.into_values().zip(quotas(&sizes, wanted, total)) {
            class.sort_by_key(|row| (row.draw, row.shard, row.position));
            for row in class.into_iter().take(quota) {
                shards.entry(row.shard).or_default().push(row.position);
            }
        }
        shards.values_mut().for_each(|positions| positions.sort_unstable());
        Ok(Chosen { rows: wanted, shards: shards.into_iter().collect() })
    }

    /// The shards that the first rows reach into: of the dataset, and positions in it.
    fn limited(&self, limit: Option<usize>) -> Result<Vec<(usize, &[u32])>, StageError> {
        let mut left = limit.unwrap_or(usize::MAX);
        let all = self.chosen()?.shards.iter().map(move |(shard, positions)| {
            let taken = positions.len().min(left);
            left -= taken;
            (*shard, &positions[..taken])
        });
        Ok(all.filter(|(_, positions)| !positions.is_empty()).collect())
    }
}

/// How many of each class, so that they are `wanted` together: the parts left over go to the largest remainders.
fn quotas(sizes: &[usize], wanted: usize, total: usize) -> Vec<usize> {
    let exact = |size: usize| (size as u128 * wanted as u128, total.max(1) as u128);
    let mut quotas: Vec<usize> = sizes.iter().map(|&size| (exact(size).0 / exact(size).1) as usize).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(exact(sizes[class]).0 % exact(sizes[class]).1));
    let missing = wanted.saturating_sub(quotas.iter().sum());
    for &class in order.iter().take(missing) {
        quotas[class] += 1;
    }
    quotas
}

/// The file's name without folders and extensions.
fn stem(name: &str) -> &str {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.split('.').next().filter(|stem| !stem.is_empty()).unwrap_or(file)
}

fn draw(seed: u64, name: &str) -> u64 {
    let digest = KeyHasher::new("subset/1").part("seed", &seed.to_le_bytes()).part("name", name.as_bytes()).finish();
    digest.as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Source for Subset {
    fn shards(&self, limit: Option<usize>) -> Result<Vec<ShardInfo>, StageError> {
        let all = self.all.shards(None)?;
        let mut infos = Vec::new();
        for (shard, positions) in self.limited(limit)? {
            let Some(of) = all.get(shard) else {
                return Err(StageError::new("a dataset lost a shard while it was read"));
            };
            let rows: Vec<u8> = positions.iter().flat_map(|position| position.to_le_bytes()).collect();
            let key = |digest: &Digest| KeyHasher::new("some-rows/1").digest("of", digest).part("rows", &rows).finish();
            let columns = of.columns.iter().map(|(name, digest)| (name.clone(), key(digest))).collect();
            infos.push(ShardInfo { rows: positions.len(), ids: key(&of.ids), columns });
        }
        Ok(infos)
    }

    fn read<'a>(
        &'a self,
        shard: usize,
        limit: Option<usize>,
        columns: &[String],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>, StageError> {
        let Some(&(of, positions)) = self.limited(limit)?.get(shard) else {
            return Err(StageError::new(format!("a sample of {} has no shard {shard}", self.all.name())));
        };
        Ok(Box::new(pick(self.all.read(of, None, columns)?, positions)))
    }

    fn rows(
        &self,
        shard: usize,
        limit: Option<usize>,
        positions: &[u32],
        columns: &[String],
    ) -> Result<Batch, StageError> {
        let Some(&(of, chosen)) = self.limited(limit)?.get(shard) else {
            return Err(StageError::new(format!("a sample of {} has no shard {shard}", self.all.name())));
        };
        let below: Option<Vec<u32>> =
            positions.iter().map(|&position| chosen.get(position as usize).copied()).collect();
        let below = below.ok_or_else(|| StageError::new(format!("a sample of {} has no such row", self.all.name())))?;
        self.all.rows(of, None, &below, columns)
    }

    fn side(&self, port: &str) -> Result<(Digest, Batch), StageError> {
        self.all.side(port)
    }
}

impl Dataset for Subset {
    fn name(&self) -> &str {
        self.all.name()
    }

    fn schema(&self) -> &Schema {
        self.all.schema()
    }

    fn classes(&self) -> Option<&[String]> {
        self.all.classes()
    }

    fn len(&self) -> usize {
        self.chosen().map_or(0, |chosen| chosen.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_add_up() {
        assert_eq!(quotas(&[50, 30, 20], 10, 100), [5, 3, 2]);
        assert_eq!(quotas(&[1, 1, 1], 2, 3), [1, 1, 0]);
        assert_eq!(quotas(&[7, 2], 9, 9), [7, 2]);
        assert_eq!(quotas(&[], 0, 0), [0usize; 0]);
    }

    #[test]
    fn names_are_those_of_files() {
        assert_eq!(stem("n01/ILSVRC2012_val_00000001.JPEG"), "ILSVRC2012_val_00000001");
        assert_eq!((stem("00042"), stem("a/.x")), ("00042", ".x"));
    }
}
