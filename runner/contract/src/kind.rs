//! What a stage kind declares: ports, shape, settings, and what comes out of what goes in.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Digest, Schema, Stage, StageError};

/// A stage kind: the meaning of a `uses:`. Registered once; opened for every stage that uses it.
pub trait Kind: Send + Sync {
    /// Name, shape, ports and settings schema: all that does not depend on a use.
    fn info(&self) -> &KindInfo;

    /// Checks the settings against what the ports receive and says what comes out.
    ///
    /// Reads at most what is needed to know columns (a dataset's header). Reports every problem, not the first.
    fn bind(&self, settings: &Value, inputs: &BTreeMap<String, Input>) -> Result<Bound, Vec<Problem>>;

    /// Opens the stage to run it. `settings` are those that [`Bound::settings`] returned.
    fn open(&self, settings: &Value, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError>;
}

/// The static description of a kind.
#[derive(Clone, Debug)]
pub struct KindInfo {
    /// What stands behind `uses:`.
    pub name: &'static str,
    /// Raised when results change for equal inputs: part of every cache key.
    pub version: u32,
    /// One line for help and the schema.
    pub summary: &'static str,
    /// How rows in relate to rows out.
    pub shape: Shape,
    /// Input ports in order; the first is the one that a bare `inputs: stage` means.
    pub inputs: &'static [InputPort],
    /// Output ports; the first is the one that a bare `stage` means.
    pub outputs: &'static [OutputPort],
    /// Results are worth storing: recomputing them is dear (`encode`, `generate`).
    pub expensive: bool,
    /// Runs in a device slot.
    pub device: bool,
    /// JSON Schema of the settings, from the settings type (see [`settings`]).
    pub settings: Value,
}

/// How rows in relate to rows out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// No rows in; shards out.
    Source,
    /// One row to one (a row that cannot be read is dropped and counted).
    Map,
    /// One row to one or none; columns may be added. Several outputs split the rows between them.
    Filter,
    /// One row to n; the child's id is `parent/k`.
    Expand,
    /// The children of one parent to one or k of them.
    Group,
    /// All rows to one result; partials merge in shard order.
    Fold,
    /// Random access to the whole input, and a checkpoint slot.
    Job,
}

/// An input port.
#[derive(Clone, Copy, Debug)]
pub struct InputPort {
    /// Its name under `inputs:`.
    pub name: &'static str,
    /// What it takes.
    pub kind: PortKind,
    /// May be left out.
    pub optional: bool,
    /// One line for help and the schema.
    pub summary: &'static str,
}

/// What a port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PortKind {
    /// A dataset, streamed shard by shard.
    Rows,
    /// A dataset small enough to hold, given to every task.
    Whole,
    /// A model artifact: a reference, or a stage's model port.
    Model,
}

/// An output port.
#[derive(Clone, Copy, Debug)]
pub struct OutputPort {
    /// Its name behind the stage's: `split.train`.
    pub name: &'static str,
    /// `Rows` or `Model`.
    pub kind: PortKind,
    /// One line for help and the schema.
    pub summary: &'static str,
}

/// What a port receives, as far as it is known before anything runs.
#[derive(Clone, Debug)]
pub enum Input {
    /// Rows or a whole dataset with these columns.
    Rows(Schema),
    /// A model.
    Model(ModelInfo),
}

/// What a model offers, as far as it is known before anything runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Digest of the weights; of the training stage's derived key when a stage will make it.
    pub identity: Digest,
    /// The architecture family: `clip`, `torchvision_resnet`.
    pub family: String,
    /// What it can encode.
    pub encodes: Vec<Modality>,
    /// Components of an embedding, where it makes any.
    pub dim: Option<usize>,
    /// How many classes of its own it has, where it is a classifier.
    pub classes: Option<usize>,
}

/// A kind of input that a model encodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Modality {
    /// Pictures.
    Image,
    /// Texts.
    Text,
}

/// A use of a kind, checked.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The settings with defaults filled in: what the key is made of.
    pub settings: Value,
    /// The columns read, by input port.
    pub consumes: BTreeMap<String, Vec<Need>>,
    /// What comes out, by output port.
    pub outputs: BTreeMap<String, Output>,
    /// Of output ports that give nothing with these settings: what to write so that they do.
    pub hints: BTreeMap<String, String>,
}

/// A column that a stage reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Its name.
    pub column: String,
    /// An image column is wanted as pixels: the engine decodes it, once for all who ask.
    pub pixels: bool,
}

impl Need {
    /// The column as it is.
    pub fn column(name: impl Into<String>) -> Self {
        Self { column: name.into(), pixels: false }
    }

    /// The image column, decoded.
    pub fn pixels(name: impl Into<String>) -> Self {
        Self { column: name.into(), pixels: true }
    }
}

/// What an output port gives.
#[derive(Clone, Debug)]
pub enum Output {
    /// The columns that the stage adds; for map, filter, expand and group the input's columns stay beside them.
    Rows(Schema),
    /// A model. Its identity is filled in by the engine.
    Model(ModelInfo),
}

/// Something wrong with a use, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The place below the stage: `["with", "templates", "0"]`, `["inputs", "rows"]`. Empty: the stage itself.
    pub path: Vec<String>,
    /// What is wrong: `no column holds images`.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with an input port.
    pub fn input(port: &str, message: impl Into<String>) -> Self {
        Self { path: vec!["inputs".into(), port.into()], message: message.into(), hint: None }
    }

    /// A problem with a setting.
    pub fn setting(name: &str, message: impl Into<String>) -> Self {
        Self { path: vec!["with".into(), name.into()], message: message.into(), hint: None }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The kinds there are, by name.
pub trait Registry: Send + Sync {
    /// The kind of that name.
    fn kind(&self, name: &str) -> Option<&dyn Kind>;
    /// All kinds, in the order of the documentation.
    fn kinds(&self) -> Vec<&dyn Kind>;
}

/// What the language asks about references, so that it needs no I/O of its own.
pub trait Resolver: Send + Sync {
    /// What the model `reference` (`builtin:mini-clip`, a path, …) offers.
    fn model(&self, reference: &str) -> Result<ModelInfo, Problem>;
    /// Whether the dataset `reference` (`mnist:test`, a path, …) can be read.
    fn dataset(&self, reference: &str) -> Result<(), Problem>;
    /// The environment variable of that name: what `${{ env.NAME }}` stands for.
    fn environment(&self, _name: &str) -> Option<String> {
        None
    }
    /// The secret of that name: what `${{ secrets.NAME }}` stands for. Its value is never recorded or shown.
    fn secret(&self, _name: &str) -> Option<String> {
        None
    }
    /// Reads a file that `include:` names. `path` is as written and relative to the file `from`, which is named as in
    /// messages. Gives the file's own name for messages and its bytes, or what is wrong in a few words.
    ///
    /// A file has one name, whichever way it is reached. More bytes than a pipeline may have need not be read.
    fn include(&self, _from: &str, path: &str) -> Result<(String, Vec<u8>), String> {
        Err(format!("cannot read {path}: files cannot be included here"))
    }
}

/// Reads typed settings. A kind's settings type derives `Deserialize`, `Serialize` and `JsonSchema`, denies unknown
/// fields and fills in its defaults; call this in `bind`, keep what comes back as [`Bound::settings`].
pub fn settings<T: DeserializeOwned + Serialize + JsonSchema>(value: &Value) -> Result<T, Problem> {
    let value = if value.is_null() { &Value::Object(serde_json::Map::new()) } else { value };
    T::deserialize(value).map_err(|error| setting_problem(&error))
}

/// The problem that a settings error is. The language checks settings against the schema first and knows their places;
/// this is the last resort.
pub fn setting_problem(error: &serde_json::Error) -> Problem {
    Problem { path: vec!["with".into()], message: error.to_string(), hint: None }
}
