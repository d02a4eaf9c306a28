//! Toy kinds over numbers, one of each shape, that count their calls and can be told to fail.

pub(crate) mod bench;
mod folds;
mod streams;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use runner_contract::{
    Batch, Bound, Column, ColumnData, ColumnType, Digest, Input, InputPort, KeyHasher, Kind, KindInfo, ModelInfo, Need,
    Output, OutputPort, PortKind, Problem, Registry, Resolver, Schema, Shape, ShardInfo, Source, Stage, StageError,
};
use runner_engine::Cancel;
use serde_json::{Value, json};

/// How a toy fails.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Error,
    Panic,
    Cancel(Cancel),
    Finish(Cancel),
    /// Waits for so many milliseconds, whatever it is told.
    Sleep(u64),
}

/// What the toys share with the test.
#[derive(Default)]
pub(crate) struct Control {
    calls: Mutex<BTreeMap<String, usize>>,
    fail: Mutex<Option<(String, usize, String)>>,
    failure: Mutex<Option<Failure>>,
    /// The shard and the columns of every read of the source.
    pub(crate) reads: Mutex<Vec<(usize, Vec<String>)>>,
}

impl Control {
    /// A toy was called: counts, and fails if it was told to.
    pub(crate) fn call(&self, what: &str) -> Result<(), StageError> {
        let mut calls = self.calls.lock().unwrap();
        let count = calls.entry(what.to_owned()).or_default();
        *count += 1;
        let count = *count;
        drop(calls);
        let fails = matches!(&*self.fail.lock().unwrap(), Some((kind, nth, _)) if kind == what && *nth == count);
        let failure = self.failure.lock().unwrap().clone();
        match failure {
            Some(Failure::Error) if fails => Err(StageError::new("told to fail")),
            Some(Failure::Panic) if fails => panic!("told to panic"),
            Some(Failure::Cancel(cancel)) if fails => {
                cancel.cancel();
                Ok(())
            }
            Some(Failure::Finish(cancel)) if fails => {
                cancel.finish();
                Ok(())
            }
            Some(Failure::Sleep(millis)) if fails => {
                std::thread::sleep(std::time::Duration::from_millis(millis));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Calls since the last time that it was asked.
    pub(crate) fn take(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Makes the n-th call of a toy from now on fail.
    pub(crate) fn fail(&self, what: &str, nth: usize, failure: Failure) {
        self.take();
        *self.fail.lock().unwrap() = Some((what.to_owned(), nth, String::new()));
        *self.failure.lock().unwrap() = Some(failure);
    }

    pub(crate) fn heal(&self) {
        self.take();
        *self.fail.lock().unwrap() = None;
    }
}

type Bind = fn(&Value, &BTreeMap<String, Input>) -> Result<Bound, Problem>;
type Open = fn(&Value, &BTreeMap<String, Input>, Arc<Control>) -> Stage;

pub(crate) struct Toy {
    info: KindInfo,
    bind: Bind,
    open: Open,
    control: Arc<Control>,
}

impl Kind for Toy {
    fn info(&self) -> &KindInfo {
        &self.info
    }

    fn bind(&self, settings: &Value, inputs: &BTreeMap<String, Input>) -> Result<Bound, Vec<Problem>> {
        (self.bind)(settings, inputs).map_err(|problem| vec![problem])
    }

    fn open(&self, settings: &Value, inputs: &BTreeMap<String, Input>) -> Result<Stage, StageError> {
        self.control.call(&format!("open {}", self.info.name))?;
        Ok((self.open)(settings, inputs, self.control.clone()))
    }
}

pub(crate) struct Toys(Vec<Toy>);

impl Registry for Toys {
    fn kind(&self, name: &str) -> Option<&dyn Kind> {
        self.0.iter().find(|kind| kind.info.name == name).map(|kind| kind as &dyn Kind)
    }

    fn kinds(&self) -> Vec<&dyn Kind> {
        self.0.iter().map(|kind| kind as &dyn Kind).collect()
    }
}

pub(crate) struct Nothing;

/// What the secret `TOKEN` is.
pub(crate) const SECRET: &str = "s3cr\"et-value";

impl Resolver for Nothing {
    fn model(&self, reference: &str) -> Result<ModelInfo, Problem> {
        let identity = Digest::of(reference.as_bytes());
        Ok(ModelInfo { identity, family: "toy".into(), encodes: Vec::new(), dim: None, classes: None })
    }

    fn secret(&self, name: &str) -> Option<String> {
        (name == "TOKEN").then(|| SECRET.to_owned())
    }

    fn dataset(&self, _reference: &str) -> Result<(), Problem> {
        Ok(())
    }
}

pub(crate) fn rows_port(name: &'static str) -> InputPort {
    InputPort { name, kind: PortKind::Rows, optional: false, summary: "" }
}

pub(crate) fn optional(name: &'static str, kind: PortKind) -> InputPort {
    InputPort { name, kind, optional: true, summary: "" }
}

pub(crate) fn out(name: &'static str) -> OutputPort {
    OutputPort { name, kind: PortKind::Rows, summary: "" }
}

pub(crate) fn leak<T>(items: Vec<T>) -> &'static [T] {
    Box::leak(items.into_boxed_slice())
}

pub(crate) fn rows_of(columns: &[(&str, ColumnType)]) -> Output {
    Output::Rows(Schema::new(columns.iter().map(|(name, kind)| Column::new(*name, kind.clone()))))
}

pub(crate) fn needs(list: &[(&str, &[&str])]) -> BTreeMap<String, Vec<Need>> {
    let of = |columns: &[&str]| columns.iter().map(|column| Need::column(*column)).collect();
    list.iter().map(|(port, columns)| ((*port).to_owned(), of(columns))).collect()
}

pub(crate) fn setting(settings: &Value, name: &str, default: i64) -> i64 {
    settings.get(name).and_then(Value::as_i64).unwrap_or(default)
}

pub(crate) fn text_setting<'a>(settings: &'a Value, name: &str, default: &'a str) -> &'a str {
    settings.get(name).and_then(Value::as_str).unwrap_or(default)
}

/// A kind without ports, to be filled in.
pub(crate) fn info(name: &'static str, shape: Shape) -> KindInfo {
    KindInfo {
        name,
        version: 1,
        summary: "",
        shape,
        inputs: &[],
        outputs: leak(vec![out("rows")]),
        expensive: false,
        device: false,
        settings: json!({"type": "object"}),
    }
}

pub(crate) fn toys(control: &Arc<Control>) -> Arc<Toys> {
    let mut all: Vec<(KindInfo, Bind, Open)> = vec![numbers()];
    all.extend(streams::kinds());
    all.extend(folds::kinds());
    let toy = |(info, bind, open)| Toy { info, bind, open, control: control.clone() };
    Arc::new(Toys(all.into_iter().map(toy).collect()))
}

// ------------------------------------------------------------------------------------------------------------ source

/// `numbers`: rows `n/0`, `n/1`, … with `value` (the number), `label` (number mod 3 + `shift`) and `classes`.
fn numbers() -> (KindInfo, Bind, Open) {
    let kind = KindInfo { outputs: leak(vec![out("rows"), out("classes")]), ..info("numbers", Shape::Source) };
    let bind: Bind = |settings, _| {
        let outputs = BTreeMap::from([
            (
                "rows".to_owned(),
                rows_of(&[("value", ColumnType::Number), ("label", ColumnType::Label), ("image", ColumnType::Image)]),
            ),
            ("classes".to_owned(), rows_of(&[("label", ColumnType::Label), ("name", ColumnType::Text)])),
        ]);
        Ok(Bound { settings: settings.clone(), consumes: BTreeMap::new(), outputs, hints: BTreeMap::new() })
    };
    let open: Open = |settings, _, control| {
        Stage::Source(Box::new(Numbers {
            count: setting(settings, "count", 20) as usize,
            shard: setting(settings, "shard", 8) as usize,
            shift: setting(settings, "shift", 0),
            control,
        }))
    };
    (kind, bind, open)
}

struct Numbers {
    count: usize,
    shard: usize,
    shift: i64,
    control: Arc<Control>,
}

const CHUNK: usize = 3;

impl Numbers {
    fn range(&self, shard: usize, limit: Option<usize>) -> std::ops::Range<usize> {
        let count = limit.map_or(self.count, |limit| limit.min(self.count));
        (shard * self.shard).min(count)..((shard + 1) * self.shard).min(count)
    }
}

impl Source for Numbers {
    fn shards(&self, limit: Option<usize>) -> Result<Vec<ShardInfo>, StageError> {
        let mut shards = Vec::new();
        for shard in 0.. {
            let range = self.range(shard, limit);
            if range.is_empty() {
                break;
            }
            let key = |what: &str| KeyHasher::new(what).json("range", &json!([range.start, range.end])).finish();
            let label = KeyHasher::new("label").digest("rows", &key("x")).json("shift", &json!(self.shift)).finish();
            let columns =
                [("value".to_owned(), key("value")), ("label".to_owned(), label), ("image".to_owned(), key("image"))];
            shards.push(ShardInfo { rows: range.len(), ids: key("ids"), columns: columns.into() });
        }
        Ok(shards)
    }

    fn read<'a>(
        &'a self,
        shard: usize,
        limit: Option<usize>,
        columns: &[String],
    ) -> Result<Box<dyn Iterator<Item = Result<Batch, StageError>> + Send + 'a>, StageError> {
        self.control.reads.lock().unwrap().push((shard, columns.to_vec()));
        let columns = columns.to_vec();
        let rows: Vec<usize> = self.range(shard, limit).collect();
        let chunks: Vec<Vec<usize>> = rows.chunks(CHUNK).map(<[usize]>::to_vec).collect();
        Ok(Box::new(chunks.into_iter().map(move |rows| {
            self.control.call("read")?;
            let mut batch = Batch::new(rows.iter().map(|i| format!("n/{i}")).collect());
            for column in &columns {
                batch = batch.with(column, self.column(column, &rows)?)?;
            }
            Ok(batch)
        })))
    }

    fn side(&self, _port: &str) -> Result<(Digest, Batch), StageError> {
        let rows = Batch::new((0..3).map(|i| i.to_string()).collect())
            .with("label", ColumnData::Labels((0..3).collect()))?
            .with("name", ColumnData::Text((0..3).map(|i| format!("class {i}")).collect()))?;
        Ok((Digest::of(b"classes"), rows))
    }
}

impl Numbers {
    fn column(&self, name: &str, rows: &[usize]) -> Result<ColumnData, StageError> {
        Ok(match name {
            "value" => ColumnData::Numbers(rows.iter().map(|&i| i as f64).collect()),
            "label" => ColumnData::Labels(rows.iter().map(|&i| (i as i64 + self.shift) % 3).collect()),
            _ => {
                // A file is the number as a text; those that end in 7 cannot be decoded.
                let mut images = runner_contract::ImagesBuilder::new(runner_contract::ImageForm::Encoded);
                for &i in rows {
                    let (bytes, path) = (i.to_string().into_bytes(), format!("{i}.num"));
                    images.push(runner_contract::ImageRef::Encoded { bytes: &bytes, path: &path })?;
                }
                ColumnData::Images(images)
            }
        })
    }
}
