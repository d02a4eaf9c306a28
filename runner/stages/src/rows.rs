//! `rows`: a source of rows that stand in the pipeline itself, and what tests put in place of another source.

use std::{collections::BTreeMap, path::PathBuf};

use runner_contract::{
    Batch, Column, ColumnData, ColumnType, Digest, ImageForm, ImageRef, ImagesBuilder, Input, KeyHasher, KindInfo,
    Problem, Shape, ShardInfo, Source, Stage, StageError,
};
use runner_data::classes_schema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Binding, Defined, Definition, Services, definition::output};

mod table;

use table::Table;

/// Rows a chunk.
const CHUNK: usize = 64;

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The rows, each a mapping from columns to values. `id` is the row's name; without it that is its place in the
    /// list. All rows have the same columns.
    rows: Vec<Map<String, Value>>,
    /// What columns hold, where that is not what their values look like. `image` holds paths of pictures and `label`
    /// classes without being said.
    #[serde(default)]
    columns: BTreeMap<String, Holds>,
    /// The names of the classes, in the order of their labels. With them labels may be names, and there is an output
    /// `classes`.
    #[serde(default)]
    classes: Option<Vec<String>>,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Holds {
    /// The path of a picture.
    Image,
    /// Text.
    Text,
    /// A list of texts.
    Texts,
    /// A class: its number from 0, or its name.
    Label,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list of numbers, of one length, in a space of their own.
    Embedding,
    /// A list of numbers: one score a candidate.
    Scores,
}

struct Inline {
    folder: PathBuf,
}

pub(crate) fn kind(services: &Services) -> Defined<impl Definition> {
    Defined::new(Inline { folder: services.folder.clone() })
}

impl Definition for Inline {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "rows",
            version: 1,
            summary: "the rows given here",
            shape: Shape::Source,
            inputs: &[],
            outputs: const { &[output("rows", "the rows"), output("classes", "one row a class, if `classes` is set")] },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        match Table::read(settings) {
            Ok(table) => {
                for (row, path) in table.pictures() {
                    if !self.folder.join(path).is_file() {
                        let (row, column) = row;
                        let path_of = vec!["with".into(), "rows".into(), row.to_string(), column.to_owned()];
                        let message = format!("there is no file `{path}`");
                        binding.problem(Problem { path: path_of, message, hint: None });
                    }
                }
                binding.gives("rows", table.columns());
            }
            Err(problems) => problems.into_iter().for_each(|problem| binding.problem(problem)),
        }
        if settings.classes.is_some() {
            binding.gives("classes", classes_schema().columns);
        }
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let table = Table::read(&settings).map_err(|problems| {
            StageError::new(problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; "))
        })?;
        Ok(Stage::Source(Box::new(Rows { table, classes: settings.classes, folder: self.folder.clone() })))
    }
}

/// The rows as a dataset of one shard.
struct Rows {
    table: Table,
    classes: Option<Vec<String>>,
    folder: PathBuf,
}

impl Rows {
    fn count(&self, limit: Option<usize>) -> usize {
        limit.map_or(self.table.ids.len(), |limit| limit.min(self.table.ids.len()))
    }

    fn picture(&self, path: &str) -> Result<Vec<u8>, StageError> {
        std::fs::read(self.folder.join(path))
            .map_err(|error| StageError::because(format!("cannot read the picture `{path}`"), error))
    }

    /// What the first rows of a column are made of.
    fn key(&self, name: &str, cells: &Cells, count: usize) -> Result<Digest, StageError> {
        let mut key = KeyHasher::new("rows/1").part("column", name.as_bytes());
        if let Cells::Image(paths) = cells {
            for path in paths.iter().take(count) {
                key = key.digest("picture", &Digest::of(&self.picture(path)?)).part("path", path.as_bytes());
            }
            return Ok(key.finish());
        }
        for row in 0..count {
            key = key.json("value", &cells.value(row));
        }
        Ok(key.part("holds", cells.column(name).kind.name().as_bytes()).finish())
    }
}

impl Source for Rows {
    fn shards(&self, limit: Option<usize>) -> Result<Vec<ShardInfo>, StageError> {
        let count = self.count(limit);
        let ids = self.table.ids.iter().take(count);
        let ids = ids.fold(KeyHasher::new("ids/1"), |key, id| key.part("id", id.as_bytes())).finish();
        let keys = self.table.cells.iter().map(|(name, cells)| Ok((name.clone(), self.key(name, cells, count)?)));
        Ok(vec![ShardInfo { rows: count, ids, columns: keys.collect::<Result<_, StageError>>()? }])
    }

    fn read<'a>(
        &'a self,
        _: usize,
        limit: Option<usize>,
        columns: &[String],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>, StageError> {
        let (columns, count) = (columns.to_vec(), self.count(limit));
        Ok(Box::new((0..count).step_by(CHUNK).map(move |from| {
            let range = from..(from + CHUNK).min(count);
            let ids = self.table.ids.get(range.clone()).unwrap_or_default();
            let mut batch = Batch::new(ids.to_vec());
            for name in &columns {
                let cells = self.table.cells.iter().find(|(other, _)| other == name).map(|(_, cells)| cells);
                let cells = cells.ok_or_else(|| StageError::new(format!("these rows have no column `{name}`")))?;
                let data = match cells {
                    Cells::Image(paths) => {
                        let mut images = ImagesBuilder::new(ImageForm::Encoded);
                        for path in paths.get(range.clone()).unwrap_or_default() {
                            images.push(ImageRef::Encoded { bytes: &self.picture(path)?, path })?;
                        }
                        ColumnData::Images(images)
                    }
                    cells => cells.data(range.clone()),
                };
                batch = batch.with(name, data)?;
            }
            Ok(batch)
        })))
    }

    fn side(&self, port: &str) -> Result<(Digest, Batch), StageError> {
        let Some(classes) = self.classes.as_ref().filter(|_| port == "classes") else {
            return Err(StageError::new(format!("these rows have no output `{port}`")));
        };
        let key = KeyHasher::new("rows/classes/1");
        let key = classes.iter().fold(key, |key, class| key.part("class", class.as_bytes())).finish();
        let labels = ColumnData::Labels((0..classes.len() as i64).collect());
        let batch = Batch::new((0..classes.len()).map(|i| i.to_string()).collect())
            .with("label", labels)?
            .with("name", ColumnData::Text(classes.clone()))?;
        Ok((key, batch))
    }
}

/// The values of a column.
enum Cells {
    Image(Vec<String>),
    Text(Vec<String>),
    Texts(Vec<Vec<String>>),
    Label(Vec<i64>),
    Integer(Vec<i64>),
    Number(Vec<f64>),
    Boolean(Vec<bool>),
    /// Row-major, and the length of one.
    Embedding(Vec<f32>, usize),
    /// Row-major, and the length of one.
    Scores(Vec<f32>, usize),
}

impl Cells {
    fn column(&self, name: &str) -> Column {
        let kind = match self {
            Self::Image(_) => ColumnType::Image,
            Self::Text(_) => ColumnType::Text,
            Self::Texts(_) => ColumnType::Texts,
            Self::Label(_) => ColumnType::Label,
            Self::Integer(_) => ColumnType::Integer,
            Self::Number(_) => ColumnType::Number,
            Self::Boolean(_) => ColumnType::Boolean,
            Self::Embedding(_, dim) => ColumnType::Embedding { dim: *dim, space: space(*dim) },
            Self::Scores(..) => ColumnType::Scores,
        };
        Column::new(name, kind)
    }

    /// The value of a row, for keys.
    fn value(&self, row: usize) -> Value {
        fn of<T: Serialize>(values: &[T], row: usize) -> Value {
            values.get(row).and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default()
        }
        match self {
            Self::Image(values) | Self::Text(values) => of(values, row),
            Self::Texts(values) => of(values, row),
            Self::Label(values) | Self::Integer(values) => of(values, row),
            Self::Number(values) => of(values, row),
            Self::Boolean(values) => of(values, row),
            Self::Embedding(values, width) | Self::Scores(values, width) => {
                serde_json::to_value(values.chunks((*width).max(1)).nth(row)).unwrap_or_default()
            }
        }
    }

    /// Rows of any column but pictures, which are files.
    fn data(&self, rows: std::ops::Range<usize>) -> ColumnData {
        fn of<T: Clone>(values: &[T], rows: std::ops::Range<usize>) -> Vec<T> {
            values.get(rows).map(<[T]>::to_vec).unwrap_or_default()
        }
        let wide = |width: usize| rows.start * width..rows.end * width;
        match self {
            Self::Image(values) | Self::Text(values) => ColumnData::Text(of(values, rows)),
            Self::Texts(values) => ColumnData::Texts(of(values, rows)),
            Self::Label(values) => ColumnData::Labels(of(values, rows)),
            Self::Integer(values) => ColumnData::Integers(of(values, rows)),
            Self::Number(values) => ColumnData::Numbers(of(values, rows)),
            Self::Boolean(values) => ColumnData::Booleans(of(values, rows)),
            Self::Embedding(values, width) => ColumnData::Embeddings(of(values, wide(*width)), *width, space(*width)),
            Self::Scores(values, width) => ColumnData::Scores(of(values, wide(*width)), *width),
        }
    }
}

/// The space of embeddings that no model made: all of one length can be compared.
fn space(dim: usize) -> Digest {
    KeyHasher::new("rows/space/1").part("dim", &(dim as u64).to_le_bytes()).finish()
}

#[cfg(test)]
mod tests;
