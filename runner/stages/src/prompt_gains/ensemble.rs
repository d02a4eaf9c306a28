//! An ensemble of prompts, and its judgement of pictures: with every template alone, with all, with all but one.
//!
//! One product a template is enough: with the sum `s` of a class's prompts, a picture's product with the ensemble without prompt `u` is
//! `x·s − x·u`. What f32 cannot decide is decided in f64, so that equal classes are equal whichever way they were computed.

use std::collections::BTreeMap;

use runner_contract::{Batch, StageError};
use runner_nn::{Workers, dot_products};

use crate::vectors::normalize;

/// Scores closer than this are compared again in f64: more than ten times what f32 loses on products of 1,024 components.
const CLOSE: f32 = 1e-5;
/// Numbers that are compared at a time.
const LANES: usize = 16;

/// Every template's prompt of every class.
pub(super) struct Ensemble {
    pub(super) dim: usize,
    pub(super) templates: Vec<String>,
    /// Where each label stands; classes are in the order of their labels.
    places: BTreeMap<i64, usize>,
    /// `[templates, classes, dim]`, each of length 1.
    prompts: Vec<f32>,
    /// `[classes, dim]`, the mean of each class's prompts, not normalised.
    means: Vec<f32>,
    /// The same in f64.
    exact: Vec<f64>,
    /// `[classes]`, one over the length of each mean.
    scale: Vec<f32>,
    /// `[templates, classes]`, one over the length of each mean without that template's part.
    scale_without: Vec<f32>,
}

/// Which pictures are right.
pub(super) struct Judged {
    /// With all templates.
    pub(super) all: Vec<bool>,
    /// For each template: with it alone, and with all but it.
    pub(super) each: Vec<Vec<(bool, bool)>>,
}

/// Which ensemble.
#[derive(Clone, Copy)]
enum Which {
    All,
    Alone(usize),
    Without(usize),
}

impl Ensemble {
    /// Reads encoded prompts: `embedding`, `label`, `template`. Every class has one prompt of every template.
    pub(super) fn read(rows: &Batch) -> Result<Self, StageError> {
        let (values, dim) = rows.vectors("embedding")?;
        let (labels, of) = (rows.integers("label")?, rows.text("template")?);
        let mut templates: Vec<String> = Vec::new();
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        for template in of.iter().flatten() {
            numbers.entry(template).or_insert_with(|| {
                templates.push(template.to_owned());
                templates.len() - 1
            });
        }
        let mut places: BTreeMap<i64, usize> = labels.iter().map(|&label| (label, 0)).collect();
        places.values_mut().zip(0..).for_each(|(place, i)| *place = i);
        let (t, c) = (templates.len(), places.len());
        if t < 2 {
            return Err(StageError::new(format!("{t} templates: what one is worth shows beside others only")));
        }
        let mut prompts = vec![0.0; t * c * dim];
        let mut filled = vec![false; t * c];
        for (i, (vector, label)) in values.chunks_exact(dim.max(1)).zip(labels).enumerate() {
            let (Some(&class), Some(&template)) = (places.get(label), numbers.get(of.value(i))) else { continue };
            let at = template * c + class;
            if std::mem::replace(&mut filled[at], true) {
                let template = of.value(i);
                return Err(StageError::new(format!("label {label} has two prompts of the template `{template}`")));
            }
            let place = &mut prompts[at * dim..][..dim];
            place.copy_from_slice(vector);
            normalize(place);
        }
        if let Some(at) = filled.iter().position(|filled| !filled) {
            let label = places.iter().find(|(_, place)| **place == at % c).map_or(0, |(label, _)| *label);
            let template = &templates[at / c];
            return Err(StageError::new(format!("label {label} has no prompt of the template `{template}`")));
        }
        let mut exact = vec![0.0; c * dim];
        for prompts in prompts.chunks_exact((c * dim).max(1)) {
            exact.iter_mut().zip(prompts).for_each(|(sum, &x)| *sum += f64::from(x) / t as f64);
        }
        let length = |vector: &mut dyn Iterator<Item = f64>| {
            let length = vector.map(|x| x * x).sum::<f64>().sqrt();
            if length > 0.0 { (1.0 / length) as f32 } else { 0.0 }
        };
        let mean = |class: usize| exact[class * dim..][..dim].iter();
        let scale = (0..c).map(|class| length(&mut mean(class).copied())).collect();
        let without = |at: usize| {
            let prompt = prompts[at * dim..][..dim].iter();
            length(&mut mean(at % c).zip(prompt).map(|(mean, &x)| mean - f64::from(x) / t as f64))
        };
        let scale_without = (0..t * c).map(without).collect();
        let means = exact.iter().map(|&x| x as f32).collect();
        Ok(Self { dim, templates, places, prompts, means, exact, scale, scale_without })
    }

    /// Judges pictures `[n, dim]`, each of length 1. A label that no prompt has is never right.
    pub(super) fn judge(&self, vectors: &[f32], labels: &[i64], threads: usize) -> Result<Judged, StageError> {
        let workers = Workers::new(threads).map_err(|error| StageError::new(error.to_string()))?;
        let (n, c, t) = (labels.len(), self.places.len(), self.templates.len());
        let truths: Vec<_> = labels.iter().map(|label| self.places.get(label).copied()).collect();
        let mut means = vec![0.0; n * c];
        workers.dot_products(vectors, &self.means, self.dim, &mut means);
        let vector = |row: usize| &vectors[row * self.dim..][..self.dim];
        let mean = |row: usize| &means[row * c..][..c];
        let judge = |row: usize, score: &dyn Fn(usize) -> f32, best: f32, truth: usize, which: Which| {
            let own = score(truth);
            if (own - best).abs() > CLOSE {
                own > best
            } else {
                self.decide(vector(row), truth, own.max(best), score, which)
            }
        };
        let all = (0..n).map(|row| {
            let Some(truth) = truths[row] else { return false };
            let score = |class: usize| mean(row)[class] * self.scale[class];
            let best = best_other(c, truth, |from, to| largest_product(&mean(row)[from..to], &self.scale[from..to]));
            judge(row, &score, best, truth, Which::All)
        });
        let all = all.collect();
        let part = 1.0 / t as f32;
        let each = workers.map(t, |template| {
            let mut alone = vec![0.0; n * c];
            dot_products(vectors, &self.prompts[template * c * self.dim..][..c * self.dim], self.dim, &mut alone);
            let scale = &self.scale_without[template * c..][..c];
            let verdict = |row: usize| {
                let Some(truth) = truths[row] else { return (false, false) };
                let (alone, mean) = (&alone[row * c..][..c], mean(row));
                let best = best_other(c, truth, |from, to| largest(&alone[from..to]));
                let is_alone = judge(row, &|class| alone[class], best, truth, Which::Alone(template));
                let best = best_other(c, truth, |from, to| {
                    largest_without(&mean[from..to], &alone[from..to], &scale[from..to], part)
                });
                let score = |class: usize| (mean[class] - alone[class] * part) * scale[class];
                (is_alone, judge(row, &score, best, truth, Which::Without(template)))
            };
            (0..n).map(verdict).collect()
        });
        Ok(Judged { all, each })
    }

    /// Whether the true class is the first of the best, by scores in f64 of those that are close to `top`.
    fn decide(&self, vector: &[f32], truth: usize, top: f32, score: &dyn Fn(usize) -> f32, which: Which) -> bool {
        let close = (0..self.places.len()).filter(|&class| class == truth || score(class) >= top - 2.0 * CLOSE);
        let best = close.map(|class| (class, self.exactly(vector, class, which)));
        best.reduce(|best, other| if other.1 > best.1 { other } else { best }).is_some_and(|(class, _)| class == truth)
    }

    /// The cosine of a picture with a class, in f64.
    fn exactly(&self, vector: &[f32], class: usize, which: Which) -> f64 {
        let prompt = |template: usize| &self.prompts[(template * self.places.len() + class) * self.dim..][..self.dim];
        let mean = &self.exact[class * self.dim..][..self.dim];
        let t = self.templates.len() as f64;
        let component = |i: usize| match which {
            Which::All => mean[i],
            Which::Alone(template) => f64::from(prompt(template)[i]),
            Which::Without(template) => mean[i] - f64::from(prompt(template)[i]) / t,
        };
        let (mut product, mut square) = (0.0, 0.0);
        for (i, &x) in vector.iter().enumerate() {
            let component = component(i);
            product += f64::from(x) * component;
            square += component * component;
        }
        if square > 0.0 { product / square.sqrt() } else { 0.0 }
    }
}

/// The best of all classes but one.
fn best_other(classes: usize, truth: usize, best: impl Fn(usize, usize) -> f32) -> f32 {
    best(0, truth).max(best(truth + 1, classes))
}

/// The largest of numbers that are computed from equal places of three slices: lanes first, so that it vectorises.
#[inline(always)]
fn largest_of(a: &[f32], b: &[f32], c: &[f32], value: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let (c_lanes, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a_lanes.iter().zip(b_lanes).zip(c_lanes) {
        for (((lane, &a), &b), &c) in lanes.iter_mut().zip(a).zip(b).zip(c) {
            let value = value(a, b, c);
            *lane = if value > *lane { value } else { *lane };
        }
    }
    let rest = a_rest.iter().zip(b_rest).zip(c_rest).map(|((&a, &b), &c)| value(a, b, c));
    rest.chain(lanes).fold(f32::NEG_INFINITY, f32::max)
}

fn largest(values: &[f32]) -> f32 {
    largest_of(values, values, values, |value, _, _| value)
}

fn largest_product(values: &[f32], scale: &[f32]) -> f32 {
    largest_of(values, scale, scale, |value, scale, _| value * scale)
}

fn largest_without(means: &[f32], alone: &[f32], scale: &[f32], part: f32) -> f32 {
    largest_of(means, alone, scale, |mean, alone, scale| (mean - alone * part) * scale)
}

#[cfg(test)]
mod tests {
    use runner_contract::{ColumnData, Digest};

    use super::*;

    const DIM: usize = 24;

    fn noise(n: usize, salt: usize) -> Vec<f32> {
        (0..n * DIM).map(|i| (((i + salt * 7001) * 7919 % 10007) as f32 - 5000.0) / 3000.0).collect()
    }

    /// Classes × templates prompts; classes 3 and 7 have the same ones.
    fn prompts(classes: usize, templates: usize) -> Batch {
        let mut values = noise(classes * templates, 1);
        values.copy_within(3 * templates * DIM..4 * templates * DIM, 7 * templates * DIM);
        let n = classes * templates;
        Batch::new((0..n).map(|i| i.to_string()).collect())
            .with("embedding", ColumnData::Embeddings(values, DIM, Digest::of(b"m")))
            .unwrap()
            .with("label", ColumnData::Labels((0..n).map(|i| 10 + (i / templates) as i64).collect()))
            .unwrap()
            .with("template", ColumnData::Text((0..n).map(|i| format!("t{}", i % templates)).collect()))
            .unwrap()
    }

    /// The first of the best by plain sums in f64.
    fn naive(vector: &[f32], prompts: &Batch, templates: &[usize], count: usize) -> usize {
        let (values, _) = prompts.vectors("embedding").unwrap();
        let unit = |row: usize| {
            let mut vector = values[row * DIM..][..DIM].to_vec();
            normalize(&mut vector);
            vector
        };
        let score = |class: usize| {
            let mut sum = [0.0f64; DIM];
            for t in templates {
                sum.iter_mut().zip(unit(class * count + t)).for_each(|(sum, x)| *sum += f64::from(x));
            }
            let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
            sum.iter().zip(vector).map(|(a, &b)| a * f64::from(b)).sum::<f64>() / length
        };
        let classes = prompts.len() / count;
        (0..classes).map(|class| (class, score(class))).reduce(|a, b| if b.1 > a.1 { b } else { a }).unwrap().0
    }

    #[test]
    fn every_verdict_is_that_of_plain_sums_and_equal_classes_go_to_the_first() {
        let (classes, templates, n) = (20, 5, 300);
        let prompts = prompts(classes, templates);
        let ensemble = Ensemble::read(&prompts).unwrap();
        let mut vectors = noise(n, 3);
        // Some lie right on the classes that are equal.
        for row in (0..n).step_by(10) {
            let values = prompts.vectors("embedding").unwrap().0;
            vectors[row * DIM..][..DIM].copy_from_slice(&values[3 * templates * DIM..][..DIM]);
        }
        vectors.chunks_exact_mut(DIM).for_each(normalize);
        // Each picture's class is the naive winner, its neighbour, or none.
        let everything: Vec<usize> = (0..templates).collect();
        let winner = |row: usize, which: &[usize]| naive(&vectors[row * DIM..][..DIM], &prompts, which, templates);
        let labels: Vec<i64> = (0..n)
            .map(|row| match row % 4 {
                3 => 7 + 10,
                2 => -1,
                _ => winner(row, &everything) as i64 + 10,
            })
            .collect();
        for threads in [1, 2] {
            let judged = ensemble.judge(&vectors, &labels, threads).unwrap();
            for (row, &label) in labels.iter().enumerate() {
                let right = |which: &[usize]| label == winner(row, which) as i64 + 10;
                assert_eq!(judged.all[row], right(&everything), "{row}");
                for t in 0..templates {
                    let others: Vec<usize> = everything.iter().copied().filter(|&other| other != t).collect();
                    assert_eq!(judged.each[t][row], (right(&[t]), right(&others)), "{row} {t}");
                }
            }
        }
    }

    #[test]
    fn a_prompt_that_is_missing_is_named() {
        let all = prompts(10, 3);
        let some = all.slice(0, 29);
        let message = |rows: &Batch| Ensemble::read(rows).err().unwrap().to_string();
        assert_eq!(message(&some), "label 19 has no prompt of the template `t2`");
        let twice = Batch::concat(&[all.clone(), all.slice(4, 1)]).unwrap();
        assert_eq!(message(&twice), "label 11 has two prompts of the template `t1`");
        assert!(message(&prompts(10, 1)).starts_with("1 templates"));
    }
}
