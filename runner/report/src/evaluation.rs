//! The data behind a page: what one stage measured.

use serde::{Deserialize, Serialize};

/// The name of the file.
pub const EVALUATION: &str = "evaluation.json";

/// Raised when the data changes so that older programs would misread it.
const VERSION: u32 = 1;

/// A file that holds no evaluation, or one of a newer program.
#[derive(Debug)]
pub struct Unreadable(String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot read {EVALUATION}: {}", self.0)
    }
}

impl std::error::Error for Unreadable {}

/// What a stage measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// See [`Evaluation::read`].
    version: u32,
    /// The numbers, with their intervals.
    pub estimates: Vec<Estimate>,
    /// The rest.
    pub finding: Finding,
}

impl Evaluation {
    /// An evaluation of this version.
    pub fn new(estimates: Vec<Estimate>, finding: Finding) -> Self {
        Self { version: VERSION, estimates, finding }
    }

    /// The content of the file.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the file.
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let failed = |error: serde_json::Error| Unreadable(error.to_string());
        let head: Head = serde_json::from_slice(bytes).map_err(failed)?;
        if head.version != VERSION {
            return Err(Unreadable(format!("version {}, this program knows {VERSION}", head.version)));
        }
        serde_json::from_slice(bytes).map_err(failed)
    }
}

/// A number, and between which it lies with a confidence of 95 %.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// As among the metrics: `top1`.
    pub name: String,
    /// Its value on the rows there were.
    pub value: f64,
    /// The interval, where one was asked for.
    pub interval: Option<(f64, f64)>,
    /// Rows (or queries) that it was taken over.
    pub n: u64,
}

/// What is shown beside numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Predictions of classes.
    Classification(Classification),
    /// Pictures found by captions, and captions by pictures.
    Retrieval(Retrieval),
    /// How much each template of an ensemble is worth.
    Templates(Templates),
    /// Pictures and the texts that belong to them, or pictures that are too much alike.
    Pairs(Pairs),
}

/// Right and wrong by class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// The classes, by label.
    pub classes: Vec<Class>,
    /// True class, predicted class (places in `classes`) and how many rows; none of 0.
    pub confusion: Vec<(usize, usize, u64)>,
    /// Confidence against accuracy, from the least confident to the most.
    pub calibration: Vec<Bin>,
    /// The most confident mistakes, the worst first.
    pub mistakes: Vec<Mistake>,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Its label.
    pub label: i64,
    /// Its name.
    pub name: String,
    /// Rows of it.
    pub n: u64,
    /// Rows of it that were recognised.
    pub right: u64,
    /// Rows that were taken for it, rightly or not.
    pub predicted: u64,
}

/// Rows of a similar confidence, by equal widths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// How many.
    pub n: u64,
    /// How many of them are right.
    pub right: u64,
    /// The mean of their confidences.
    pub confidence: f64,
}

/// A row whose prediction is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// Its id.
    pub id: String,
    /// The true class's name.
    pub truth: String,
    /// The predicted class's name.
    pub predicted: String,
    /// The prediction's probability.
    pub probability: f64,
    /// The picture, a small PNG in base64.
    pub image: Option<String>,
}

/// Ranks of what belongs together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// Pictures searched.
    pub images: u64,
    /// Captions searched.
    pub captions: u64,
    /// `k` of the recalls.
    pub k: Vec<usize>,
    /// For each `k`, the share of captions whose picture is among the first `k`.
    pub image_recall: Vec<f64>,
    /// For each `k`, the share of pictures with a caption among the first `k`.
    pub text_recall: Vec<f64>,
}

/// Templates of an ensemble, alone and left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Templates {
    /// The share of right rows with all templates.
    pub ensemble: f64,
    /// Rows.
    pub n: u64,
    /// In the order of the pipeline.
    pub templates: Vec<Template>,
}

/// One template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// The sentence with `{}`.
    pub template: String,
    /// The share of right rows with it alone.
    pub alone: f64,
    /// The share with all templates but it.
    pub without: f64,
    /// Rows that are right with all templates and wrong without it.
    pub helped: u64,
    /// Rows that are wrong with all templates and right without it.
    pub hurt: u64,
}

/// Pairs of rows and how alike they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pairs {
    /// What is shown, in a few words: `near-duplicates above 0.95`.
    pub title: String,
    /// How many pairs there are in all.
    pub n: u64,
    /// Some of them.
    pub pairs: Vec<Pair>,
}

/// Two rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The first row's id.
    pub first: String,
    /// The second row's id, or its text.
    pub second: String,
    /// The cosine of their embeddings.
    pub cosine: f64,
    /// Their pictures, small PNGs in base64.
    pub images: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_newer_data_is_refused() {
        let pairs = Pairs { title: "a".into(), n: 1, pairs: Vec::new() };
        let estimate = Estimate { name: "top1".into(), value: 0.1, interval: Some((0.0, 0.3)), n: 3 };
        let evaluation = Evaluation::new(vec![estimate], Finding::Pairs(pairs));
        assert_eq!(Evaluation::read(&evaluation.write()).unwrap(), evaluation);
        let newer = String::from_utf8(evaluation.write()).unwrap().replace("\"version\":1", "\"version\":2");
        let error = Evaluation::read(newer.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read evaluation.json: version 2, this program knows 1");
        assert!(Evaluation::read(b"[]").is_err());
    }
}
