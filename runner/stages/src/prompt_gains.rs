//! `prompt_gains`: what each template of a prompt ensemble is worth, alone and by what the ensemble loses without it.

mod ensemble;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use runner_contract::{
    Access, Accumulator, Batch, Column, ColumnData, ColumnType, Context, File, Fold, Input, Inputs, KindInfo, Outcome,
    PortKind, Problem, Shape, Stage, StageError,
};
use runner_report::{EVALUATION, Evaluation, Finding, Template, Templates};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Binding, Defined, Definition, Services,
    codec::{Reader, Writer},
    definition::{input, output},
    pool::is_embedding,
    vectors::normalize,
};
use ensemble::Ensemble;

/// Pictures that are scored at a time.
const ROWS: usize = 512;

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The column with the true class.
    #[serde(default = "label")]
    label: String,
}

fn label() -> String {
    "label".into()
}

struct PromptGains;

pub(crate) fn kind(_: &Services) -> Defined<impl Definition> {
    Defined::new(PromptGains)
}

impl Definition for PromptGains {
    type Settings = Settings;

    fn info(&self) -> KindInfo {
        KindInfo {
            name: "prompt_gains",
            version: 2,
            summary: "what each template is worth: its accuracy alone, and the ensemble's with it minus without it",
            shape: Shape::Fold,
            inputs: const {
                &[
                    input("queries", PortKind::Rows, "pictures with `embedding` and their true `label`"),
                    input("prompts", PortKind::Whole, "encoded `prompts`: `embedding`, `label`, `template`"),
                ]
            },
            outputs: const {
                &[output("rows", "one row a template: `template`, `alone`, `without`, `gain`, `helped`, `hurt`")]
            },
            expensive: false,
            device: false,
            settings: Value::Null,
        }
    }

    fn bind(&self, settings: &Settings, binding: &mut Binding<'_>) {
        let queries = binding.column("queries", "embedding", "embedding", is_embedding);
        let prompts = binding.column("prompts", "embedding", "embedding", is_embedding);
        if let (Some(queries), Some(prompts)) = (queries, prompts)
            && queries.kind != prompts.kind
        {
            let problem = Problem::input("prompts", "the prompts' embeddings are of another model than the queries'");
            binding.problem(problem.hint("give both `encode` stages the same `model`"));
        }
        binding.column("queries", &settings.label, "label", |kind| *kind == ColumnType::Label);
        binding.column("prompts", "label", "label", |kind| *kind == ColumnType::Label);
        binding.column("prompts", "template", "text", |kind| *kind == ColumnType::Text);
        binding.gives("rows", columns());
    }

    fn open(&self, settings: Settings, _: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        Ok(Stage::Fold(Box::new(Gains { settings, ensemble: Mutex::default() })))
    }
}

fn columns() -> Vec<Column> {
    let number = |name: &str| Column::new(name, ColumnType::Number);
    let mut columns = vec![Column::new("template", ColumnType::Text)];
    columns.extend(["alone", "without", "gain"].map(number));
    columns.extend(["helped", "hurt"].map(|name| Column::new(name, ColumnType::Integer)));
    columns
}

struct Gains {
    settings: Settings,
    /// Made of the prompts once, for all shards.
    ensemble: Mutex<Option<Arc<Ensemble>>>,
}

impl Gains {
    fn ensemble(&self, context: &Context) -> Result<Arc<Ensemble>, StageError> {
        let mut kept = self.ensemble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ensemble) = kept.as_ref() {
            return Ok(ensemble.clone());
        }
        let ensemble = Arc::new(Ensemble::read(context.whole("prompts")?)?);
        *kept = Some(ensemble.clone());
        Ok(ensemble)
    }
}

impl Fold for Gains {
    fn start(&self, context: &Context) -> Result<Box<dyn Accumulator>, StageError> {
        let ensemble = self.ensemble(context)?;
        let tally = Tally { counts: vec![Counts::default(); ensemble.templates.len()], ..Tally::default() };
        let label = self.settings.label.clone();
        let waiting = (Vec::new(), Vec::new());
        Ok(Box::new(Counting { context: context.clone(), ensemble, label, tally, waiting }))
    }

    fn merge(&self, context: &Context, partials: Vec<Vec<u8>>, _: &dyn Access) -> Result<Outcome, StageError> {
        let ensemble = self.ensemble(context)?;
        let mut tally = Tally { counts: vec![Counts::default(); ensemble.templates.len()], ..Tally::default() };
        for partial in &partials {
            tally.merge(&Tally::read(partial)?);
        }
        tally.outcome(&ensemble.templates)
    }
}

struct Counting {
    context: Context,
    ensemble: Arc<Ensemble>,
    label: String,
    tally: Tally,
    /// Vectors and labels that wait until they are enough.
    waiting: (Vec<f32>, Vec<i64>),
}

impl Counting {
    fn flush(&mut self) -> Result<(), StageError> {
        let (vectors, labels) = std::mem::take(&mut self.waiting);
        if labels.is_empty() {
            return Ok(());
        }
        self.context.check()?;
        let judged = self.ensemble.judge(&vectors, &labels, self.context.threads)?;
        self.tally.n += labels.len() as u64;
        self.tally.right += judged.all.iter().filter(|right| **right).count() as u64;
        for (counts, verdicts) in self.tally.counts.iter_mut().zip(&judged.each) {
            for (&(alone, without), &all) in verdicts.iter().zip(&judged.all) {
                counts.alone += u64::from(alone);
                counts.helped += u64::from(all && !without);
                counts.hurt += u64::from(!all && without);
            }
        }
        Ok(())
    }
}

impl Accumulator for Counting {
    fn push(&mut self, inputs: &Inputs) -> Result<(), StageError> {
        let rows = crate::port(inputs, "queries")?;
        if rows.is_empty() {
            return Ok(());
        }
        let (values, dim) = rows.vectors("embedding")?;
        if dim != self.ensemble.dim {
            let prompts = self.ensemble.dim;
            return Err(StageError::new(format!("queries of {dim} components against prompts of {prompts}")));
        }
        let labels = rows.integers(&self.label)?;
        for (vector, &label) in values.chunks_exact(dim.max(1)).zip(labels) {
            let start = self.waiting.0.len();
            self.waiting.0.extend_from_slice(vector);
            normalize(&mut self.waiting.0[start..]);
            self.waiting.1.push(label);
            if self.waiting.1.len() == ROWS {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<u8>, StageError> {
        self.flush()?;
        Ok(self.tally.write())
    }
}

/// Rows of one template.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    /// Right with it alone.
    alone: u64,
    /// Right with all, wrong without it.
    helped: u64,
    /// Wrong with all, right without it.
    hurt: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Tally {
    n: u64,
    /// Right with all templates.
    right: u64,
    counts: Vec<Counts>,
}

impl Tally {
    fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.right += other.right;
        for (counts, more) in self.counts.iter_mut().zip(&other.counts) {
            counts.alone += more.alone;
            counts.helped += more.helped;
            counts.hurt += more.hurt;
        }
    }

    fn write(&self) -> Vec<u8> {
        let mut writer = Writer::new(1);
        writer.u64(self.n);
        writer.u64(self.right);
        writer.u64(self.counts.len() as u64);
        for counts in &self.counts {
            [counts.alone, counts.helped, counts.hurt].into_iter().for_each(|count| writer.u64(count));
        }
        writer.finish()
    }

    fn read(bytes: &[u8]) -> Result<Self, StageError> {
        let mut reader = Reader::new(bytes, 1, "a partial of `prompt_gains`")?;
        let (n, right) = (reader.u64()?, reader.u64()?);
        let mut counts = Vec::new();
        for _ in 0..reader.count()? {
            counts.push(Counts { alone: reader.u64()?, helped: reader.u64()?, hurt: reader.u64()? });
        }
        reader.finish()?;
        Ok(Self { n, right, counts })
    }

    fn outcome(&self, templates: &[String]) -> Result<Outcome, StageError> {
        let share = |count: u64| count as f64 / self.n.max(1) as f64;
        let of = |value: fn(&Counts) -> u64| self.counts.iter().map(value).collect::<Vec<_>>();
        let without: Vec<u64> =
            self.counts.iter().map(|counts| (self.right + counts.hurt).saturating_sub(counts.helped)).collect();
        let gain = |without: u64| (self.right as f64 - without as f64) / self.n.max(1) as f64;
        let rows = Batch::new((0..templates.len()).map(|i| i.to_string()).collect())
            .with("template", ColumnData::Text(templates.to_vec()))?
            .with("alone", ColumnData::Numbers(of(|counts| counts.alone).into_iter().map(share).collect()))?
            .with("without", ColumnData::Numbers(without.iter().map(|&n| share(n)).collect()))?
            .with("gain", ColumnData::Numbers(without.iter().map(|&n| gain(n)).collect()))?
            .with("helped", ColumnData::Integers(of(|counts| counts.helped).iter().map(|&n| n as i64).collect()))?
            .with("hurt", ColumnData::Integers(of(|counts| counts.hurt).iter().map(|&n| n as i64).collect()))?;
        let found = Templates {
            ensemble: share(self.right),
            n: self.n,
            templates: templates
                .iter()
                .zip(self.counts.iter().zip(&without))
                .map(|(template, (counts, &without))| Template {
                    template: template.clone(),
                    alone: share(counts.alone),
                    without: share(without),
                    helped: counts.helped,
                    hurt: counts.hurt,
                })
                .collect(),
        };
        let mut metrics = BTreeMap::from([("n".to_owned(), self.n as f64)]);
        if self.n > 0 {
            metrics.insert("top1".to_owned(), share(self.right));
        }
        let file =
            File { name: EVALUATION.to_owned(), bytes: Evaluation::new(Vec::new(), Finding::Templates(found)).write() };
        let rows = BTreeMap::from([("rows".to_owned(), rows)]);
        Ok(Outcome { rows, metrics, files: vec![file], ..Outcome::default() })
    }
}
