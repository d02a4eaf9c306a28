//! What the engine itself costs: pipelines whose stages do nothing, of many tasks.
//!
//! `cargo bench -p runner-engine --bench overhead` prints each figure beside its limit. A task here is one shard of one row: a
//! source, a stage that passes it, and a fold that counts it; all partials are equal, so that artifacts are looked for and hardly
//! ever written. PostgreSQL runs with its defaults and fsync.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it is a program for people")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use runner_contract::{
    Access, Accumulator, Batch, Bound, Column, ColumnData, ColumnType, Context, Fold, Input, InputPort, Inputs,
    KeyHasher, Kind, KindInfo, ModelInfo, Need, Outcome, Output, OutputPort, PortKind, Prepared, Problem, Produced,
    Registry, Resolver, Schema, Shape, ShardInfo, Source, Stage, StageError, Stream,
};
use runner_engine::{Cancel, Config, Engine};
use runner_store::{Place, RunStatus, Store};
use serde_json::{Value, json};

const ROWS_IN: &[InputPort] = &[InputPort { name: "rows", kind: PortKind::Rows, optional: false, summary: "" }];
const ROWS_OUT: &[OutputPort] = &[OutputPort { name: "rows", kind: PortKind::Rows, summary: "" }];

struct Toy(KindInfo);

fn toy(name: &'static str, shape: Shape, inputs: &'static [InputPort]) -> Toy {
    let settings = json!({"type": "object"});
    let (version, summary, expensive, device) = (1, "", false, false);
    Toy(KindInfo { name, version, summary, shape, inputs, outputs: ROWS_OUT, expensive, device, settings })
}

impl Kind for Toy {
    fn info(&self) -> &KindInfo {
        &self.0
    }

    fn bind(&self, settings: &Value, _inputs: &BTreeMap<String, Input>) -> Result<Bound, Vec<Problem>> {
        let column = if self.0.shape == Shape::Map { "passed" } else { "value" };
        let made = Schema::new([Column::new(column, ColumnType::Integer)]);
        let reads = match self.0.shape {
            Shape::Map => vec![Need::column("value")],
            Shape::Fold => vec![Need::column("passed")],
            _ => Vec::new(),
        };
        let consumes = BTreeMap::from([("rows".to_owned(), reads)]);
        let outputs = BTreeMap::from([("rows".to_owned(), Output::Rows(made))]);
        Ok(Bound { settings: settings.clone(), consumes, outputs, hints: BTreeMap::new() })
    }

    fn open(&self, settings: &Value, _inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        let shards = settings.get("shards").and_then(Value::as_u64).unwrap_or(1);
        Ok(match self.0.shape {
            Shape::Source => Stage::Source(Box::new(Numbers(shards as usize))),
            Shape::Map => Stage::Stream(Box::new(Pass)),
            _ => Stage::Fold(Box::new(Count)),
        })
    }
}

struct Toys(Vec<Toy>);

impl Registry for Toys {
    fn kind(&self, name: &str) -> Option<&dyn Kind> {
        self.0.iter().find(|kind| kind.0.name == name).map(|kind| kind as &dyn Kind)
    }

    fn kinds(&self) -> Vec<&dyn Kind> {
        self.0.iter().map(|kind| kind as &dyn Kind).collect()
    }
}

impl Resolver for Toys {
    fn model(&self, _reference: &str) -> Result<ModelInfo, Problem> {
        Err(Problem::input("model", "none here"))
    }

    fn dataset(&self, _reference: &str) -> Result<(), Problem> {
        Ok(())
    }
}

struct Numbers(usize);

impl Source for Numbers {
    fn shards(&self, _limit: Option<usize>) -> Result<Vec<ShardInfo>, StageError> {
        let key = |what: &str, shard: usize| KeyHasher::new(what).part("shard", &shard.to_le_bytes()).finish();
        let column = |shard| BTreeMap::from([("value".to_owned(), key("value", shard))]);
        Ok((0..self.0).map(|shard| ShardInfo { rows: 1, ids: key("ids", shard), columns: column(shard) }).collect())
    }

    fn read<'a>(
        &'a self,
        shard: usize,
        _limit: Option<usize>,
        _columns: &[String],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>, StageError> {
        let batch = Batch::new(vec![shard.to_string()]).with("value", ColumnData::Integers(vec![shard as i64]))?;
        Ok(Box::new([Ok(batch)].into_iter()))
    }
}

struct Pass;

impl Stream for Pass {
    fn apply(
        &self,
        _context: &Context,
        inputs: &Inputs,
        _prepared: Prepared,
    ) -> Result<BTreeMap<String, Produced>, StageError> {
        let values = inputs["rows"].integers("value")?.to_vec();
        let made = Produced::default().column("passed", ColumnData::Integers(values))?;
        Ok(BTreeMap::from([("rows".to_owned(), made)]))
    }
}

struct Count;

impl Fold for Count {
    fn start(&self, _context: &Context) -> Result<Box<dyn Accumulator>, StageError> {
        Ok(Box::new(Counted))
    }

    fn merge(&self, _context: &Context, partials: Vec<Vec<u8>>, _: &dyn Access) -> Result<Outcome, StageError> {
        let rows = Batch::new(vec!["all".into()]).with("value", ColumnData::Integers(vec![partials.len() as i64]))?;
        let metrics = BTreeMap::from([("n".to_owned(), partials.len() as f64)]);
        Ok(Outcome { rows: [("rows".to_owned(), rows)].into(), metrics, ..Outcome::default() })
    }
}

struct Counted;

impl Accumulator for Counted {
    fn push(&mut self, _inputs: &Inputs) -> Result<(), StageError> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, StageError> {
        Ok(Vec::new())
    }
}

struct Bench {
    toys: Arc<Toys>,
    engine: Engine,
    store: Store,
}

impl Bench {
    fn new(store: Store) -> Self {
        let numbers = toy("numbers", Shape::Source, &[]);
        let toys = Arc::new(Toys(vec![numbers, toy("pass", Shape::Map, ROWS_IN), toy("count", Shape::Fold, ROWS_IN)]));
        let config = Config {
            threads: 2,
            backend: "none".into(),
            gpus: Ok(Vec::new()),
            decode: Arc::new(|_, _| Err("no pictures here".into())),
            secrets: BTreeMap::new(),
        };
        Self { engine: Engine::new(toys.clone(), store.clone(), config), toys, store }
    }

    fn pipeline(&self, shards: usize, cache: bool) -> runner_spec::Pipeline {
        let text = format!(
            "version: 1\nname: overhead\nstages:\n  data: {{uses: numbers, cache: {cache}, with: {{shards: {shards}}}}}\n  \
             passed: {{uses: pass, inputs: data}}\n  counted: {{uses: count, inputs: passed}}\n"
        );
        let loaded = runner_spec::load("overhead.yaml", text.as_bytes(), &[], self.toys.as_ref(), self.toys.as_ref());
        loaded.map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")).unwrap()
    }

    /// Plans, then runs. The time of each.
    async fn run(&self, shards: usize) -> (Duration, Duration) {
        let begun = Instant::now();
        let plan = self.engine.plan(self.pipeline(shards, true), None).await.unwrap();
        let planned = begun.elapsed();
        let begun = Instant::now();
        let report = self.engine.execute(plan, Vec::new(), &Cancel::new(), &mut |_| {}).await.unwrap();
        assert_eq!((report.status, report.metrics["counted.n"].value), (RunStatus::Succeeded, shards as f64));
        (planned, begun.elapsed())
    }
}

fn say(what: &str, took: Duration, tasks: usize, limit: &str) {
    let each = took.as_secs_f64() * 1e3 / tasks as f64;
    println!("{what:<64} {:>8.3} s {each:>9.4} ms a task   limit {limit}", took.as_secs_f64());
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::new(Store::open(folder.path().join("local")).await.unwrap());

    let many = 20_000;
    let begun = Instant::now();
    let pipeline = bench.pipeline(many, false);
    let planned = bench.engine.plan(pipeline.clone(), None).await.unwrap();
    let planning = begun.elapsed();
    assert_eq!(planned.tasks(), many + 1);
    let begun = Instant::now();
    let mut rows = 0;
    let mut sink = |batch: Batch| {
        rows += batch.len();
        Ok(())
    };
    bench.engine.export(pipeline, None, "counted", None, &Cancel::new(), &mut sink).await.unwrap();
    assert_eq!(rows, 1);
    say(
        "in process, nothing recorded (cache: false, no run)",
        begun.elapsed().saturating_sub(planning),
        many,
        "0.1 ms",
    );

    let begun = Instant::now();
    let plan = bench.engine.plan(bench.pipeline(100_000, true), None).await.unwrap();
    assert_eq!(plan.tasks(), 100_001);
    say("planning 100,000 tasks", begun.elapsed(), 100_000, "2 s in all");
    drop(plan);

    let recorded = 10_000;
    let (_, took) = bench.run(recorded).await;
    say("a run recorded in SQLite", took, recorded, "1 ms");
    let (planned, took) = bench.run(recorded).await;
    say("the same again, all of it cached: plan and run", planned + took, recorded, "1 s in all");

    bench.store.clone().close().await;

    let postgres = runner_testbed::Postgres::durable();
    let place = Place { folder: folder.path().join("pg"), records: Some(postgres.url()), artifacts: None };
    let bench = Bench::new(Store::open_at(&place).await.unwrap());
    let recorded = 2_000;
    let (_, took) = bench.run(recorded).await;
    say("a run recorded in PostgreSQL, fsync on", took, recorded, "5 ms");
}
