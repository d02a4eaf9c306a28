//! One libFuzzer target a reader, all in one program, so that they are built once: the variable `RUNNER_FUZZ` chooses.
//!
//! A target fails where a reader panics, overflows, takes more than the memory or time that `scripts/fuzz` allows, or breaks a promise
//! that is asserted here.

#![no_main]

mod datasets;
mod language;
mod models;
mod pictures;
mod text;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

/// A reader to feed.
type Target = fn(&[u8]);

/// All of them, by name.
const TARGETS: [(&str, Target); 13] = [
    ("image", pictures::image),
    ("preprocess", pictures::preprocess),
    ("safetensors", models::safetensors),
    ("pickle", models::pickle),
    ("config", models::config),
    ("tar", datasets::tar),
    ("parquet", datasets::parquet),
    ("csv", datasets::csv),
    ("jsonl", datasets::jsonl),
    ("idx", datasets::idx),
    ("cifar", datasets::cifar),
    ("pipeline", language::pipeline),
    ("tokenizer", text::tokenizer),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("RUNNER_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("RUNNER_FUZZ is {name:?}, expected one of {:?}", TARGETS.map(|target| target.0))).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
