//! What is known of the rows seen so far: counts by class, a few bytes a row, the worst mistakes.

use std::collections::BTreeMap;

use runner_contract::{Batch, StageError};

use crate::{
    codec::{Reader, Writer},
    vectors::{best, rank},
};

use super::{
    candidates::Candidates,
    examples::{Example, Examples},
};

const WHAT: &str = "a partial of `metrics`";
const FORMAT: u8 = 2;

/// A row whose best candidate is not the true class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wrong {
    pub(super) id: String,
    pub(super) truth: i64,
    pub(super) predicted: i64,
    /// By how much the prediction's score is above the true class's; infinite if that is no candidate.
    margin: f64,
    /// The prediction's probability.
    pub(super) probability: f64,
}

/// What is known of the rows seen so far.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) candidates: Option<Candidates>,
    /// Rows by true and predicted label.
    pub(super) counts: BTreeMap<(i64, i64), u64>,
    pub(super) examples: Examples,
    pub(super) mistakes: Vec<Wrong>,
    /// A row's probabilities, to work on.
    scratch: Vec<f64>,
}

impl Tally {
    /// All rows have the same candidates.
    pub(super) fn fix_candidates(&mut self, candidates: Candidates) -> Result<(), StageError> {
        match &self.candidates {
            Some(old) if !old.same(&candidates) => Err(StageError::new(format!(
                "rows are scored against different candidates: {} and {}",
                start(&old.names),
                start(&candidates.names)
            ))),
            Some(_) => Ok(()),
            None => {
                self.candidates = Some(candidates);
                Ok(())
            }
        }
    }

    /// Counts the rows of a chunk.
    pub(super) fn push(&mut self, rows: &Batch, scores: &str, label: &str) -> Result<(), StageError> {
        if !self.candidates.as_ref().is_some_and(|candidates| candidates.are_those_of(rows, scores)) {
            self.fix_candidates(Candidates::of_scores(rows, scores)?)?;
        }
        let (ids, labels) = (rows.ids()?, rows.integers(label)?);
        let (scores, width) = rows.vectors(scores)?;
        for (i, (&label, row)) in labels.iter().zip(scores.chunks_exact(width.max(1))).enumerate() {
            self.add(ids.value(i), label, row);
        }
        Ok(())
    }

    /// Counts one row.
    pub(super) fn add(&mut self, id: &str, truth: i64, scores: &[f32]) {
        let Some(candidates) = &self.candidates else { return };
        let Some(winner) = best(scores) else { return };
        let predicted = candidates.labels[winner];
        *self.counts.entry((truth, predicted)).or_default() += 1;
        let place = candidates.place(truth);
        let top = f64::from(scores[winner]);
        // Probabilities in f64; logarithms from the logits, so that a probability of 0 has none that is infinite.
        let (probability, loss) = if candidates.probabilities {
            (top, place.map(|place| -f64::from(scores[place]).ln()))
        } else {
            self.scratch.clear();
            self.scratch.extend(scores.iter().map(|&score| (f64::from(score) - top).exp()));
            let sum: f64 = self.scratch.iter().sum();
            (1.0 / sum, place.map(|place| sum.ln() - (f64::from(scores[place]) - top)))
        };
        self.examples.0.push(Example {
            truth,
            confidence: probability as f32,
            loss: loss.map_or(f32::NAN, |loss| loss.min(f64::from(f32::MAX)) as f32),
            right: predicted == truth,
            top5: place.is_some_and(|place| rank(scores, place) < 5),
        });
        if predicted != truth {
            let margin = place.map_or(f64::INFINITY, |place| f64::from(scores[winner] - scores[place]));
            self.mistakes.push(Wrong { id: id.to_owned(), truth, predicted, margin, probability });
        }
    }

    /// Forgets all mistakes but the worst.
    pub(super) fn keep_worst(&mut self, most: usize) {
        self.mistakes.sort_by(|a, b| b.margin.total_cmp(&a.margin).then_with(|| a.id.cmp(&b.id)));
        self.mistakes.truncate(most);
    }

    pub(super) fn merge(&mut self, mut other: Self, most: usize) -> Result<(), StageError> {
        if let Some(candidates) = other.candidates {
            self.fix_candidates(candidates)?;
        }
        for (pair, count) in other.counts {
            *self.counts.entry(pair).or_default() += count;
        }
        self.examples.0.append(&mut other.examples.0);
        self.mistakes.extend(other.mistakes);
        self.keep_worst(most);
        Ok(())
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut writer = Writer::new(FORMAT);
        let none = Candidates::default();
        let Candidates { names, labels, probabilities, .. } = self.candidates.as_ref().unwrap_or(&none);
        writer.u64(names.len() as u64);
        for (name, label) in names.iter().zip(labels) {
            writer.text(name);
            writer.i64(*label);
        }
        writer.u64(u64::from(*probabilities));
        writer.u64(self.counts.len() as u64);
        for (&(truth, predicted), &count) in &self.counts {
            writer.i64(truth);
            writer.i64(predicted);
            writer.u64(count);
        }
        self.examples.write(&mut writer);
        writer.u64(self.mistakes.len() as u64);
        for Wrong { id, truth, predicted, margin, probability } in &self.mistakes {
            writer.text(id);
            writer.i64(*truth);
            writer.i64(*predicted);
            writer.f64(*margin);
            writer.f64(*probability);
        }
        writer.finish()
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, StageError> {
        let mut reader = Reader::new(bytes, FORMAT, WHAT)?;
        let mut tally = Self::default();
        let (mut names, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..reader.count()? {
            names.push(reader.text()?);
            labels.push(reader.i64()?);
        }
        let probabilities = reader.u64()? != 0;
        tally.candidates = (!names.is_empty()).then(|| Candidates::new(names, labels, probabilities));
        for _ in 0..reader.count()? {
            let pair = (reader.i64()?, reader.i64()?);
            tally.counts.insert(pair, reader.u64()?);
        }
        tally.examples = Examples::read(&mut reader)?;
        for _ in 0..reader.count()? {
            let (id, truth, predicted) = (reader.text()?, reader.i64()?, reader.i64()?);
            let (margin, probability) = (reader.f64()?, reader.f64()?);
            tally.mistakes.push(Wrong { id, truth, predicted, margin, probability });
        }
        reader.finish()?;
        Ok(tally)
    }
}

/// The first names of a list that may be long.
fn start(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(names: &[&str], probabilities: bool) -> Tally {
        let labels = (0..names.len() as i64).collect();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Tally { candidates: Some(Candidates::new(names, labels, probabilities)), ..Tally::default() }
    }

    #[test]
    fn the_worst_mistakes_come_first_and_are_all_that_is_kept() {
        let mut tally = tally(&["a", "b"], false);
        for (id, truth, margin) in [("x", 0, 1.0), ("y", 0, 3.0), ("z", 7, 0.0), ("w", 0, 1.0)] {
            tally.add(id, truth, &[0.0, margin]);
        }
        tally.keep_worst(3);
        let ids: Vec<_> = tally.mistakes.iter().map(|mistake| mistake.id.as_str()).collect();
        assert_eq!(ids, ["z", "y", "w"]);
        let read = Tally::read(&tally.write()).unwrap();
        assert_eq!((&read.counts, &read.mistakes), (&tally.counts, &tally.mistakes));
        assert_eq!(format!("{:?}", read.examples), format!("{:?}", tally.examples));
    }

    #[test]
    fn losses_come_from_logits_or_from_probabilities() {
        let mut logits = tally(&["a", "b"], false);
        logits.add("x", 1, &[2.0, 1.0]);
        let found = logits.examples.0[0];
        let softmax = 1.0 / (1.0 + (-1.0f64).exp());
        assert!((f64::from(found.confidence) - softmax).abs() < 1e-6, "{found:?}");
        assert!((f64::from(found.loss) + (1.0 - softmax).ln()).abs() < 1e-6, "{found:?}");
        let mut probabilities = tally(&["a", "b"], true);
        probabilities.add("x", 1, &[0.75, 0.25]);
        let found = probabilities.examples.0[0];
        assert_eq!((found.confidence, found.loss), (0.75, -(0.25f32.ln())));
        logits.add("y", 1, &[1e4, -1e4]);
        assert_eq!(logits.examples.0[1].loss, 2e4);
    }
}
