//! A checked pipeline: what the engine runs.

use std::{collections::BTreeMap, fmt, time::Duration};

use runner_contract::{Bound, Input, ModelInfo, Output};
use serde::Serialize;
use serde_json::Value;

/// A pipeline that holds together: every reference resolved, every expression evaluated, every matrix fanned out.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Its `name:`.
    pub name: String,
    /// Its `description:`.
    pub description: Option<String>,
    /// The value of every parameter: default or override.
    pub params: BTreeMap<String, Value>,
    /// The stages in topological order, one for each instance of a matrix.
    pub stages: Vec<StageDef>,
    /// Stages (instances) that `when:` left out, with those that depend on them.
    pub skipped: Vec<String>,
    /// The gates, one for each instance of the stage that they name.
    pub gates: Vec<Gate>,
    /// The text that it was read from.
    pub text: String,
    /// The texts of the files that it includes, by the names that the resolver gave them.
    pub includes: BTreeMap<String, String>,
    /// The environment variables that its expressions read, with their values.
    pub environment: BTreeMap<String, String>,
}

impl Pipeline {
    /// Position of the stage of that full name: `metrics`, `metrics[model=b32]`.
    pub fn stage(&self, name: &str) -> Option<usize> {
        self.stages.iter().position(|stage| stage.name == name)
    }
}

/// One stage (one instance of it, where a matrix fans it out).
#[derive(Clone, Debug)]
pub struct StageDef {
    /// Its full name, by which results are addressed: `metrics`, `metrics[model=b32,seed=1]`.
    pub name: String,
    /// Its name in the file: `metrics`.
    pub base: String,
    /// The matrix coordinates: key and value name, in the order of the name's brackets.
    pub coordinates: Vec<(String, String)>,
    /// The kind, as registered.
    pub kind: String,
    /// What the kind made of the settings and inputs.
    pub bound: Bound,
    /// What the connected input ports read, by port.
    pub inputs: BTreeMap<String, InputRef>,
    /// What [`runner_contract::Kind::bind`] was told that they receive; hand it to `open` again.
    pub received: BTreeMap<String, Input>,
    /// Everything that comes out, by port: rows with the columns passed through, models with an identity derived
    /// from how they are made (stable, but no digest of weights).
    pub outputs: BTreeMap<String, Output>,
    /// Stages to wait for without reading them: positions in [`Pipeline::stages`], all before this one.
    pub needs: Vec<usize>,
    /// Store the results even where recomputing is cheap.
    pub keep: bool,
    /// Results may come from the cache, and go there.
    pub cache: bool,
    /// Where to compute; `None`: the engine chooses.
    pub device: Option<Device>,
    /// How often a task that failed is tried again.
    pub retries: u32,
    /// How long one attempt of one task may take.
    pub timeout: Option<Duration>,
    /// How many of its rows may be unusable.
    pub max_bad: MaxBad,
    /// The secrets that the settings mention as `${{ secrets.NAME }}`: fill them in with [`crate::fill_secrets`].
    pub secrets: Vec<String>,
}

/// What an input port reads.
#[derive(Clone, Debug)]
pub enum InputRef {
    /// A stage's output port.
    Stage {
        /// Position in [`Pipeline::stages`], before the reader.
        stage: usize,
        /// The output port.
        port: String,
    },
    /// A model that exists before the run.
    Model {
        /// The reference as written: `builtin:mini-clip`, a path.
        reference: String,
        /// What the resolver says about it.
        info: ModelInfo,
    },
}

/// How many of a stage's rows may be unusable before the run fails.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum MaxBad {
    /// Nobody said: one in a hundred, and ten in any case, since a handful of pictures often has a file beside it that is none.
    #[default]
    Default,
    /// So many.
    Rows(u64),
    /// This share of the stage's rows, from 0 to 1.
    Share(f64),
}

impl MaxBad {
    /// How many that are, of so many rows.
    pub fn of(self, rows: u64) -> u64 {
        let share = |share: f64| (rows as f64 * share).floor() as u64;
        match self {
            Self::Default => share(0.01).max(10),
            Self::Rows(most) => most,
            Self::Share(most) => share(most),
        }
    }

    /// `20` or `0.5%`.
    pub(crate) fn parse(value: &serde_json::Value) -> Option<Self> {
        if let Some(rows) = value.as_u64() {
            return Some(Self::Rows(rows));
        }
        let percent = value.as_str()?.strip_suffix('%')?.trim_end().parse::<f64>().ok()?;
        (0.0..=100.0).contains(&percent).then_some(Self::Share(percent / 100.0))
    }
}

impl std::fmt::Display for MaxBad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("1% (and 10 rows in any case)"),
            Self::Rows(rows) => write!(f, "{rows}"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

/// A condition on a metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gate {
    /// Its name; of a fanned metric, with the instance: `top1[model=b32]`.
    pub name: String,
    /// The metric: `metrics.top1`, `metrics[model=b32].top1`.
    pub metric: String,
    /// The least value that passes.
    pub min: Option<f64>,
    /// The greatest value that passes.
    pub max: Option<f64>,
}

/// A compute device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor.
    Cpu,
    /// A CUDA device, by index; `cuda` alone is the first.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl Device {
    /// Reads `cpu`, `cuda` or `cuda:N`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:")?.parse().ok().map(Self::Cuda),
        }
    }
}
