//! Models and datasets from the command line.

use std::{fs, path::Path};

use crate::program::Program;
use serde_json::{Value, json};

/// Some digits as files.
fn pictures(program: &Program) {
    let text = "version: 1\nname: digits\nstages:\n  data: {uses: dataset, with: {source: 'mnist:test'}, keep: true}\n";
    program.file("digits.yaml", text);
    program.json(&["run", "digits.yaml", "--limit", "1"], 0);
    assert_eq!(program.call(&["export", "latest", "data", "-o", "digit.png"]).code, 0);
}

#[test]
fn a_classifier_tells_its_own_classes() {
    let program = Program::new();
    pictures(&program);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/golden/efficientnet_lite");
    let model = model.to_str().unwrap();
    let found = program.json(&["classify", "digit.png", "--model", model], 0);
    let labels = found[0]["labels"].as_array().unwrap();
    let probabilities: Vec<_> = labels.iter().map(|it| it["probability"].as_f64().unwrap()).collect();
    assert_eq!(labels.len(), 5, "the most probable of seven");
    assert!(probabilities.is_sorted_by(|a, b| a >= b) && probabilities.iter().sum::<f64>() <= 1.0);
    let shown = program.json(&["model", "show", model], 0);
    assert_eq!(shown["classes"].as_array().unwrap().len(), 7);

    let given = program.call(&["classify", "digit.png", "--model", model, "--labels", "a,b"]);
    assert!(given.code == 2 && given.stderr.contains("leave out --labels"), "{}", given.stderr);
    let missing = program.call(&["classify", "digit.png"]);
    assert!(missing.code == 2 && missing.stderr.contains("--labels \"a cat,a dog\""), "{}", missing.stderr);
}

#[test]
fn pictures_are_classified_with_free_labels() {
    let program = Program::new();
    pictures(&program);
    let found = program.json(&["classify", "digit.png", "digit.png", "--labels", "God, ghost,human"], 0);
    assert_eq!(found.as_array().unwrap().len(), 2);
    assert_eq!(found[0]["image"], "digit.png");
    let labels = found[0]["labels"].as_array().unwrap();
    let names: Vec<_> = labels.iter().map(|it| it["label"].as_str().unwrap()).collect();
    assert_eq!(names, ["God", "ghost", "human"]);
    let sum: f64 = labels.iter().map(|it| it["probability"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    assert!(labels.iter().all(|it| it["logit"].is_number()));

    program.file("labels.json", r#"["God", "ghost", "human"]"#);
    program.file("labels.txt", "God\nghost\n\nhuman\n");
    for file in ["labels.json", "labels.txt"] {
        let again = program.json(&["classify", "digit.png", "--labels-file", file], 0);
        assert_eq!(again[0], found[0], "{file}");
    }

    let table = program.call(&["classify", "digit.png", "--labels", "God,ghost,human"]).stdout;
    let percents: Vec<f64> =
        table.lines().filter_map(|line| line.split_once(" %")?.0.split_whitespace().last()?.parse().ok()).collect();
    assert_eq!(percents.len(), 3);
    assert!(percents.is_sorted_by(|a, b| a >= b), "{table}");
}

#[test]
fn pictures_that_are_none_are_told_by_name() {
    let program = Program::new();
    program.file("not.png", "hello");
    let called = program.call(&["classify", "not.png", "--labels", "a,b"]);
    assert!(called.code == 1 && called.stderr.contains("not.png"), "{}", called.stderr);
    let called = program.call(&["classify", "gone.png", "--labels", "a,b"]);
    assert!(called.code == 1 && called.stderr.contains("cannot read gone.png"), "{}", called.stderr);
    let called = program.call(&["classify", "not.png", "--labels", "a", "--model", "builtin:mini-clop"]);
    assert!(called.code == 2 && called.stderr.contains("hint: there is builtin:mini-clip"), "{}", called.stderr);
    let called = program.call(&["model", "show", "builtin:nope"]);
    assert!(called.code == 2 && called.stderr.contains("hint: there is builtin:mini-clip"), "{}", called.stderr);
}

#[test]
fn files_without_an_end_are_not_read() {
    let program = Program::new();
    pictures(&program);
    fs::File::create(program.path("sparse")).unwrap().set_len(3 << 30).unwrap();
    let classify = ["classify", "digit.png", "--labels-file"];
    for (arguments, problem) in [
        (vec!["classify", "/dev/zero", "--labels", "a,b"], "cannot read /dev/zero: expected a regular file"),
        (vec!["classify", "sparse", "--labels", "a,b"], "cannot read sparse: longer than 512 MiB"),
        ([&classify[..], &["/dev/zero"]].concat(), "cannot read /dev/zero: expected a regular file"),
        ([&classify[..], &["sparse"]].concat(), "cannot read sparse: longer than 64 MiB"),
        (vec!["model", "preprocess", "/dev/zero", "-o", "x"], "cannot read /dev/zero: expected a regular file"),
    ] {
        let called = program.call(&arguments);
        assert!(called.code == 1 && called.stderr.contains(problem), "{}", called.stderr);
    }
}

#[test]
fn labels_neither_steer_a_terminal_nor_widen_the_table_without_limit() {
    let program = Program::new();
    pictures(&program);
    let labels = format!("a\u{1b}[2J,{}", "b".repeat(500));
    let called = program.call(&["classify", "digit.png", "--labels", &labels]);
    assert_eq!(called.code, 0, "{}", called.stderr);
    assert!(!called.stdout.contains('\u{1b}') && called.stdout.contains("a\\u{1b}[2J"), "{}", called.stdout);
    assert!(called.stdout.contains(&format!("  {}…  ", "b".repeat(60))), "{}", called.stdout);
    let found = program.json(&["classify", "digit.png", "--labels", &labels], 0);
    assert_eq!(found[0]["labels"][0]["label"], "a\u{1b}[2J");
    assert_eq!(found[0]["labels"][1]["label"], "b".repeat(500));
    for arguments in [["model", "show", "a\u{1b}[2J"], ["kinds", "a\u{1b}[2J", "x"]] {
        let called = program.call(&arguments);
        assert!(called.code != 0 && !called.stderr.contains('\u{1b}'), "{}", called.stderr);
    }
}

#[test]
fn lines_become_tokens() {
    let program = Program::new();
    let called = program.call_with(&["model", "tokenize", "--json"], "a photo\n\nCafé 🎉 &amp;amp;");
    assert_eq!(called.code, 0, "{}", called.stderr);
    let ids: Vec<Vec<u32>> = serde_json::from_str(&called.stdout).unwrap();
    assert_eq!(ids.len(), 3);
    assert_eq!(ids[1].len(), 2, "an empty line has its start and its end");
    assert!(ids.iter().all(|it| it.first() == ids[1].first() && it.last() == ids[1].last()));
    let long = program.call_with(&["model", "tokenize"], &format!("a\n{}", "b".repeat((1 << 20) + 1)));
    assert!(long.code == 1 && long.stderr.contains("stdin, line 2: longer than 1 MiB"), "{}", long.stderr);
    let empty = program.call_with(&["model", "tokenize", "--json"], "");
    assert_eq!(empty.stdout, "[]\n");
    let padded: Vec<Vec<u32>> =
        serde_json::from_str(&program.call_with(&["model", "tokenize", "--json", "--pad"], "a\nb c").stdout).unwrap();
    assert_eq!(padded[0].len(), padded[1].len());
}

#[test]
fn a_picture_becomes_a_models_input() {
    let program = Program::new();
    pictures(&program);
    let said = program.json(&["model", "preprocess", "digit.png", "-o", "pixels.safetensors"], 0);
    let file = fs::read(program.path("pixels.safetensors")).unwrap();
    let length = usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap();
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    assert_eq!(header["pixel_values"]["dtype"], "F32");
    assert_eq!(header["pixel_values"]["shape"], said["pixel_values"]);
    assert_eq!(said["pixel_values"].as_array().unwrap()[..2], [json!(1), json!(3)]);
}

#[test]
fn a_model_is_exported_as_a_folder_that_works_like_it() {
    let program = Program::new();
    pictures(&program);
    assert_eq!(program.call(&["model", "export", "builtin:mini-clip", "-o", "clip"]).code, 0);
    for name in ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"] {
        assert!(program.path("clip").join(name).is_file(), "{name}");
    }
    let classify = |model: &str| program.json(&["classify", "digit.png", "--labels", "one,two", "--model", model], 0);
    assert_eq!(classify("clip"), classify("builtin:mini-clip"));
    let again = program.call(&["model", "export", "builtin:mini-clip", "-o", "clip"]);
    assert!(again.code == 1 && again.stderr.contains("name a new one"), "{}", again.stderr);

    assert!(program.call(&["model", "list"]).stdout.contains("builtin:mini-clip"));
    let shown = program.json(&["model", "show", "builtin:mini-clip"], 0);
    assert!(shown["dim"].as_u64().unwrap() > 0 && shown["image_size"].as_u64().unwrap() > 0);
    assert_eq!(program.call(&["model", "show", "clip"]).code, 0);
}

#[test]
fn datasets_are_listed_and_looked_into() {
    let program = Program::new();
    let list = program.json(&["dataset", "list"], 0);
    assert_eq!((&list[0]["dataset"], &list[0]["available"]), (&json!("mnist:test"), &json!(true)));
    let shown = program.json(&["dataset", "show", "mnist:test"], 0);
    assert_eq!(shown["rows"], 10_000);
    assert_eq!(shown["classes"].as_array().unwrap().len(), 10);
    let missing = program.call(&["dataset", "show", "mnist:train"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("hint: runner dataset fetch mnist"), "{}", missing.stderr);
    let nothing = program.call(&["dataset", "fetch", "imagenet"]);
    assert!(nothing.code == 2 && nothing.stderr.contains("expected mnist or fashion-mnist"), "{}", nothing.stderr);
}

#[test]
fn a_dataset_has_a_name_of_ones_own() {
    let program = Program::new();
    program.file("sets/mine.csv", "text\nhello\nworld\n");
    program.file("runner.toml", "[datasets]\nmine = 'sets/mine.csv'\n");
    fs::create_dir(program.path("deep")).unwrap();
    let output = program.command(&["dataset", "show", "mine", "--json"]).current_dir(program.path("deep")).output();
    let shown: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(shown["rows"], 2);
}

#[test]
fn the_doctor_finds_a_sound_installation() {
    let program = Program::new();
    let found = program.json(&["doctor"], 0);
    assert_eq!(found["ok"], true, "{found}");
    assert!(!program.path(".runner").exists());
}

/// A checkpoint of the crate that reads them, in the program's folder.
fn checkpoint(program: &Program, name: &str) {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/golden");
    program.file(name, fs::read(golden.join(name)).unwrap());
}

#[test]
fn a_published_archive_is_imported_listed_shown_and_verified() {
    let program = Program::new();
    checkpoint(&program, "openai_vit.pt");
    checkpoint(&program, "openai_vit.expected.safetensors");
    let called = program.call(&["model", "import", "openai_vit.pt", "--name", "vit"]);
    assert_eq!(called.code, 0, "{}", called.stderr);
    assert!(called.stdout.contains("quick GELU"), "{}", called.stdout);
    assert!(called.stdout.contains("class QuickGELU in the archive"), "{}", called.stdout);
    let listed = program.json(&["model", "list"], 0);
    assert_eq!(listed[1]["model"], "imported:vit");
    assert_eq!(program.json(&["model", "show", "imported:vit"], 0)["dim"], 24);
    let against = ["model", "verify", "imported:vit", "--against", "openai_vit.expected.safetensors"];
    let verified = program.json(&against, 0);
    assert_eq!(verified["verified"], true);
    assert!(verified["differences"]["images"].as_f64().unwrap() < 1e-4, "{verified}");
    let strict = program.call(&[&against[..], &["--tolerance", "0"]].concat());
    assert!(strict.code == 1 && strict.stderr.contains("images are off by"), "{}", strict.stderr);
    // An imported model is one like any other: in a folder for transformers, and in a pipeline.
    assert_eq!(program.call(&["model", "export", "imported:vit", "-o", "folder"]).code, 0);
    assert_eq!(program.json(&["model", "verify", "folder"], 0)["tensors"], verified["tensors"]);
    let text = "version: 1\nname: m\nstages:\n  data: {uses: dataset, with: {source: 'mnist:test'}}\n  \
                image: {uses: encode, inputs: {rows: data, model: 'imported:vit'}}\n";
    program.file("m.yaml", text);
    program.json(&["run", "m.yaml", "--limit", "2"], 0);
}

#[test]
fn a_model_that_cannot_be_imported_says_what_to_write() {
    let program = Program::new();
    program.file("evil.pt", b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.");
    let called = program.call(&["model", "import", "evil.pt"]);
    assert!(
        called.code == 1 && called.stderr.contains("evil.pt: refused: its pickle asks for `os.system`"),
        "{}",
        called.stderr
    );
    assert!(called.stderr.contains("hint: take the weights as safetensors"), "{}", called.stderr);
    let called = program.call(&["model", "import", "evil.pt", "--as", "timm"]);
    assert!(called.code == 2 && called.stderr.contains("--as open_clip:ViT-B-32"), "{}", called.stderr);
    let mut offline = program.command(&["model", "import", "hf:openai/clip-vit-base-patch32"]);
    let called = crate::program::Called::new(offline.env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert!(
        called.code == 1 && called.stderr.contains("hf download openai/clip-vit-base-patch32"),
        "{}",
        called.stderr
    );
    assert!(called.stderr.contains(".cache/huggingface/hub"), "{}", called.stderr);
}
