//! Where records and artifacts are, and that nobody learns a password from it.

use std::fs;

use crate::program::{Called, Program, filters, repository};
use runner_testbed::{Postgres, S3};
use serde_json::{Value, json};

const PASSWORD: &str = "s3cretpw";
const SMALL: &str =
    "version: 1\nname: small\nstages:\n  data: {uses: dataset, with: {source: 'mnist:test'}, keep: true}\n";

macro_rules! check {
    ($name:literal, $called:expr) => {
        insta::with_settings!({filters => filters()}, { insta::assert_snapshot!($name, $called.all()) });
    };
}

/// The main job on a few digits.
fn evaluate() -> [String; 6] {
    let pipeline = repository().join("pipelines/zero_shot_eval.yaml").display().to_string();
    ["run".to_owned(), pipeline, "--limit".to_owned(), "100".to_owned(), "--set".to_owned(), "min_top1=0".to_owned()]
}

#[test]
fn places_that_are_none_say_what_is_expected() {
    let program = Program::new();
    check!("place-scheme", program.call(&["runs", "--records", "mysql://me:s3cretpw@db/runs"]));
    check!("place-database", program.call(&["runs", "--records", "postgres://me:s3cretpw@db"]));
    check!("place-bucket", program.call(&["runs", "--artifacts", "gs://bucket"]));
    let mut command = program.command(&["runs"]);
    check!("place-environment", Called::new(command.env("RUNNER_RECORDS", "db.example.org").output().unwrap()));
    program.file("runner.toml", "records = 'postgres://me:${NO_SUCH_VARIABLE}@db/runs'\n");
    check!("place-variable", program.call(&["runs"]));
    program.file("runner.toml", "artifacts = 's3://bucket/x'\n[s3]\nendpiont = 'http://localhost:9000'\n");
    program.file("p.yaml", SMALL);
    check!("place-s3", program.call(&["run", "p.yaml"]));
    program.file("runner.toml", "cache_quota = 'lots'\n");
    check!("place-quota", program.call(&["runs"]));
}

#[test]
fn a_flag_is_stronger_than_the_environment_and_that_than_files() {
    let program = Program::new();
    program.file("p.yaml", SMALL);
    program.file("runner.toml", "artifacts = 'from-file'\n");
    let stored = |folder: &str| program.path(folder).is_dir();
    let run = |arguments: &[&str], variable: Option<&str>| {
        let mut command = program.command(&[&["run", "p.yaml", "--limit", "5", "--json"], arguments].concat());
        if let Some(folder) = variable {
            command.env("RUNNER_ARTIFACTS", folder);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["--artifacts", "from-flag", "--store", "a"], Some("from-environment"));
    assert!(stored("from-flag") && !stored("from-environment") && !stored("from-file"));
    run(&["--store", "b"], Some("from-environment"));
    assert!(stored("from-environment") && !stored("from-file"));
    // A store that is named on the command line is whole: the file's places are those of another.
    run(&["--store", "c"], None);
    assert!(stored("c/artifacts") && !stored("from-file"));
    run(&[], None);
    assert!(stored("from-file") && !stored(".runner/artifacts/00"));
}

#[test]
fn an_empty_variable_names_no_store() {
    let program = Program::new();
    program.file("p.yaml", SMALL);
    let mut command = program.command(&["run", "p.yaml", "--limit", "5", "--json"]);
    let called = Called::new(command.env("RUNNER_STORE", "").output().unwrap());
    assert_eq!(called.code, 0, "{}", called.all());
    assert!(program.path(".runner/records.sqlite").is_file());
}

#[cfg(unix)]
#[test]
fn settings_and_secrets_without_an_end_are_not_read() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let program = Program::new();
    program.file("p.yaml", SMALL);
    let refused = |problem: &str| {
        let called = program.call(&["validate", "p.yaml"]);
        assert!(called.code == 2 && called.stderr.contains(problem), "{}", called.all());
    };
    let sparse = |name: &str| {
        let file = fs::File::create(program.path(name)).unwrap();
        file.set_len(3 << 30).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    };
    sparse("runner.toml");
    refused("runner.toml: longer than 1 MiB, the most that is read of such a file");
    fs::create_dir_all(program.path(".config/runner")).unwrap();
    fs::remove_file(program.path("runner.toml")).unwrap();
    symlink("/dev/zero", program.path(".config/runner/runner.toml")).unwrap();
    refused("runner.toml: expected a regular file");
    fs::remove_file(program.path(".config/runner/runner.toml")).unwrap();
    program.file("runner.toml", "secrets_file = 'secrets'\n");
    sparse("secrets");
    refused("secrets: longer than 1 MiB, the most that is read of such a file");
}

#[test]
fn a_password_is_nowhere() {
    let program = Program::new();
    program.file("p.yaml", SMALL);
    let quiet = |called: &Called| assert!(!called.all().contains(PASSWORD), "{}", called.all());
    let wrong = format!("mysql://me:{PASSWORD}@db/runs");
    for arguments in [
        vec!["run", "p.yaml", "--records", &wrong],
        vec!["plan", "p.yaml", "--json", "--records", &wrong],
        // Not even where it is no flag at all.
        vec!["run", "p.yaml", "--recods", &wrong],
        vec!["runs", &wrong],
    ] {
        let called = program.call(&arguments);
        assert_eq!(called.code, 2, "{}", called.all());
        quiet(&called);
    }
    let doctor = program.call(&["doctor", "--records", &wrong]);
    assert!(doctor.code == 1 && doctor.stdout.contains("wrong  store"), "{}", doctor.all());
    quiet(&doctor);
    // What needs no store does not ask where it is.
    program.file("runner.toml", "records = 'postgres://me:${NO_SUCH_VARIABLE}@db/runs'\nsecrets_file = 'not-here'\n");
    assert_eq!(program.call(&["validate", "p.yaml"]).code, 0);
    assert_eq!(program.call(&["plan", "p.yaml"]).code, 2);
    program.file("runner.toml", format!("records = ['{wrong}']\n"));
    let called = program.call(&["runs"]);
    assert_eq!(called.code, 2);
    quiet(&called);
}

#[test]
fn a_database_and_a_bucket_hold_the_same_as_a_folder() {
    let (postgres, s3) = (Postgres::start(), S3::start());
    let local = Program::new();
    let team = Program::new();
    let password = postgres.password().unwrap_or("no-password-at-all").to_owned();
    // The password stands in the environment, the rest in the file.
    let url = postgres.url().replace(&password, "${DATABASE_PASSWORD}");
    let file = format!("records = '{url}'\nartifacts = '{}'\ncache_quota = '1 GB'\n", s3.url());
    team.file("runner.toml", file);
    let arguments = evaluate();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let call = |arguments: &[&str]| {
        let mut command = team.command(arguments);
        command.envs(s3.environment()).env("DATABASE_PASSWORD", &password);
        let called = Called::new(command.output().unwrap());
        assert!(!called.all().contains(&password) || password.len() < 4, "{}", called.all());
        assert!(!called.all().contains(s3.secret()), "{}", called.all());
        called
    };
    let document = |arguments: &[&str]| -> Value {
        let called = call(&[arguments, &["--json"]].concat());
        assert_eq!(called.code, 0, "{}", called.all());
        serde_json::from_str(&called.stdout).unwrap()
    };

    let (here, there) = (local.json(&arguments, 0), document(&arguments));
    assert_eq!((&there["metrics"], &there["artifacts"]), (&here["metrics"], &here["artifacts"]));
    let again = document(&arguments);
    assert_eq!((&again["tasks"]["executed"], &again["artifacts"]), (&json!(0), &here["artifacts"]));
    assert!(!team.path(".runner/records.sqlite").exists() && !s3.keys().is_empty());

    let doctor = document(&["doctor"]);
    let found = |name: &str| {
        let checks = doctor["checks"].as_array().unwrap();
        checks.iter().find(|check| check["check"] == name).unwrap()["found"].as_str().unwrap().to_owned()
    };
    assert!(found("records").contains("PostgreSQL "), "{doctor}");
    assert!(found("artifacts").contains("s3://"), "{doctor}");
    let shown = document(&["show", "latest"]);
    assert_eq!(shown["status"], "succeeded");
    assert_eq!(document(&["plan", arguments[1], "--limit", "100"])["results"]["compute"], 0);
    assert_eq!(call(&["export", "latest", "scored", "-o", "scored.csv"]).code, 0);
    assert_eq!(fs::read_to_string(team.path("scored.csv")).unwrap().lines().count(), 101);
    assert_eq!(call(&["gc", "--dry-run"]).code, 0);
}
