//! A store in a temporary folder, and pipelines run over it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use runner_contract::Batch;
use runner_engine::{Cancel, Config, Decoded, Engine, EngineError, Event, Plan, PlanOptions, RunReport};
use runner_spec::Pipeline;
use runner_store::Store;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{Control, Nothing, SECRET, Toys, toys};

pub(crate) struct Bench {
    pub(crate) control: Arc<Control>,
    pub(crate) folder: PathBuf,
    /// Removed with the bench, unless it works in somebody else's folder.
    _temporary: Option<TempDir>,
    pub(crate) events: Vec<Event>,
    /// What computes on each GPU, or why there is none.
    pub(crate) gpus: Result<Vec<String>, String>,
    threads: usize,
    registry: Arc<Toys>,
    tokio: Runtime,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_threads(2)
    }

    pub(crate) fn with_threads(threads: usize) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().to_owned();
        Self { _temporary: Some(temporary), ..Self::at(folder, threads) }
    }

    /// Over the store in this folder.
    pub(crate) fn at(folder: PathBuf, threads: usize) -> Self {
        let control = Arc::new(Control::default());
        let registry = toys(&control);
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { control, folder, _temporary: None, events: Vec::new(), gpus: Ok(Vec::new()), threads, registry, tokio }
    }

    pub(crate) fn pipeline(&self, stages: &str) -> Pipeline {
        let text = format!("version: 1\nname: toy\nstages:\n{stages}");
        match runner_spec::load("toy.yaml", text.as_bytes(), &[], self.registry.as_ref(), &Nothing) {
            Ok(pipeline) => pipeline,
            Err(all) => panic!("{}", all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        }
    }

    /// A new opening of the store, as a new process would do it.
    pub(crate) fn engine(&self) -> Engine {
        self.engine_over(self.store())
    }

    pub(crate) fn engine_over(&self, store: Store) -> Engine {
        let config = Config {
            threads: self.threads,
            backend: "toy".into(),
            gpus: self.gpus.clone(),
            decode: Arc::new(|bytes, path| {
                let number: u8 = std::str::from_utf8(bytes).unwrap().parse().unwrap();
                if number % 10 == 7 {
                    return Err(format!("{path}: a seven"));
                }
                Ok(Decoded { height: 1, width: 1, channels: 1, data: vec![number] })
            }),
            secrets: BTreeMap::from([("TOKEN".to_owned(), SECRET.to_owned())]),
        };
        Engine::new(self.registry.clone(), store, config)
    }

    pub(crate) fn store(&self) -> Store {
        self.tokio.block_on(Store::open(&self.folder)).unwrap()
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.tokio.block_on(future)
    }

    pub(crate) fn plan(&self, stages: &str) -> Result<Plan, EngineError> {
        self.tokio.block_on(self.engine().plan(self.pipeline(stages), None))
    }

    pub(crate) fn plan_with(&self, stages: &str, options: PlanOptions) -> Result<Plan, EngineError> {
        self.tokio.block_on(self.engine().plan(self.pipeline(stages), options))
    }

    /// Plans and runs over a store that may fail; neither may take for ever.
    pub(crate) fn try_run(&self, stages: &str, store: Store) -> Result<RunReport, EngineError> {
        let engine = self.engine_over(store);
        let pipeline = self.pipeline(stages);
        self.tokio.block_on(async {
            let run = async {
                let plan = engine.plan(pipeline, None).await?;
                engine.execute(plan, vec!["toy".to_owned()], &Cancel::new(), &mut |_| {}).await
            };
            tokio::time::timeout(std::time::Duration::from_secs(60), run).await.expect("the run does not end")
        })
    }

    /// Runs what is planned.
    pub(crate) fn execute(&self, plan: Plan) -> RunReport {
        let engine = self.engine();
        self.tokio.block_on(engine.execute(plan, Vec::new(), &Cancel::new(), &mut |_| {})).unwrap()
    }

    pub(crate) fn run(&mut self, stages: &str) -> RunReport {
        self.run_with(stages, None, &Cancel::new())
    }

    pub(crate) fn run_with(&mut self, stages: &str, limit: Option<usize>, cancel: &Cancel) -> RunReport {
        let engine = self.engine();
        let pipeline = self.pipeline(stages);
        let events = &mut self.events;
        events.clear();
        self.tokio.block_on(async {
            let plan = engine.plan(pipeline, limit).await.unwrap();
            let command = vec!["toy".to_owned()];
            engine.execute(plan, command, cancel, &mut |event| events.push(event.clone())).await.unwrap()
        })
    }

    /// The rows of a stage as lines: id and the values of these columns.
    pub(crate) fn export(&self, stages: &str, stage: &str, columns: &[&str]) -> Vec<String> {
        let engine = self.engine();
        let asked: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        let mut lines = Vec::new();
        let mut sink = |rows: Batch| {
            for (row, id) in rows.ids().unwrap().iter().flatten().enumerate() {
                let values = columns.iter().map(|column| cell(&rows, column, row));
                lines.push([id.to_owned()].into_iter().chain(values).collect::<Vec<_>>().join(" "));
            }
            Ok(())
        };
        let pipeline = self.pipeline(stages);
        let exported =
            self.tokio.block_on(engine.export(pipeline, None, stage, Some(&asked), &Cancel::new(), &mut sink));
        exported.unwrap();
        lines
    }

    /// Calls of the toys since the last time, without those that only open.
    pub(crate) fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = self.control.take();
        calls.retain(|what, _| !what.starts_with("open ") && !what.starts_with("prepare "));
        calls
    }
}

fn cell(rows: &Batch, column: &str, row: usize) -> String {
    if let Ok(values) = rows.numbers(column) {
        return values[row].to_string();
    }
    if let Ok(values) = rows.integers(column) {
        return values[row].to_string();
    }
    rows.text(column).map(|values| values.value(row).to_owned()).unwrap_or_default()
}

/// Counted calls, to compare with.
pub(crate) fn counts(list: &[(&str, usize)]) -> BTreeMap<String, usize> {
    list.iter().map(|(what, n)| ((*what).to_owned(), *n)).collect()
}
