//! Several datasets one after the other.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use runner_contract::{Batch, ColumnData, Digest, KeyHasher, Schema, ShardInfo, Source, StageError};

use super::{Dataset, LABEL, class_rows};
use crate::DataError;

/// The rows of all parts, in order; a part that stands there twice is read twice, under other ids.
pub(super) struct Concat {
    name: String,
    parts: Vec<Part>,
    classes: Option<Vec<String>>,
}

struct Part {
    rows: Arc<dyn Dataset>,
    /// What its ids get in front, where another part has the same name: `2:`.
    prefix: Option<String>,
    /// The label of each of its classes in the whole, where they differ.
    labels: Option<Vec<i64>>,
}

impl Concat {
    /// Joins datasets of the same columns. Classes are joined by name, in the order in which they first stand.
    pub(super) fn new(datasets: Vec<Arc<dyn Dataset>>) -> Result<Self, DataError> {
        let Some(first) = datasets.first() else {
            return Err(DataError::Invalid("no dataset named: expected a reference such as mnist:test".into()));
        };
        for other in &datasets {
            let columns = |dataset: &dyn Dataset| {
                let mut columns = dataset.schema().columns.clone();
                columns.sort_by(|a, b| a.name.cmp(&b.name));
                columns
            };
            if columns(other.as_ref()) != columns(first.as_ref()) {
                let (a, b) = (first.schema().names(), other.schema().names());
                let (first, other) = (first.name(), other.name());
                return Err(DataError::Invalid(format!(
                    "cannot join datasets of other columns or types: {first} has {a}, {other} has {b}"
                )));
            }
        }
        let mut classes: Vec<String> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        // Of one list of classes, two may share a name (ImageNet's do) and stay two.
        let same = datasets.iter().all(|dataset| dataset.classes() == first.classes());
        let lists = datasets.iter().take(if same { 1 } else { datasets.len() });
        for class in lists.filter_map(|dataset| dataset.classes()).flatten() {
            if seen.insert(class.clone()) || same {
                classes.push(class.clone());
            }
        }
        let labels: HashMap<&str, i64> = classes.iter().map(String::as_str).zip(0..).collect();
        let mut counts: HashMap<String, usize> = HashMap::new();
        let name = datasets.iter().map(|dataset| dataset.name()).collect::<Vec<_>>().join("+");
        let labelled = first.classes().is_some();
        let mut parts = Vec::with_capacity(datasets.len());
        for rows in &datasets {
            let count = counts.entry(rows.name().to_owned()).or_default();
            *count += 1;
            let map = rows.classes().map(|names| names.iter().filter_map(|name| labels.get(name.as_str()).copied()));
            let map = map
                .filter(|_| !same)
                .map(Iterator::collect)
                .filter(|map: &Vec<i64>| !map.iter().copied().eq(0..map.len() as i64));
            let prefix = (*count > 1).then(|| format!("{count}:"));
            parts.push(Part { rows: rows.clone(), prefix, labels: map });
        }
        Ok(Self { name, parts, classes: labelled.then_some(classes) })
    }

    /// Each part with what the limit leaves of it.
    fn limited(&self, limit: Option<usize>) -> impl Iterator<Item = (&Part, usize)> {
        let mut left = limit.unwrap_or(usize::MAX);
        self.parts.iter().filter_map(move |part| {
            let taken = part.rows.len().min(left);
            left -= taken;
            (taken > 0).then_some((part, taken))
        })
    }
}

impl Concat {
    /// The part that a shard is of, how many of its rows there are, and which one of its shards it is.
    fn part(&self, shard: usize, limit: Option<usize>) -> Result<(&Part, usize, usize), StageError> {
        let mut shard = shard;
        for (part, taken) in self.limited(limit) {
            let shards = part.rows.shards(Some(taken))?.len();
            if shard < shards {
                return Ok((part, taken, shard));
            }
            shard -= shards;
        }
        Err(StageError::new(format!("dataset {} has no shard {shard} more", self.name)))
    }
}

impl Part {
    fn rename(&self, info: ShardInfo) -> ShardInfo {
        let mut info = info;
        if let Some(prefix) = &self.prefix {
            info.ids =
                KeyHasher::new("renamed-ids/1").part("prefix", prefix.as_bytes()).digest("ids", &info.ids).finish();
        }
        if let (Some(map), Some(key)) = (&self.labels, info.columns.get_mut(LABEL)) {
            let map: Vec<u8> = map.iter().flat_map(|label| label.to_le_bytes()).collect();
            *key = KeyHasher::new("mapped-labels/1").part("map", &map).digest("labels", key).finish();
        }
        info
    }

    fn adapt(&self, batch: Batch) -> Result<Batch, StageError> {
        let mut adapted = match &self.prefix {
            None => batch,
            Some(prefix) => {
                let ids = batch.ids()?.iter().map(|id| format!("{prefix}{}", id.unwrap_or_default())).collect();
                let (records, mut renamed) = (batch.records().clone(), Batch::new(ids));
                for (field, array) in records.schema().fields().iter().zip(records.columns()).skip(1) {
                    renamed = renamed.with_array(field.as_ref().clone(), array.clone())?;
                }
                renamed
            }
        };
        if let Some(map) = self.labels.as_ref().filter(|_| adapted.has(LABEL)) {
            let label = |&label: &i64| usize::try_from(label).ok().and_then(|label| map.get(label).copied());
            let labels: Option<Vec<i64>> = adapted.integers(LABEL)?.iter().map(label).collect();
            let labels =
                labels.ok_or_else(|| StageError::new(format!("{}: a label without a class", self.rows.name())))?;
            adapted = adapted.with(LABEL, ColumnData::Labels(labels))?;
        }
        Ok(adapted)
    }
}

impl Source for Concat {
    fn shards(&self, limit: Option<usize>) -> Result<Vec<ShardInfo>, StageError> {
        let mut all = Vec::new();
        for (part, taken) in self.limited(limit) {
            all.extend(part.rows.shards(Some(taken))?.into_iter().map(|info| part.rename(info)));
        }
        Ok(all)
    }

    fn read<'a>(
        &'a self,
        shard: usize,
        limit: Option<usize>,
        columns: &[String],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>, StageError> {
        let (part, taken, shard) = self.part(shard, limit)?;
        let chunks = part.rows.read(shard, Some(taken), columns)?;
        Ok(Box::new(chunks.map(|batch| part.adapt(batch?))))
    }

    fn rows(
        &self,
        shard: usize,
        limit: Option<usize>,
        positions: &[u32],
        columns: &[String],
    ) -> Result<Batch, StageError> {
        let (part, taken, shard) = self.part(shard, limit)?;
        part.adapt(part.rows.rows(shard, Some(taken), positions, columns)?)
    }

    fn side(&self, port: &str) -> Result<(Digest, Batch), StageError> {
        class_rows(&self.name, self.classes.as_deref(), port)
    }
}

impl Dataset for Concat {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> &Schema {
        // There is a first part: `new` saw to it.
        static EMPTY: Schema = Schema { columns: Vec::new() };
        self.parts.first().map_or(&EMPTY, |part| part.rows.schema())
    }

    fn classes(&self) -> Option<&[String]> {
        self.classes.as_deref()
    }

    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.rows.len()).sum()
    }
}
