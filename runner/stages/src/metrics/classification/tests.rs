use runner_contract::{ImageForm, ImageRef, ImagesBuilder, Schema};
use serde_json::json;

use super::*;
use crate::{
    score::{LABELS, NAMES},
    testing::{context, fold},
};

/// Rows scored against six classes: `(true, scores that are not 0)`.
fn scored(first: usize, rows: &[(i64, &[(usize, f32)])]) -> Batch {
    let mut images = ImagesBuilder::new(ImageForm::Pixels);
    let mut scores = Vec::new();
    for (_, set) in rows {
        let mut row = [0.0; 6];
        set.iter().for_each(|&(place, score)| row[place] = score);
        scores.extend(row);
        images.push(ImageRef::Pixels { height: 2, width: 2, channels: 1, data: &[0, 80, 160, 240] }).unwrap();
    }
    let names = json!(["a", "b", "c", "d", "e,f", "g"]).to_string();
    let metadata = BTreeMap::from([(NAMES.to_owned(), names), (LABELS.to_owned(), "[0,1,2,3,4,5]".to_owned())]);
    Batch::new((first..first + rows.len()).map(|i| format!("row/{i}")).collect())
        .with("image", ColumnData::Images(images))
        .unwrap()
        .with("label", ColumnData::Labels(rows.iter().map(|(label, _)| *label).collect()))
        .unwrap()
        .with_metadata("scores", ColumnData::Scores(scores, 6), metadata)
        .unwrap()
}

fn shards() -> Vec<Vec<Batch>> {
    vec![
        vec![scored(0, &[(0, &[(0, 9.0)]), (0, &[(1, 3.0)])]), scored(2, &[(1, &[(1, 1.0)])])],
        // The last: five others come before its true class, which is not among the best five.
        vec![scored(3, &[(5, &[(0, 5.0), (1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)])])],
    ]
}

fn classified(shards: &[Vec<Batch>]) -> Outcome {
    fold("metrics", json!({"task": "classification"}), shards).unwrap()
}

fn file<'a>(outcome: &'a Outcome, name: &str) -> &'a [u8] {
    &outcome.files.iter().find(|file| file.name == name).unwrap().bytes
}

#[test]
fn accuracy_and_recall_are_shares_of_the_rows() {
    let outcome = classified(&shards());
    for (name, value) in [("mean_per_class_recall", 0.5), ("n", 4.0), ("top1", 0.5), ("top5", 0.75)] {
        assert_eq!(outcome.metrics[name], value, "{name}");
    }
    let names: Vec<_> = outcome.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "confusion_matrix.png",
            "confusion_matrix.svg",
            "misclassified.png",
            "reliability.png",
            "reliability.svg",
            "per_class.csv",
            "evaluation.json"
        ]
    );
    let csv = String::from_utf8(file(&outcome, "per_class.csv").to_vec()).unwrap();
    assert!(csv.starts_with("label,name,n,recall,precision\n0,a,2,0.5,0.5\n1,b,1,1,0.5\n"), "{csv}");
    assert!(csv.contains("\n4,\"e,f\",0,0,0\n"), "{csv}");
}

#[test]
fn every_number_has_an_interval_round_it() {
    let metrics = classified(&shards()).metrics;
    for name in ["top1", "top5", "mean_per_class_recall", "ece", "log_loss"] {
        let [low, value, high] = ["low", "", "high"].map(|end| metrics[format!("{name}.{end}").trim_end_matches('.')]);
        assert!(low <= high, "{name}: {low} {value} {high}");
    }
    assert!(metrics["top1.low"] < 0.5 && metrics["top1.high"] > 0.5, "{metrics:?}");
    let without = fold("metrics", json!({"task": "classification", "resamples": 0}), &shards()).unwrap();
    assert!(!without.metrics.contains_key("top1.low") && without.metrics.contains_key("log_loss"));
}

#[test]
fn what_is_left_for_the_page_is_what_was_measured() {
    let outcome = classified(&shards());
    let evaluation = Evaluation::read(file(&outcome, EVALUATION)).unwrap();
    let Finding::Classification(found) = evaluation.finding else { panic!("another finding") };
    assert_eq!(found.confusion, [(0, 0, 1), (0, 1, 1), (1, 1, 1), (5, 0, 1)]);
    assert_eq!(found.classes[4].name, "e,f");
    assert_eq!(found.mistakes.len(), 2);
    assert!(found.mistakes.iter().all(|mistake| mistake.image.is_some()));
    assert_eq!(found.calibration.iter().map(|bin| bin.n).sum::<u64>(), 4);
}

#[test]
fn no_rows_have_a_count_and_no_accuracy() {
    let tally = Tally::default();
    let measured = tally.measure(Bootstrap { resamples: 10, seed: 0 }, &context(&[])).unwrap();
    let outcome = tally.outcome(measured, None).unwrap();
    assert_eq!(outcome.metrics, BTreeMap::from([("n".to_owned(), 0.0)]));
    assert_eq!(outcome.rows["rows"].schema(), Schema::new(columns()));
}

#[test]
fn the_same_rows_in_other_chunks_give_the_same_bytes() {
    let all: Vec<_> = shards().into_iter().flatten().collect();
    let one = classified(&[vec![Batch::concat(&all).unwrap()]]);
    let many = classified(&shards());
    assert_eq!(one.files, many.files);
    assert_eq!(one.metrics, many.metrics);
}
