//! Datasets: rows with ids in shards, read in chunks, each keyed by what it holds.
//!
//! A reader implements [`Table`]; [`Sharded`] makes a [`Dataset`] of it: limits, chunks, remembered keys and the `classes` port.
//! A new kind of dataset is one file here and one line in `catalog`.

mod brace;
mod catalog;
mod cifar;
mod concat;
mod folder;
mod hf;
mod idx;
mod imagenet;
mod layout;
mod memory;
mod mnist;
mod objects;
mod place;
mod recognise;
mod subset;
mod table;
mod tar;
mod webdataset;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Digest, KeyHasher, Schema, ShardInfo, Source, StageError,
};

pub use catalog::{Catalog, Known, OpenOptions};
pub use idx::{Idx, read_idx};
pub(crate) use idx::{gunzip, is_gzip};
pub use imagenet::{imagenet_classes, imagenet_synsets, imagenet_templates};
use layout::Layout;
pub use memory::{FileStamp, Memory};
pub use objects::{Children, Object, Objects};
pub use subset::{Amount, Choice, Pick};

use crate::DataError;

/// The image column of a dataset.
pub const IMAGE: &str = "image";
/// The label column of a dataset.
pub const LABEL: &str = "label";

/// Rows to read, with what is known before reading them.
pub trait Dataset: Source {
    /// What its row ids start with: `mnist/test`.
    fn name(&self) -> &str;
    /// Its columns.
    fn schema(&self) -> &Schema;
    /// The name of each class, by label, where rows have labels.
    fn classes(&self) -> Option<&[String]>;
    /// Number of rows; an estimate until they were counted (see [`Dataset::is_counted`]).
    fn len(&self) -> usize;
    /// Whether all rows were counted: those of packed tars, and of tars in a bucket, are when they were read.
    fn is_counted(&self) -> bool {
        true
    }
    /// No rows; datasets that can be opened have some.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Some rows of a dataset, in its order.
pub fn subset(dataset: Arc<dyn Dataset>, choice: Choice) -> Result<Arc<dyn Dataset>, DataError> {
    Ok(Arc::new(subset::Subset::new(dataset, choice)?))
}

/// The columns of a dataset's `classes` port: `label` and `name`.
pub fn classes_schema() -> Schema {
    Schema::new([Column::new(LABEL, ColumnType::Label), Column::new("name", ColumnType::Text)])
}

/// The rows of a `classes` port, with the key of their content.
fn class_rows(dataset: &str, classes: Option<&[String]>, port: &str) -> Result<(Digest, Batch), StageError> {
    if port != "classes" {
        return Err(StageError::new(format!("a dataset has no output `{port}`: it has `rows` and `classes`")));
    }
    let Some(classes) = classes else {
        return Err(StageError::new(format!("dataset {dataset} has no labels, so no classes")));
    };
    let mut key = KeyHasher::new("classes/1");
    for name in classes {
        key = key.part("name", name.as_bytes());
    }
    let labels: Vec<i64> = (0i64..).take(classes.len()).collect();
    let batch = Batch::new(labels.iter().map(i64::to_string).collect())
        .with(LABEL, ColumnData::Labels(labels))?
        .with("name", ColumnData::Text(classes.to_vec()))?;
    Ok((key.finish(), batch))
}

/// What a dataset says of itself, see [`Dataset`].
struct About {
    name: String,
    schema: Schema,
    classes: Option<Vec<String>>,
    /// Where shards and chunks end; the last end is the number of rows.
    layout: Layout,
}

/// A reader of rows by number.
trait Table: Send + Sync {
    fn about(&self) -> &About;
    /// These rows, with the columns for which `wanted` holds.
    fn batch(&self, rows: Range<usize>, wanted: &dyn Fn(&str) -> bool) -> Result<Batch, DataError>;
    /// Keys of these rows' ids and of each column.
    fn keys(&self, rows: Range<usize>) -> Result<(Digest, BTreeMap<String, Digest>), DataError>;
}

/// A dataset over a table.
struct Sharded<T> {
    table: T,
    /// Keys by rows, so that a content is hashed once.
    keys: Mutex<HashMap<Range<usize>, ShardInfo>>,
}

impl<T: Table> Sharded<T> {
    fn new(table: T) -> Self {
        Self { table, keys: Mutex::default() }
    }

    fn info(&self, rows: Range<usize>) -> Result<ShardInfo, DataError> {
        if let Some(info) = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&rows) {
            return Ok(info.clone());
        }
        let (ids, columns) = self.table.keys(rows.clone())?;
        let info = ShardInfo { rows: rows.len(), ids, columns };
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(rows, info.clone());
        Ok(info)
    }

    /// The rows of a shard, if there is one, and these columns.
    fn shard(&self, shard: usize, limit: Option<usize>, columns: &[String]) -> Result<Range<usize>, StageError> {
        let About { name, schema, layout, .. } = self.table.about();
        if let Some(unknown) = columns.iter().find(|name| schema.get(name).is_none()) {
            let have = schema.names();
            return Err(StageError::new(format!("dataset {name} has no column `{unknown}`: it has {have}")));
        }
        let rows = layout.shards(limit).nth(shard);
        rows.ok_or_else(|| StageError::new(format!("dataset {name} has no shard {shard}")))
    }
}

impl<T: Table> Source for Sharded<T> {
    fn shards(&self, limit: Option<usize>) -> Result<Vec<ShardInfo>, StageError> {
        let shards = self.table.about().layout.shards(limit);
        shards.map(|rows| self.info(rows).map_err(StageError::from)).collect()
    }

    fn read<'a>(
        &'a self,
        shard: usize,
        limit: Option<usize>,
        columns: &[String],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>, StageError> {
        let rows = self.shard(shard, limit, columns)?;
        let columns = columns.to_vec();
        let chunks = self.table.about().layout.chunks(rows);
        Ok(Box::new(chunks.map(move |rows| {
            let wanted = |name: &str| columns.iter().any(|column| column == name);
            self.table.batch(rows, &wanted).map_err(StageError::from)
        })))
    }

    fn rows(
        &self,
        shard: usize,
        limit: Option<usize>,
        positions: &[u32],
        columns: &[String],
    ) -> Result<Batch, StageError> {
        let rows = self.shard(shard, limit, columns)?;
        let wanted = |name: &str| columns.iter().any(|column| column == name);
        // What lies side by side is read together.
        let runs = positions.chunk_by(|a, b| a + 1 == *b).map(|run| {
            let start = rows.start + run[0] as usize;
            let run = start..start + run.len();
            if run.end > rows.end {
                let about = self.table.about();
                return Err(StageError::new(format!("dataset {} has no row {} in shard {shard}", about.name, run.end)));
            }
            Ok(self.table.batch(run, &wanted)?)
        });
        Ok(Batch::concat(&runs.collect::<Result<Vec<_>, StageError>>()?)?)
    }

    fn side(&self, port: &str) -> Result<(Digest, Batch), StageError> {
        let about = self.table.about();
        class_rows(&about.name, about.classes.as_deref(), port)
    }
}

impl<T: Table> Dataset for Sharded<T> {
    fn name(&self) -> &str {
        &self.table.about().name
    }

    fn schema(&self) -> &Schema {
        &self.table.about().schema
    }

    fn classes(&self) -> Option<&[String]> {
        self.table.about().classes.as_deref()
    }

    fn len(&self) -> usize {
        self.table.about().layout.len()
    }
}

/// A failure to build a batch from columns of one length.
fn batch_error(error: impl std::fmt::Display) -> DataError {
    DataError::Invalid(format!("cannot build rows: {error}"))
}

/// `mnist/test/00042`
fn numbered(name: &str, row: usize) -> String {
    format!("{name}/{row:05}")
}

/// The key of ids that follow from a name and row numbers.
fn numbered_key(name: &str, rows: &Range<usize>) -> Digest {
    let bound = |row: usize| (row as u64).to_le_bytes();
    KeyHasher::new("numbered-ids/1")
        .part("name", name.as_bytes())
        .part("start", &bound(rows.start))
        .part("end", &bound(rows.end))
        .finish()
}
