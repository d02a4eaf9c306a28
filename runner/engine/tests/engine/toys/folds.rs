//! The toys with one result: a fold and a job.

use std::{collections::BTreeMap, sync::Arc};

use runner_contract::{
    Access, Accumulator, Batch, Bound, ColumnData, ColumnType, Context, Digest, File, Fold, Inputs, Job, JobContext,
    KindInfo, ModelInfo, Need, Outcome, Output, OutputPort, PortKind, Shape, Stage, StageError,
};

use super::{Bind, Control, Open, info, leak, needs, out, rows_of, rows_port, setting, text_setting};

pub(super) fn kinds() -> Vec<(KindInfo, Bind, Open)> {
    vec![total(), fit()]
}

/// `total`: the sum of `column`, as a metric and as a row; the labels of the rows of the greatest values as a file.
fn total() -> (KindInfo, Bind, Open) {
    let kind = KindInfo { inputs: leak(vec![rows_port("rows")]), ..info("total", Shape::Fold) };
    let bind: Bind = |s, _| {
        let outputs = BTreeMap::from([("rows".to_owned(), rows_of(&[("total", ColumnType::Number)]))]);
        let consumes = needs(&[("rows", &[text_setting(s, "column", "value")])]);
        Ok(Bound { settings: s.clone(), consumes, outputs, hints: BTreeMap::new() })
    };
    let open: Open = |settings, inputs, control| {
        let column = text_setting(settings, "column", "value").to_owned();
        let labels = setting(settings, "labels", 0) > 0;
        let _ = inputs;
        Stage::Fold(Box::new(Total { column, labels, control }))
    };
    (kind, bind, open)
}

struct Total {
    column: String,
    labels: bool,
    control: Arc<Control>,
}

struct Running {
    column: String,
    sum: f64,
    greatest: (f64, String),
    control: Arc<Control>,
}

impl Fold for Total {
    fn start(&self, _context: &Context) -> Result<Box<dyn Accumulator>, StageError> {
        let (column, control) = (self.column.clone(), self.control.clone());
        Ok(Box::new(Running { column, sum: 0.0, greatest: (f64::NEG_INFINITY, String::new()), control }))
    }

    fn merge(&self, _context: &Context, partials: Vec<Vec<u8>>, access: &dyn Access) -> Result<Outcome, StageError> {
        self.control.call("merge")?;
        let (mut sum, mut ids) = (0.0, Vec::new());
        for partial in partials {
            let text = String::from_utf8(partial).map_err(|error| StageError::because("partial", error))?;
            let (part, id) = text.split_once(' ').ok_or_else(|| StageError::new("partial"))?;
            sum += part.parse::<f64>().map_err(|error| StageError::because("partial", error))?;
            ids.push(id.to_owned());
        }
        let mut files = Vec::new();
        if self.labels {
            let rows = access.rows("rows")?.fetch(&ids, &[Need::column("label")])?;
            let labels = rows.ids()?.iter().flatten().zip(rows.integers("label")?);
            let lines: String = labels.map(|(id, label)| format!("{id} {label}\n")).collect();
            files.push(File { name: "labels.txt".into(), bytes: lines.into_bytes() });
        }
        Ok(Outcome {
            rows: [(
                "rows".to_owned(),
                Batch::new(vec!["total".into()]).with("total", ColumnData::Numbers(vec![sum]))?,
            )]
            .into(),
            metrics: BTreeMap::from([("sum".to_owned(), sum)]),
            files,
            ..Outcome::default()
        })
    }
}

impl Accumulator for Running {
    fn push(&mut self, inputs: &Inputs) -> Result<(), StageError> {
        self.control.call("push")?;
        let rows = &inputs["rows"];
        for (id, value) in rows.ids()?.iter().flatten().zip(rows.numbers(&self.column)?) {
            self.sum += value;
            if *value > self.greatest.0 {
                self.greatest = (*value, id.to_owned());
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, StageError> {
        Ok(format!("{} {}", self.sum, self.greatest.1).into_bytes())
    }
}

/// `fit`: goes over the rows `epochs` times, adding up values; checkpoints after every epoch. Makes a model.
fn fit() -> (KindInfo, Bind, Open) {
    let outputs = vec![OutputPort { name: "model", kind: PortKind::Model, summary: "" }, out("history")];
    let kind = KindInfo {
        inputs: leak(vec![rows_port("rows")]),
        outputs: leak(outputs),
        device: true,
        ..info("fit", Shape::Job)
    };
    let bind: Bind = |s, _| {
        let model = ModelInfo {
            identity: Digest::of(s.to_string().as_bytes()),
            family: "toy".into(),
            encodes: Vec::new(),
            dim: None,
            classes: None,
        };
        let outputs = BTreeMap::from([
            ("model".to_owned(), Output::Model(model)),
            ("history".to_owned(), rows_of(&[("weight", ColumnType::Number)])),
        ]);
        Ok(Bound { settings: s.clone(), consumes: needs(&[("rows", &["value"])]), outputs, hints: BTreeMap::new() })
    };
    let open: Open =
        |settings, _, control| Stage::Job(Box::new(Fit { epochs: setting(settings, "epochs", 3) as usize, control }));
    (kind, bind, open)
}

struct Fit {
    epochs: usize,
    control: Arc<Control>,
}

impl Job for Fit {
    fn run(&self, context: &JobContext<'_>) -> Result<Outcome, StageError> {
        let mut history: Vec<f64> = match context.checkpoint.load()? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| StageError::because("checkpoint", error))?,
            None => Vec::new(),
        };
        while history.len() < self.epochs {
            context.check(|| serde_json::to_vec(&history).unwrap_or_default())?;
            self.control.call("epoch")?;
            let mut weight = history.last().copied().unwrap_or(0.0);
            for rows in context.access.rows("rows")?.scan(&[Need::column("value")])? {
                weight += rows?.numbers("value")?.iter().sum::<f64>();
            }
            history.push(weight);
            let step = history.len() as u64;
            context.progress.metric("weight", step, weight);
            context.progress.step(step, self.epochs as u64, "adding");
            context
                .checkpoint
                .save(serde_json::to_vec(&history).map_err(|error| StageError::because("checkpoint", error))?)?;
        }
        let weight = history.last().copied().unwrap_or(0.0);
        let rows = Batch::new((0..history.len()).map(|i| i.to_string()).collect())
            .with("weight", ColumnData::Numbers(history))?;
        Ok(Outcome {
            rows: [("history".to_owned(), rows)].into(),
            models: [("model".to_owned(), weight.to_string().into_bytes())].into(),
            metrics: [("weight".to_owned(), weight)].into(),
            ..Outcome::default()
        })
    }
}
