//! The logical types of columns, and the schema that a port carries.

use std::{collections::HashMap, fmt};

use arrow_schema::{DataType, Field};
use serde::{Deserialize, Serialize};

use crate::Digest;

/// What a column means. The Arrow type at rest follows from it (see [`crate::Batch`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// A picture: encoded (`struct<bytes: binary, path: utf8>`) or pixels (`struct<height, width, channels: uint32, data: binary>`).
    Image,
    /// UTF-8 text.
    Text,
    /// Several texts a row, for instance all captions of an image (`list<utf8>`).
    Texts,
    /// A class index from 0 (`int64`).
    Label,
    /// An integer (`int64`).
    Integer,
    /// A number (`float64`).
    Number,
    /// A truth value (`boolean`).
    Boolean,
    /// A vector of `dim` f32 in the space that `space` names: the digest of the model that made it.
    Embedding {
        /// Number of components.
        dim: usize,
        /// The embedding model's identity; vectors of different spaces are never compared.
        space: Digest,
    },
    /// One f32 a candidate (`fixed_size_list<float32>`); how many is known when it runs.
    Scores,
}

impl ColumnType {
    /// The name used in messages and metadata.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
            Self::Texts => "texts",
            Self::Label => "label",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Embedding { .. } => "embedding",
            Self::Scores => "scores",
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A named, typed column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, unique in a schema.
    pub name: String,
    /// What it means.
    pub kind: ColumnType,
}

impl Column {
    /// A column of that name and type.
    pub fn new(name: impl Into<String>, kind: ColumnType) -> Self {
        Self { name: name.into(), kind }
    }

    /// The Arrow field, with the logical type in its metadata.
    pub fn field(&self, data_type: DataType) -> Field {
        let kind = serde_json::to_string(&self.kind).unwrap_or_default();
        Field::new(&self.name, data_type, false).with_metadata(HashMap::from([("runner:type".to_owned(), kind)]))
    }

    /// The logical column that an Arrow field carries, if its metadata names one.
    pub fn of_field(field: &Field) -> Option<Self> {
        let kind = serde_json::from_str(field.metadata().get("runner:type")?).ok()?;
        Some(Self { name: field.name().clone(), kind })
    }
}

/// The columns of a dataset besides `id`, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The columns.
    pub columns: Vec<Column>,
}

impl Schema {
    /// A schema of these columns.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect() }
    }

    /// The column of that name.
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns for which `keep` holds.
    pub fn matching(&self, keep: impl Fn(&ColumnType) -> bool) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(move |column| keep(&column.kind))
    }

    /// This schema with `added` behind it; a column of a name that exists is replaced in its place.
    #[must_use]
    pub fn with(&self, added: &Self) -> Self {
        let mut all = self.clone();
        for column in &added.columns {
            match all.columns.iter_mut().find(|old| old.name == column.name) {
                Some(old) => *old = column.clone(),
                None => all.columns.push(column.clone()),
            }
        }
        all
    }

    /// The names, for messages: `id, image, label`.
    pub fn names(&self) -> String {
        let mut names = vec![crate::ID];
        names.extend(self.columns.iter().map(|column| column.name.as_str()));
        names.join(", ")
    }
}
