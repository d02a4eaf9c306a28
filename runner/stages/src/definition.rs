//! What a kind's file writes down, and the rest of [`Kind`] made from it.

use std::collections::BTreeMap;

use runner_contract::{
    Bound, Column, ColumnType, Input, InputPort, Kind, KindInfo, ModelInfo, Need, Output, OutputPort, PortKind,
    Problem, Schema, Stage, StageError,
};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A kind with typed settings.
pub trait Definition: Send + Sync + 'static {
    /// What stands under `with:`. Denies unknown fields and fills in defaults.
    type Settings: DeserializeOwned + Serialize + JsonSchema;

    /// Name, shape and ports. The schema of the settings is filled in from their type.
    fn info(&self) -> KindInfo;

    /// Replaces what settings name outside of the pipeline (a file) by its content, so that results are keyed by it.
    fn resolve(&self, settings: Self::Settings) -> Result<Self::Settings, Problem> {
        Ok(settings)
    }

    /// Checks a use: says which columns it reads and what comes out, and what is wrong with it.
    fn bind(&self, settings: &Self::Settings, binding: &mut Binding<'_>);

    /// Opens the stage. `bind` found no problem with the same settings and inputs.
    fn open(&self, settings: Self::Settings, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError>;
}

/// A [`Definition`] as the [`Kind`] that it defines.
pub struct Defined<D> {
    definition: D,
    info: KindInfo,
}

impl<D: Definition> Defined<D> {
    /// Completes a definition.
    pub fn new(definition: D) -> Self {
        let settings = schemars::schema_for!(D::Settings).to_value();
        let info = KindInfo { settings, ..definition.info() };
        Self { definition, info }
    }
}

impl<D: Definition> Kind for Defined<D> {
    fn info(&self) -> &KindInfo {
        &self.info
    }

    fn bind(&self, settings: &Value, inputs: &BTreeMap<String, Input>) -> Result<Bound, Vec<Problem>> {
        let settings: D::Settings = runner_contract::settings(settings).map_err(|problem| vec![problem])?;
        let settings = self.definition.resolve(settings).map_err(|problem| vec![problem])?;
        let mut binding = Binding::new(inputs);
        self.definition.bind(&settings, &mut binding);
        let complete =
            serde_json::to_value(&settings).map_err(|error| vec![runner_contract::setting_problem(&error)])?;
        binding.finish(complete)
    }

    fn open(&self, settings: &Value, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let settings =
            runner_contract::settings(settings).map_err(|problem| StageError::because("settings", problem.message))?;
        self.definition.open(settings, inputs)
    }
}

/// What `bind` finds out about a use.
pub struct Binding<'a> {
    inputs: &'a BTreeMap<String, Input>,
    consumes: BTreeMap<String, Vec<Need>>,
    outputs: BTreeMap<String, Output>,
    hints: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl<'a> Binding<'a> {
    fn new(inputs: &'a BTreeMap<String, Input>) -> Self {
        Self {
            inputs,
            consumes: BTreeMap::new(),
            outputs: BTreeMap::new(),
            hints: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Something is wrong.
    pub fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Whether the port has an input at all.
    pub fn has(&self, port: &str) -> bool {
        self.inputs.contains_key(port)
    }

    /// The columns on a rows or whole port; a problem if there are none.
    pub fn schema(&mut self, port: &str) -> Option<&'a Schema> {
        match self.inputs.get(port) {
            Some(Input::Rows(schema)) => return Some(schema),
            Some(Input::Model(_)) => self.problem(Problem::input(port, "this is a model, expected rows")),
            None => self.problem(Problem::input(port, "this input is missing")),
        }
        None
    }

    /// The model on a port; a problem if there is none.
    pub fn model(&mut self, port: &str) -> Option<&'a ModelInfo> {
        match self.inputs.get(port) {
            Some(Input::Model(model)) => return Some(model),
            Some(Input::Rows(_)) => self.problem(
                Problem::input(port, "these are rows, expected a model")
                    .hint("name a model, for instance `builtin:mini-clip`, or a stage's model port"),
            ),
            None => self.problem(Problem::input(port, "this input is missing")),
        }
        None
    }

    /// The column of that name on a port, which `fits` and is read. Otherwise a problem: `expected` says what fits.
    pub fn column(
        &mut self,
        port: &str,
        name: &str,
        expected: &str,
        fits: impl Fn(&ColumnType) -> bool,
    ) -> Option<&'a Column> {
        let schema = self.schema(port)?;
        match schema.get(name) {
            Some(column) if fits(&column.kind) => {
                self.reads(port, Need::column(name));
                return Some(column);
            }
            Some(column) => {
                let message = format!("column `{name}` holds {}, expected {expected}", column.kind);
                self.problem(with_candidates(Problem::input(port, message), schema, fits));
            }
            None => {
                let message = format!("no column `{name}`: the rows have {}", schema.names());
                self.problem(with_candidates(Problem::input(port, message), schema, fits));
            }
        }
        None
    }

    /// The stage reads this column.
    pub fn reads(&mut self, port: &str, need: Need) {
        let needs = self.consumes.entry(port.to_owned()).or_default();
        match needs.iter_mut().find(|old| old.column == need.column) {
            Some(old) => old.pixels |= need.pixels,
            None => needs.push(need),
        }
    }

    /// These columns come out of a port.
    pub fn gives(&mut self, port: &str, columns: impl IntoIterator<Item = Column>) {
        self.outputs.insert(port.to_owned(), Output::Rows(Schema::new(columns)));
    }

    /// Nothing comes out of a port with these settings; `hint` says what to write so that something does.
    pub fn gives_nothing(&mut self, port: &str, hint: impl Into<String>) {
        self.hints.insert(port.to_owned(), hint.into());
    }

    /// A model comes out of a port.
    pub fn gives_model(&mut self, port: &str, model: ModelInfo) {
        self.outputs.insert(port.to_owned(), Output::Model(model));
    }

    fn finish(self, settings: Value) -> Result<Bound, Vec<Problem>> {
        if self.problems.is_empty() {
            Ok(Bound { settings, consumes: self.consumes, outputs: self.outputs, hints: self.hints })
        } else {
            Err(self.problems)
        }
    }
}

/// Names the columns that would fit, as a hint.
fn with_candidates(problem: Problem, schema: &Schema, fits: impl Fn(&ColumnType) -> bool) -> Problem {
    let names: Vec<_> = schema.matching(fits).map(|column| format!("`{}`", column.name)).collect();
    if names.is_empty() { problem } else { problem.hint(format!("this column fits: {}", names.join(", "))) }
}

/// An input port that must be connected.
pub(crate) const fn input(name: &'static str, kind: PortKind, summary: &'static str) -> InputPort {
    InputPort { name, kind, optional: false, summary }
}

/// An input port that may be left out.
pub(crate) const fn optional(name: &'static str, kind: PortKind, summary: &'static str) -> InputPort {
    InputPort { name, kind, optional: true, summary }
}

/// An output port of rows.
pub(crate) const fn output(name: &'static str, summary: &'static str) -> OutputPort {
    OutputPort { name, kind: PortKind::Rows, summary }
}
