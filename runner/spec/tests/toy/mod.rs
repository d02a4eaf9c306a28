//! Kinds with ports and settings of every sort, and models and datasets that exist in name only.

use std::{collections::BTreeMap, fs, path::Path};

use runner_contract::{
    Bound, Column, ColumnType, Digest, Input, InputPort, Kind, KindInfo, Modality, ModelInfo, Need, Output, OutputPort,
    PortKind, Problem, Registry, Resolver, Schema, Shape, Stage, StageError, settings,
};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::Value;

type Inputs = BTreeMap<String, Input>;
type Parts = Result<(Value, BTreeMap<String, Vec<Need>>, BTreeMap<String, Output>), Vec<Problem>>;

struct ToyKind {
    info: KindInfo,
    bind: fn(&Value, &Inputs) -> Parts,
}

impl Kind for ToyKind {
    fn info(&self) -> &KindInfo {
        &self.info
    }

    fn bind(&self, settings: &Value, inputs: &Inputs) -> Result<Bound, Vec<Problem>> {
        let (settings, consumes, outputs) = (self.bind)(settings, inputs)?;
        Ok(Bound { settings, consumes, outputs, hints: BTreeMap::new() })
    }

    fn open(&self, _: &Value, _: &Inputs) -> Result<Stage, StageError> {
        Err(StageError::new("toys do not run"))
    }
}

pub(crate) struct Toys(Vec<ToyKind>);

impl Registry for Toys {
    fn kind(&self, name: &str) -> Option<&dyn Kind> {
        self.0.iter().find(|kind| kind.info.name == name).map(|kind| kind as &dyn Kind)
    }

    fn kinds(&self) -> Vec<&dyn Kind> {
        self.0.iter().map(|kind| kind as &dyn Kind).collect()
    }
}

pub(crate) struct Shelf;

impl Resolver for Shelf {
    fn model(&self, reference: &str) -> Result<ModelInfo, Problem> {
        match reference {
            "builtin:mini-clip" | "builtin:other-clip" | "models/b32" => Ok(ModelInfo {
                identity: Digest::of(reference.as_bytes()),
                family: "clip".to_owned(),
                encodes: vec![Modality::Image, Modality::Text],
                dim: Some(if reference == "builtin:mini-clip" { 64 } else { 512 }),
                classes: None,
            }),
            _ => Err(Problem::input("model", format!("unknown model `{reference}`"))
                .hint("`runner model list` shows the models that there are")),
        }
    }

    fn dataset(&self, reference: &str) -> Result<(), Problem> {
        if ["mnist:test", "mnist:train"].contains(&reference) {
            return Ok(());
        }
        Err(Problem::setting("source", format!("unknown dataset `{reference}`")))
    }

    fn environment(&self, name: &str) -> Option<String> {
        (name == "BUCKET").then(|| "s3://pictures".to_owned())
    }

    fn secret(&self, name: &str) -> Option<String> {
        (name == "TOKEN").then(|| "hunter2".to_owned())
    }

    /// Files of `tests/cases`; the including files stand in its folders.
    fn include(&self, from: &str, path: &str) -> Result<(String, Vec<u8>), String> {
        let name = match from.strip_prefix("../shared/") {
            Some(_) => format!("../shared/{path}"),
            None => path.to_owned(),
        };
        let name = name.replace("shared/../", "");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/invalid");
        let bytes = fs::read(folder.join(&name)).map_err(|_| format!("there is no file `{name}`"))?;
        Ok((name, bytes))
    }
}

const fn rows(name: &'static str, optional: bool) -> InputPort {
    InputPort { name, kind: PortKind::Rows, optional, summary: "rows to read" }
}
const fn whole(name: &'static str) -> InputPort {
    InputPort { name, kind: PortKind::Whole, optional: false, summary: "a set to compare with" }
}
const fn model(name: &'static str) -> InputPort {
    InputPort { name, kind: PortKind::Model, optional: false, summary: "the model to use" }
}
const fn out(name: &'static str, kind: PortKind) -> OutputPort {
    OutputPort { name, kind, summary: "what comes out" }
}
const OUT: &[OutputPort] = &[out("rows", PortKind::Rows)];

/// The registry of the tests.
pub(crate) fn toys() -> Toys {
    fn kind<T: JsonSchema>(
        name: &'static str,
        shape: Shape,
        inputs: &'static [InputPort],
        outputs: &'static [OutputPort],
        bind: fn(&Value, &Inputs) -> Parts,
    ) -> ToyKind {
        let settings = schema_for!(T).to_value();
        let (summary, version) = ("A kind for tests.", 1);
        let info =
            KindInfo { name, version, summary, shape, inputs, outputs, expensive: false, device: false, settings };
        ToyKind { info, bind }
    }
    Toys(vec![
        kind::<DatasetSettings>(
            "dataset",
            Shape::Source,
            &[],
            const { &[out("rows", PortKind::Rows), out("classes", PortKind::Rows)] },
            dataset,
        ),
        kind::<RowsSettings>(
            "rows",
            Shape::Source,
            &[],
            const { &[out("rows", PortKind::Rows), out("classes", PortKind::Rows)] },
            inline_rows,
        ),
        kind::<TextsSettings>("texts", Shape::Source, &[], OUT, texts),
        kind::<PromptsSettings>("prompts", Shape::Expand, const { &[rows("rows", false)] }, OUT, prompts),
        kind::<EncodeSettings>("encode", Shape::Map, const { &[rows("rows", false), model("model")] }, OUT, encode),
        kind::<PoolSettings>("pool", Shape::Fold, const { &[rows("rows", false)] }, OUT, pool),
        kind::<ScoreSettings>(
            "score",
            Shape::Map,
            const { &[rows("queries", false), whole("candidates")] },
            OUT,
            score,
        ),
        kind::<MetricsSettings>("metrics", Shape::Fold, const { &[rows("rows", false)] }, &[], metrics),
        kind::<SplitSettings>(
            "split",
            Shape::Filter,
            const { &[rows("rows", false)] },
            const { &[out("train", PortKind::Rows), out("validation", PortKind::Rows)] },
            split,
        ),
        kind::<TrainSettings>(
            "train",
            Shape::Job,
            const { &[rows("train", false), rows("validation", true)] },
            const { &[out("model", PortKind::Model)] },
            train,
        ),
        kind::<NoSettings>(
            "rerank",
            Shape::Group,
            const { &[rows("rows", false), rows("scores", false)] },
            OUT,
            rerank,
        ),
    ])
}

fn produced(columns: &[(&str, ColumnType)]) -> Output {
    Output::Rows(Schema::new(columns.iter().map(|(name, kind)| Column::new(*name, kind.clone()))))
}

fn one(port: &str, output: Output) -> BTreeMap<String, Output> {
    BTreeMap::from([(port.to_owned(), output)])
}

fn read<T: serde::de::DeserializeOwned + Serialize + JsonSchema>(value: &Value) -> Result<(T, Value), Vec<Problem>> {
    let typed: T = settings(value).map_err(|problem| vec![problem])?;
    let value = serde_json::to_value(&typed).map_err(|error| vec![Problem::setting("", error.to_string())])?;
    Ok((typed, value))
}

/// The schema on a port.
fn schema<'a>(inputs: &'a Inputs, port: &str) -> &'a Schema {
    match inputs.get(port) {
        Some(Input::Rows(schema)) => schema,
        other => panic!("port {port} was bound with {other:?}"),
    }
}

/// A problem unless the port has a column that fits; its name otherwise.
fn column(inputs: &Inputs, port: &str, what: &str, fits: fn(&ColumnType) -> bool) -> Result<Column, Vec<Problem>> {
    let schema = schema(inputs, port);
    schema.matching(fits).next().cloned().ok_or_else(|| {
        let message = format!("no column holds {what}: there are {}", schema.names());
        vec![Problem::input(port, message).hint(format!("read a stage that makes {what}"))]
    })
}

/// Settings of `dataset`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DatasetSettings {
    /// The dataset.
    source: String,
    /// Rows to read at most.
    #[serde(default)]
    #[schemars(range(min = 1))]
    limit: Option<u64>,
}

fn dataset(value: &Value, _: &Inputs) -> Parts {
    let (typed, value) = read::<DatasetSettings>(value)?;
    Shelf.dataset(&typed.source).map_err(|problem| vec![problem])?;
    let outputs = BTreeMap::from([
        ("rows".to_owned(), produced(&[("image", ColumnType::Image), ("label", ColumnType::Label)])),
        ("classes".to_owned(), produced(&[("label", ColumnType::Label), ("name", ColumnType::Text)])),
    ]);
    Ok((value, BTreeMap::new(), outputs))
}

/// Settings of `rows`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RowsSettings {
    /// The rows.
    rows: Vec<serde_json::Map<String, Value>>,
    /// The classes.
    #[serde(default)]
    classes: Option<Vec<String>>,
    /// What columns hold.
    #[serde(default)]
    columns: BTreeMap<String, String>,
}

fn inline_rows(value: &Value, _: &Inputs) -> Parts {
    let (typed, value) = read::<RowsSettings>(value)?;
    let kind = |name: &str| match name {
        "image" => ColumnType::Image,
        "label" => ColumnType::Label,
        _ => ColumnType::Text,
    };
    let mut problems = Vec::new();
    for (i, row) in typed.rows.iter().enumerate() {
        for (name, _) in row.iter().filter(|(name, value)| *name != "label" && !value.is_string()) {
            let path = ["with", "rows", &i.to_string(), name].map(str::to_owned).to_vec();
            problems.push(Problem { path, message: format!("`{name}`: expected text"), hint: None });
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let names = typed.rows.first().into_iter().flat_map(|row| row.keys()).filter(|name| *name != "id");
    let columns: Vec<_> = names.map(|name| (name.as_str(), kind(name))).collect();
    let mut outputs = one("rows", produced(&columns));
    if typed.classes.is_some() {
        outputs.insert("classes".to_owned(), produced(&[("label", ColumnType::Label), ("name", ColumnType::Text)]));
    }
    Ok((value, BTreeMap::new(), outputs))
}

/// Settings of `texts`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TextsSettings {
    /// The texts.
    values: Vec<String>,
}

fn texts(value: &Value, _: &Inputs) -> Parts {
    let (_, value) = read::<TextsSettings>(value)?;
    Ok((value, BTreeMap::new(), one("rows", produced(&[("text", ColumnType::Text)]))))
}

/// Settings of `prompts`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PromptsSettings {
    /// Templates with `{}` where the name goes.
    #[schemars(length(min = 1))]
    templates: Vec<String>,
}

fn prompts(value: &Value, inputs: &Inputs) -> Parts {
    let (typed, value) = read::<PromptsSettings>(value)?;
    let mut problems = Vec::new();
    for (i, template) in typed.templates.iter().enumerate() {
        if !template.contains("{}") {
            let mut problem = Problem::setting("templates", format!("template `{template}` has no `{{}}`"));
            problem.path.push(i.to_string());
            problems.push(problem.hint("`{}` stands for the class name"));
        }
    }
    if let Err(more) = column(inputs, "rows", "text", |kind| *kind == ColumnType::Text) {
        problems.extend(more);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok((value, BTreeMap::new(), one("rows", produced(&[("text", ColumnType::Text)]))))
}

/// Settings of `encode`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EncodeSettings {
    /// The column to encode.
    #[serde(default)]
    column: Option<String>,
    /// Rows computed together.
    #[serde(default = "sixteen")]
    #[schemars(range(min = 1, max = 512))]
    batch: u32,
    /// Arithmetic.
    #[serde(default)]
    precision: Precision,
}

fn sixteen() -> u32 {
    16
}

#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
enum Precision {
    #[default]
    F32,
    F16,
}

fn encode(value: &Value, inputs: &Inputs) -> Parts {
    let (typed, value) = read::<EncodeSettings>(value)?;
    if let Some(name) = &typed.column
        && schema(inputs, "rows").get(name).is_none()
    {
        return Err(vec![Problem::setting("column", format!("no column `{name}`"))]);
    }
    column(inputs, "rows", "images or text", |kind| matches!(kind, ColumnType::Image | ColumnType::Text))?;
    let Some(Input::Model(model)) = inputs.get("model") else { panic!("bound without a model") };
    let embedding = ColumnType::Embedding { dim: model.dim.unwrap_or(1), space: model.identity };
    Ok((value, BTreeMap::new(), one("rows", produced(&[("embedding", embedding)]))))
}

/// Settings of `pool`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PoolSettings {
    /// What rows are put together.
    by: By,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum By {
    /// Rows of one class.
    Class,
    /// Rows of one parent.
    Parent,
}

fn pool(value: &Value, inputs: &Inputs) -> Parts {
    let (_, value) = read::<PoolSettings>(value)?;
    let embedding = column(inputs, "rows", "embeddings", |kind| matches!(kind, ColumnType::Embedding { .. }))?;
    Ok((value, BTreeMap::new(), one("rows", produced(&[("label", ColumnType::Label), ("embedding", embedding.kind)]))))
}

/// Settings of `score`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ScoreSettings {
    /// Pairs instead of all against all.
    #[serde(default)]
    pair: Option<Pair>,
    /// Softmax temperature.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    temperature: Option<f64>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pair {
    /// Column of the query.
    query: String,
    /// Column of the candidate.
    candidate: String,
}

fn score(value: &Value, inputs: &Inputs) -> Parts {
    let (_, value) = read::<ScoreSettings>(value)?;
    let is = |kind: &ColumnType| matches!(kind, ColumnType::Embedding { .. });
    let (queries, candidates) =
        (column(inputs, "queries", "embeddings", is)?, column(inputs, "candidates", "embeddings", is)?);
    if queries.kind != candidates.kind {
        return Err(vec![Problem::input(
            "candidates",
            "the embeddings come from another model than those of `queries`",
        )]);
    }
    Ok((value, BTreeMap::new(), one("rows", produced(&[("scores", ColumnType::Scores)]))))
}

/// Settings of `metrics`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MetricsSettings {
    /// What the scores are for.
    #[serde(default)]
    task: Task,
}

#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
enum Task {
    #[default]
    Classification,
    Retrieval,
}

fn metrics(value: &Value, inputs: &Inputs) -> Parts {
    let (_, value) = read::<MetricsSettings>(value)?;
    column(inputs, "rows", "scores", |kind| *kind == ColumnType::Scores)?;
    Ok((value, BTreeMap::new(), BTreeMap::new()))
}

/// Settings of `split`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SplitSettings {
    /// Share of the validation rows.
    #[schemars(range(min = 0.0, max = 1.0))]
    validation: f64,
}

fn split(value: &Value, _: &Inputs) -> Parts {
    let (_, value) = read::<SplitSettings>(value)?;
    let outputs = ["train", "validation"].map(|port| (port.to_owned(), produced(&[])));
    Ok((value, BTreeMap::new(), BTreeMap::from(outputs)))
}

/// Settings of `train`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TrainSettings {
    /// Passes over the rows.
    epochs: u32,
    /// How weights move.
    #[serde(default)]
    optimizer: Optimizer,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Optimizer {
    /// Adam with decoupled decay.
    Adamw {
        /// Decay.
        decay: f64,
    },
    /// Plain descent.
    Sgd {
        /// Momentum.
        momentum: f64,
    },
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adamw { decay: 0.1 }
    }
}

fn train(value: &Value, inputs: &Inputs) -> Parts {
    let (_, value) = read::<TrainSettings>(value)?;
    column(inputs, "train", "images", |kind| *kind == ColumnType::Image)?;
    let identity = Digest::of(b"filled in by the language");
    let encodes = vec![Modality::Image];
    let info = ModelInfo { identity, family: "clip".to_owned(), encodes, dim: Some(64), classes: None };
    Ok((value, BTreeMap::new(), one("model", Output::Model(info))))
}

/// No settings.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoSettings {}

fn rerank(value: &Value, inputs: &Inputs) -> Parts {
    let (_, value) = read::<NoSettings>(value)?;
    column(inputs, "scores", "scores", |kind| *kind == ColumnType::Scores)?;
    Ok((value, BTreeMap::new(), one("rows", produced(&[]))))
}
