//! How long stages take, by how long they took.

use std::collections::BTreeMap;

use runner_store::{StageRecord, Store};

use crate::EngineError;

/// Runs looked back on.
const RUNS: usize = 5;

/// What a stage took in earlier runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Taken {
    seconds: f64,
    rows: f64,
    results: f64,
}

/// The rates of a pipeline's stages, by name and kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    taken: BTreeMap<(String, String), Taken>,
}

impl Rates {
    /// From the last runs of the pipeline.
    pub(crate) async fn new(store: &Store, pipeline: &str) -> Result<Self, EngineError> {
        let history = store.records().history(pipeline, RUNS).await?;
        Ok(Self::of(history.iter().flat_map(|(_, stages)| stages)))
    }

    fn of<'a>(records: impl Iterator<Item = &'a StageRecord>) -> Self {
        let mut taken: BTreeMap<(String, String), Taken> = BTreeMap::new();
        for stage in records {
            // The rows are those of all results, found ones too; a stage that is only passed through has no results.
            let all = stage.executed + stage.cached;
            let computed = if all == 0 { 1.0 } else { stage.executed as f64 / all as f64 };
            if computed == 0.0 || stage.seconds <= 0.0 {
                continue;
            }
            let sum = taken.entry((stage.name.clone(), stage.kind.clone())).or_default();
            sum.seconds += stage.seconds;
            sum.rows += (stage.rows + stage.bad) as f64 * computed;
            sum.results += stage.executed as f64;
        }
        Self { taken }
    }

    /// What a result will take, in seconds. `rows` of a shard, as far as they are known; `None` for what is no shard: a job's
    /// result takes what it took, a fold's merge is a part of its rows.
    pub(crate) fn seconds(&self, name: &str, kind: &str, rows: Option<Option<u64>>) -> Option<f64> {
        let taken = self.taken.get(&(name.to_owned(), kind.to_owned()))?;
        match rows {
            Some(Some(rows)) if taken.rows > 0.0 => Some(taken.seconds / taken.rows * rows as f64),
            None if taken.rows > 0.0 => Some(0.0),
            _ if taken.results > 0.0 => Some(taken.seconds / taken.results),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use runner_store::TaskStatus;

    use super::*;

    fn record(name: &str, executed: u64, cached: u64, rows: u64, seconds: f64) -> StageRecord {
        StageRecord {
            position: 0,
            name: name.into(),
            kind: "k".into(),
            status: TaskStatus::Done,
            executed,
            cached,
            rows,
            bad: 0,
            seconds,
            wall: seconds,
            manifest: None,
            error: None,
        }
    }

    #[test]
    fn rates_are_those_of_what_was_computed() {
        let records = [
            record("a", 2, 2, 400, 2.0),
            record("a", 0, 4, 400, 0.0),
            record("passed", 0, 0, 100, 1.0),
            record("job", 1, 0, 0, 30.0),
        ];
        let rates = Rates::of(records.iter());
        assert_eq!(rates.seconds("a", "k", Some(Some(100))), Some(1.0));
        assert_eq!(rates.seconds("a", "k", Some(None)), Some(1.0));
        assert_eq!(rates.seconds("passed", "k", Some(Some(50))), Some(0.5));
        assert_eq!(rates.seconds("job", "k", None), Some(30.0));
        assert_eq!(rates.seconds("new", "k", None), None);
        assert_eq!(rates.seconds("a", "other", None), None);
    }
}
