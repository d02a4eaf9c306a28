//! The toys that stream.

use std::{collections::BTreeMap, sync::Arc};

use runner_contract::{
    Bound, ColumnData, ColumnType, Context, ImageRef, Inputs, KindInfo, Need, PARENT, PortKind, Prepared, Produced,
    Shape, Stage, StageError, Stream,
};
use serde_json::Value;

use super::{Bind, Control, Open, info, leak, needs, optional, out, rows_of, rows_port, setting};

type Apply = Box<dyn Fn(&Context, &Inputs) -> Result<BTreeMap<String, Produced>, StageError> + Send + Sync>;

/// A stage that is a function.
struct Function {
    name: &'static str,
    control: Arc<Control>,
    apply: Apply,
}

impl Stream for Function {
    fn prepare(&self, _context: &Context, inputs: &Inputs) -> Result<Prepared, StageError> {
        self.control.call(&format!("prepare {}", self.name))?;
        Ok(Box::new(inputs.values().next().map_or(0, runner_contract::Batch::len)))
    }

    fn apply(
        &self,
        context: &Context,
        inputs: &Inputs,
        prepared: Prepared,
    ) -> Result<BTreeMap<String, Produced>, StageError> {
        self.control.call(self.name)?;
        assert!(inputs.values().all(|rows| !rows.is_empty()), "an empty chunk");
        let prepared: usize = *prepared.downcast().map_err(|_| StageError::new("not what was prepared"))?;
        assert_eq!(prepared, inputs.values().next().map_or(0, runner_contract::Batch::len));
        (self.apply)(context, inputs)
    }
}

fn stream(
    name: &'static str,
    control: Arc<Control>,
    apply: impl Fn(&Context, &Inputs) -> Result<BTreeMap<String, Produced>, StageError> + Send + Sync + 'static,
) -> Stage {
    Stage::Stream(Box::new(Function { name, control, apply: Box::new(apply) }))
}

fn one(produced: Produced) -> Result<BTreeMap<String, Produced>, StageError> {
    Ok(BTreeMap::from([("rows".to_owned(), produced)]))
}

fn bound(settings: &Value, consumes: &[(&str, &[&str])], made: &[(&str, ColumnType)]) -> Bound {
    let outputs = BTreeMap::from([("rows".to_owned(), rows_of(made))]);
    Bound { settings: settings.clone(), consumes: needs(consumes), outputs, hints: BTreeMap::new() }
}

pub(super) fn kinds() -> Vec<(KindInfo, Bind, Open)> {
    vec![add(), embed(), weigh(), keep_if(), repeat(), best(), see(), tell()]
}

/// `add`: `sum` = `value` + `by`; rows whose value is a multiple of `bad` are unusable. Cheap.
fn add() -> (KindInfo, Bind, Open) {
    let kind = KindInfo { inputs: leak(vec![rows_port("rows")]), ..info("add", Shape::Map) };
    let bind: Bind = |s, _| Ok(bound(s, &[("rows", &["value"])], &[("sum", ColumnType::Number)]));
    let open: Open = |settings, _, control| {
        let (by, bad) = (setting(settings, "by", 1) as f64, setting(settings, "bad", 0) as f64);
        stream("add", control, move |_, inputs| {
            let rows = &inputs["rows"];
            let (mut take, mut sums, mut unusable) = (Vec::new(), Vec::new(), Vec::new());
            for (i, value) in rows.numbers("value")?.iter().enumerate() {
                if bad > 0.0 && value % bad == 0.0 {
                    unusable.push((rows.ids()?.value(i).to_owned(), "a multiple".to_owned()));
                } else {
                    take.push(i as u32);
                    sums.push(value + by);
                }
            }
            let produced = Produced { take: Some(take), bad: unusable, ..Produced::default() };
            one(produced.column("sum", ColumnData::Numbers(sums))?)
        })
    };
    (kind, bind, open)
}

/// `embed`: `square` = (`value` · `factor`)². Expensive, on the device.
fn embed() -> (KindInfo, Bind, Open) {
    let kind =
        KindInfo { inputs: leak(vec![rows_port("rows")]), expensive: true, device: true, ..info("embed", Shape::Map) };
    let bind: Bind = |s, _| Ok(bound(s, &[("rows", &["value"])], &[("square", ColumnType::Number)]));
    let open: Open = |settings, _, control| {
        let factor = setting(settings, "factor", 1) as f64;
        stream("embed", control, move |_, inputs| {
            let squares = inputs["rows"].numbers("value")?.iter().map(|value| (value * factor).powi(2)).collect();
            let meta = BTreeMap::from([("scale".to_owned(), factor.to_string())]);
            one(Produced::default().column_with("square", ColumnData::Numbers(squares), meta)?)
        })
    };
    (kind, bind, open)
}

/// `weigh`: `score` = `square` + the total on the whole port `against` + the number in the model. Cheap.
fn weigh() -> (KindInfo, Bind, Open) {
    let ports = vec![rows_port("rows"), optional("against", PortKind::Whole), optional("model", PortKind::Model)];
    let kind = KindInfo { inputs: leak(ports), ..info("weigh", Shape::Map) };
    let bind: Bind = |s, inputs| {
        let against: &[(&str, &[&str])] = if inputs.contains_key("against") {
            &[("against", &["total"]), ("rows", &["square"])]
        } else {
            &[("rows", &["square"])]
        };
        Ok(bound(s, against, &[("score", ColumnType::Number)]))
    };
    let open: Open = |_, inputs, control| {
        let (against, model) = (inputs.contains_key("against"), inputs.contains_key("model"));
        stream("weigh", control, move |context, inputs| {
            let mut extra = 0.0;
            if against {
                extra += context.whole("against")?.numbers("total")?.iter().sum::<f64>();
            }
            if model {
                let runner_contract::ModelSource::File(path) = &context.model("model")?.source else {
                    return Err(StageError::new("no file"));
                };
                let text = std::fs::read_to_string(path).map_err(|error| StageError::because("model", error))?;
                extra += text.parse::<f64>().map_err(|error| StageError::because("model", error))?;
            }
            let scores = inputs["rows"].numbers("square")?.iter().map(|square| square + extra).collect();
            one(Produced::default().column("score", ColumnData::Numbers(scores))?)
        })
    };
    (kind, bind, open)
}

/// `keep_if`: rows whose value is a multiple of `of` to `yes`, the others to `no`.
fn keep_if() -> (KindInfo, Bind, Open) {
    let kind = KindInfo {
        inputs: leak(vec![rows_port("rows")]),
        outputs: leak(vec![out("yes"), out("no")]),
        ..info("keep_if", Shape::Filter)
    };
    let bind: Bind = |s, _| {
        let outputs = ["yes", "no"].map(|port| (port.to_owned(), rows_of(&[]))).into();
        Ok(Bound { settings: s.clone(), consumes: needs(&[("rows", &["value"])]), outputs, hints: BTreeMap::new() })
    };
    let open: Open = |settings, _, control| {
        let of = setting(settings, "of", 2) as f64;
        stream("keep_if", control, move |_, inputs| {
            let values = inputs["rows"].numbers("value")?;
            let (yes, no): (Vec<u32>, Vec<u32>) =
                (0..values.len() as u32).partition(|&i| values[i as usize] % of == 0.0);
            let port = |take| Produced { take: Some(take), ..Produced::default() };
            Ok(BTreeMap::from([("yes".to_owned(), port(yes)), ("no".to_owned(), port(no))]))
        })
    };
    (kind, bind, open)
}

/// `repeat`: every row `times` times, numbered by `copy`.
fn repeat() -> (KindInfo, Bind, Open) {
    let kind = KindInfo { inputs: leak(vec![rows_port("rows")]), ..info("repeat", Shape::Expand) };
    let bind: Bind = |s, _| Ok(bound(s, &[("rows", &[])], &[("copy", ColumnType::Integer)]));
    let open: Open = |settings, _, control| {
        let times = setting(settings, "times", 2);
        stream("repeat", control, move |_, inputs| {
            let rows = inputs["rows"].len() as u32;
            let take = (0..rows).flat_map(|row| (0..times).map(move |_| row)).collect();
            let copies = (0..rows).flat_map(|_| 0..times).collect();
            let produced = Produced { take: Some(take), ..Produced::default() };
            one(produced.column("copy", ColumnData::Integers(copies))?)
        })
    };
    (kind, bind, open)
}

/// `best`: of each parent's children the one of the highest `score`, negative copies first.
fn best() -> (KindInfo, Bind, Open) {
    let kind = KindInfo { inputs: leak(vec![rows_port("rows"), rows_port("scores")]), ..info("best", Shape::Group) };
    let bind: Bind = |s, _| {
        Ok(bound(s, &[("rows", &[PARENT, "copy"]), ("scores", &["square"])], &[("winner", ColumnType::Integer)]))
    };
    let open: Open = |_, _, control| {
        stream("best", control, move |_, inputs| {
            let (rows, scores) = (&inputs["rows"], inputs["scores"].numbers("square")?);
            assert_eq!(rows.ids()?, inputs["scores"].ids()?);
            let parents = rows.text(PARENT)?;
            let mut winners: Vec<u32> = Vec::new();
            for row in 0..rows.len() {
                match winners.last_mut() {
                    Some(last) if parents.value(*last as usize) == parents.value(row) => {
                        if scores[row] >= scores[*last as usize] {
                            *last = row as u32;
                        }
                    }
                    _ => winners.push(row as u32),
                }
            }
            let copies = rows.integers("copy")?;
            let made = winners.iter().map(|&row| copies[row as usize]).collect();
            let produced = Produced { take: Some(winners), ..Produced::default() };
            one(produced.column("winner", ColumnData::Integers(made))?)
        })
    };
    (kind, bind, open)
}

/// `tell`: says its setting `token` wherever it can, and fails with it where `fail` is 1.
fn tell() -> (KindInfo, Bind, Open) {
    let kind = KindInfo { inputs: leak(vec![rows_port("rows")]), ..info("tell", Shape::Map) };
    let bind: Bind = |s, _| Ok(bound(s, &[("rows", &["value"])], &[("told", ColumnType::Integer)]));
    let open: Open = |settings, _, control| {
        let token = super::text_setting(settings, "token", "").to_owned();
        let fail = setting(settings, "fail", 0) == 1;
        stream("tell", control, move |context, inputs| {
            context.log(format!("logs {token}"));
            context.warn(format!("warns of {token}"));
            if fail {
                return Err(StageError::new(format!("fails with {token}: {token:?}")));
            }
            let rows = &inputs["rows"];
            let take: Vec<u32> = (1..rows.len() as u32).collect();
            let told = vec![token.len() as i64; take.len()];
            let bad = vec![(rows.ids()?.value(0).to_owned(), format!("bad as {token}"))];
            one(Produced { take: Some(take), bad, ..Produced::default() }.column("told", ColumnData::Integers(told))?)
        })
    };
    (kind, bind, open)
}

/// `see`: `seen` = the number in the picture.
fn see() -> (KindInfo, Bind, Open) {
    let kind = KindInfo { inputs: leak(vec![rows_port("rows")]), ..info("see", Shape::Map) };
    let bind: Bind = |s, _| {
        let mut bound = bound(s, &[], &[("seen", ColumnType::Number)]);
        bound.consumes.insert("rows".into(), vec![Need::pixels("image")]);
        Ok(bound)
    };
    let open: Open = |_, _, control| {
        stream("see", control, move |_, inputs| {
            let images = inputs["rows"].images("image")?;
            let seen = images.iter().map(|image| match image {
                ImageRef::Pixels { data, .. } => f64::from(data[0]),
                ImageRef::Encoded { .. } => f64::NAN,
            });
            one(Produced::default().column("seen", ColumnData::Numbers(seen.collect()))?)
        })
    };
    (kind, bind, open)
}
