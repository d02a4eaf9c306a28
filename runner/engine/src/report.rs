//! What a run left behind, and whether its gates are met.

use std::{collections::BTreeMap, time::Duration};

use runner_contract::Digest;
use runner_spec::Gate;
use runner_store::{FileRecord, GateRecord, RunStatus, TaskStatus};
use serde::{Deserialize, Serialize};

/// The end of a run.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// The run's id.
    pub run: String,
    /// How it ended. `Succeeded` means that all stages are done; look at [`RunReport::gates`] too.
    pub status: RunStatus,
    /// Why it did not succeed.
    pub error: Option<String>,
    /// The metrics by `STAGE.NAME`.
    pub metrics: BTreeMap<String, MetricValue>,
    /// The manifest of every stored stage, by name.
    pub artifacts: BTreeMap<String, Digest>,
    /// Tasks computed and found.
    pub tasks: TaskCounts,
    /// The stages, in topological order.
    pub stages: Vec<StageReport>,
    /// The files that stages made for people, in topological order.
    pub files: Vec<FileRecord>,
    /// How the gates came out; empty unless all stages are done.
    pub gates: Vec<GateRecord>,
    /// From start to end.
    pub wall: Duration,
}

impl RunReport {
    /// All stages done and all gates met.
    pub fn passed(&self) -> bool {
        self.status == RunStatus::Succeeded && self.gates.iter().all(|gate| gate.passed)
    }
}

/// A metric, and over how many rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricValue {
    /// The value.
    pub value: f64,
    /// Rows that it was computed from; `None` for a job.
    pub n: Option<u64>,
    /// Rows that were left out as unusable, here or on the way here.
    pub n_bad: Option<u64>,
}

/// Tasks of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// Results computed: stored shards of a stage, folds' partials and results, jobs.
    pub executed: u64,
    /// Results found in the cache.
    pub cached: u64,
}

/// A stage of a run.
#[derive(Clone, Debug)]
pub struct StageReport {
    /// Its full name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// How it ended.
    pub status: TaskStatus,
    /// Results computed and found.
    pub tasks: TaskCounts,
    /// Rows that it took in, in this run.
    pub rows: u64,
    /// Rows among them that it could not use.
    pub bad: u64,
    /// Time spent in it, summed over threads.
    pub busy: Duration,
    /// Time during which at least one of its tasks was at work.
    pub wall: Duration,
    /// What went wrong.
    pub error: Option<String>,
}

/// Holds the gates against the metrics. A metric that is missing or NaN meets nothing.
pub fn gates(gates: &[Gate], metrics: &BTreeMap<String, MetricValue>) -> Vec<GateRecord> {
    gates
        .iter()
        .map(|gate| {
            let value = metrics.get(&gate.metric).map(|metric| metric.value);
            let passed = value.is_some_and(|value| {
                !value.is_nan() && gate.min.is_none_or(|min| value >= min) && gate.max.is_none_or(|max| value <= max)
            });
            GateRecord {
                name: gate.name.clone(),
                metric: gate.metric.clone(),
                value,
                min: gate.min,
                max: gate.max,
                passed,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_passes_at_its_bound_and_never_without_a_number() {
        let gate = |metric: &str, min, max| Gate { name: metric.into(), metric: metric.into(), min, max };
        let metric = |value| MetricValue { value, n: Some(1), n_bad: Some(0) };
        let metrics = BTreeMap::from([("m.a".to_owned(), metric(0.5)), ("m.nan".to_owned(), metric(f64::NAN))]);
        let passed = |one| gates(&[one], &metrics)[0].passed;
        assert!(passed(gate("m.a", Some(0.5), Some(0.5))));
        assert!(!passed(gate("m.a", Some(0.6), None)));
        assert!(!passed(gate("m.a", None, Some(0.4))));
        assert!(!passed(gate("m.nan", None, None)));
        assert!(!passed(gate("m.none", None, None)));
    }
}
