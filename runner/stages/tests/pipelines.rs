//! Every example in `pipelines/` runs, with the real language, engine and store.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{fs, path::Path, sync::Arc};

use runner_contract::Registry;
use runner_engine::{Cancel, Config, Decoded, Engine, RunReport};
use runner_stages::{Services, registry};
use runner_store::Store;

/// Where examples are run from.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Runs an example of that name on the first rows of its data.
async fn run(store: &Store, name: &str, set: &[(&str, &str)], limit: usize) -> RunReport {
    let services = Services::new(ROOT);
    let registry: Arc<dyn Registry> = Arc::new(registry(&services));
    let path = format!("pipelines/{name}.yaml");
    let bytes = fs::read(Path::new(ROOT).join(&path)).unwrap();
    let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let pipeline = runner_spec::load(&path, &bytes, &set, registry.as_ref(), &services)
        .unwrap_or_else(|mistakes| panic!("{name}: {mistakes:#?}"));
    let decode = |bytes: &[u8], path: &str| {
        let pixels = runner_data::decode(bytes, path, &runner_data::Limits::default()).map_err(|e| e.to_string())?;
        Ok(Decoded { height: pixels.height, width: pixels.width, channels: pixels.channels, data: pixels.data })
    };
    let config = Config {
        threads: 2,
        backend: "cpu/test".into(),
        gpus: Ok(Vec::new()),
        decode: Arc::new(decode),
        secrets: Default::default(),
    };
    let engine = Engine::new(registry, store.clone(), config);
    let plan = engine.plan(pipeline, Some(limit)).await.unwrap();
    let report = engine.execute(plan, Vec::new(), &Cancel::new(), &mut |_| {}).await.unwrap();
    assert_eq!(report.error, None, "{name}");
    report
}

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("state")).await.unwrap();
    (folder, store)
}

fn files(report: &RunReport) -> Vec<String> {
    report.files.iter().map(|file| file.name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_shot_eval_measures_and_shows_mistakes_and_is_cached() {
    let (_folder, store) = store().await;
    let set = [("min_top1", "0.9")];
    let first = run(&store, "zero_shot_eval", &set, 300).await;
    assert!(first.passed(), "{:?}", first.metrics);
    assert_eq!(first.metrics["metrics.n"].value, 300.0);
    let names = files(&first);
    for name in ["confusion_matrix.png", "misclassified.png", "per_class.csv"] {
        assert!(names.iter().any(|file| file.ends_with(name)), "{name} is not among {names:?}");
    }
    let again = run(&store, "zero_shot_eval", &set, 300).await;
    assert_eq!(again.tasks.executed, 0);
    assert_eq!(again.metrics["metrics.top1"].value, first.metrics["metrics.top1"].value);
}

#[tokio::test(flavor = "multi_thread")]
async fn classify_scores_the_pictures_of_a_folder() {
    let (_folder, store) = store().await;
    let report = run(&store, "classify", &[], 100).await;
    assert!(report.artifacts.contains_key("scored"), "{:?}", report.artifacts);
    let scored = report.stages.iter().find(|stage| stage.name == "scored").unwrap();
    assert_eq!((scored.rows, scored.bad), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn classify_images_names_and_shows_what_it_sees() {
    let (_folder, store) = store().await;
    let model = ("model", "runner/models/tests/golden/efficientnet_lite");
    let report = run(&store, "classify_images", &[model], 100).await;
    let classes = report.stages.iter().find(|stage| stage.name == "classes").unwrap();
    assert_eq!((classes.rows, classes.bad), (5, 0));
    assert!(report.artifacts.contains_key("classes"), "{:?}", report.artifacts);
    assert_eq!(files(&report), ["gallery.png"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn subset_measures_the_wanted_classes_in_two_halves() {
    let (_folder, store) = store().await;
    let report = run(&store, "subset", &[], 400).await;
    let n = |stage: &str| report.metrics[&format!("{stage}.n")].value;
    assert!(n("first") > 0.0 && n("second") > 0.0);
    assert!(n("first") + n("second") < 200.0, "three classes of ten");
}

#[tokio::test(flavor = "multi_thread")]
async fn train_clip_trains_and_evaluates() {
    let (_folder, store) = store().await;
    let set = [
        ("train", "[\"mnist:test\"]"),
        ("clothes", "mnist:test"),
        ("epochs", "1"),
        ("batch", "32"),
        ("validation", "0.2"),
        ("min_digits", "0"),
        ("min_clothes", "0"),
    ];
    let report = run(&store, "train_clip", &set, 128).await;
    assert!(report.passed());
    assert!(report.metrics.contains_key("clip.loss"), "{:?}", report.metrics);
    for stage in ["digits_metrics[digits_wording=usual]", "digits_metrics[digits_wording=new]"] {
        assert_eq!(report.metrics[&format!("{stage}.n")].value, 128.0);
    }
    assert!(report.metrics.contains_key("digits_combinations[digits_said=told].top1"), "{:?}", report.metrics);
    assert!(files(&report).iter().any(|file| file.ends_with("loss.png")));
}

#[tokio::test(flavor = "multi_thread")]
async fn retrieval_measures_recall_both_ways_and_the_fit_of_pairs() {
    let (_folder, store) = store().await;
    let report = run(&store, "retrieval", &[], 60).await;
    for name in ["found.image_retrieval_recall@5", "found.text_retrieval_recall@5", "fit.clip_s", "fit.clip_s.low"] {
        assert!(report.metrics.contains_key(name), "{name} is not among {:?}", report.metrics);
    }
    assert_eq!(report.metrics["fit.n"].value, 300.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_prompts_finds_the_same_ensemble_by_either_way() {
    let (_folder, store) = store().await;
    let report = run(&store, "compare_prompts", &[], 300).await;
    assert_eq!(report.metrics["gains.top1"].value, report.metrics["metrics[words=set].top1"].value);
}

#[tokio::test(flavor = "multi_thread")]
async fn near_duplicates_finds_what_leaked() {
    let (_folder, store) = store().await;
    let report = run(&store, "near_duplicates", &[], 100).await;
    assert_eq!(report.metrics["leaked.share"].value, 1.0);
    assert!(files(&report).iter().any(|file| file == "duplicates.png"));
}
