//! What training told, step by step.

use std::collections::BTreeMap;

use runner_contract::{File, StageError};
use runner_models::train::StepStats;

use super::validation::Validation;
use crate::{
    codec::{Reader, Writer},
    pictures::{Chart, Picture, Series, grouped, thinned},
};

/// Points of a curve: more could not be told apart.
const POINTS: usize = 400;
/// Steps over which the last loss is averaged.
const LAST: usize = 100;

/// Losses and accuracies so far.
#[derive(Debug, Default, PartialEq)]
pub(super) struct History {
    /// A loss a step, in nats, and the logit scale.
    steps: Vec<(f64, f64)>,
    /// Step and accuracy.
    validation: Vec<(u64, f64)>,
}

impl History {
    /// Steps done.
    pub(super) fn steps(&self) -> u64 {
        self.steps.len() as u64
    }

    pub(super) fn push(&mut self, stats: &StepStats) {
        self.steps.push((f64::from(stats.loss), f64::from(stats.logit_scale)));
    }

    pub(super) fn validate(&mut self, step: u64, accuracy: f64) {
        self.validation.push((step, accuracy));
    }

    /// The mean loss of the last steps.
    fn loss(&self) -> f64 {
        let last = &self.steps[self.steps.len().saturating_sub(LAST)..];
        last.iter().map(|(loss, _)| loss).sum::<f64>() / last.len().max(1) as f64
    }

    /// A few words for the progress bar: `loss 1.234, validation.top1 0.951`.
    pub(super) fn note(&self, validation: Option<&Validation>) -> String {
        let mut note = format!("loss {:.3}", self.steps.last().map_or(f64::NAN, |(loss, _)| *loss));
        if let (Some(validation), Some((_, accuracy))) = (validation, self.validation.last()) {
            note += &format!(", {} {accuracy:.3}", validation.metric());
        }
        note
    }

    pub(super) fn metrics(&self, validation: Option<&Validation>) -> BTreeMap<String, f64> {
        let mut metrics =
            BTreeMap::from([("loss".to_owned(), self.loss()), ("steps".to_owned(), self.steps.len() as f64)]);
        if let (Some(validation), Some((_, accuracy))) = (validation, self.validation.last()) {
            metrics.insert(validation.metric().to_owned(), *accuracy);
        }
        metrics
    }

    /// Pictures of the curves, and all values as CSV.
    pub(super) fn files(&self, validation: Option<&Validation>) -> Result<Vec<File>, StageError> {
        let losses: Vec<_> = (1u64..).zip(self.steps.iter().map(|(loss, _)| *loss)).collect();
        let steps = grouped(self.steps.len() as u64);
        let series = vec![Series { name: "loss, nats".into(), points: thinned(&losses, POINTS), dots: false }];
        let subtitle = format!("{steps} steps, last {:.3}", self.loss());
        let chart = Chart { title: "training loss".into(), subtitle, series, range: None };
        let mut files = vec![File { name: "loss.png".into(), bytes: chart.png()? }];
        if let (Some(validation), Some((_, last))) = (validation, self.validation.last()) {
            let name = validation.metric().to_owned();
            let series = vec![Series { name, points: self.validation.clone(), dots: true }];
            let subtitle = format!("{steps} steps, last {:.2} %", 100.0 * last);
            let chart = Chart { title: "validation accuracy".into(), subtitle, series, range: Some((0.0, 1.0)) };
            files.push(File { name: "accuracy.png".into(), bytes: chart.png()? });
        }
        files.push(File { name: "training.csv".into(), bytes: self.csv().into_bytes() });
        Ok(files)
    }

    fn csv(&self) -> String {
        let validated: BTreeMap<_, _> = self.validation.iter().copied().collect();
        let mut out = String::from("step,loss,logit_scale,validation\n");
        for (step, (loss, scale)) in (1u64..).zip(&self.steps) {
            let accuracy = validated.get(&step).map(f64::to_string).unwrap_or_default();
            out += &format!("{step},{loss},{scale},{accuracy}\n");
        }
        out
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u64(self.steps.len() as u64);
        for (loss, scale) in &self.steps {
            writer.f64(*loss);
            writer.f64(*scale);
        }
        writer.u64(self.validation.len() as u64);
        for (step, accuracy) in &self.validation {
            writer.u64(*step);
            writer.f64(*accuracy);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, StageError> {
        let mut history = Self::default();
        for _ in 0..reader.count()? {
            history.steps.push((reader.f64()?, reader.f64()?));
        }
        for _ in 0..reader.count()? {
            history.validation.push((reader.u64()?, reader.f64()?));
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_survives_a_checkpoint_exactly() {
        let history = History { steps: vec![(4.5, 14.25), (0.1, 15.0)], validation: vec![(2, 0.3)] };
        let mut writer = Writer::new(1);
        history.write(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes, 1, "history").unwrap();
        assert_eq!(History::read(&mut reader).unwrap(), history);
        assert_eq!(history.csv(), "step,loss,logit_scale,validation\n1,4.5,14.25,\n2,0.1,15,0.3\n");
    }
}
