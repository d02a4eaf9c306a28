//! A place where the program runs, and what must be true there in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use runner_store::{ArtifactsPlace, Place, RunStatus, Store, TaskStatus};
use runner_testbed::{Postgres, Proxy, S3};
use serde_json::Value;
use tempfile::TempDir;

/// Rows of the test digits: a few shards, a second of work.
const ROWS: &str = "2500";

/// A folder to work in, with a pair of stores.
pub(crate) struct Site {
    folder: TempDir,
    services: Option<Services>,
    /// How long the program waits for a bucket that is out of reach.
    patience: &'static str,
}

struct Services {
    postgres: Postgres,
    /// Between the program and the database.
    database: Proxy,
    s3: S3,
}

/// How a call of the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) document: Value,
    pub(crate) stderr: String,
}

/// What a run leaves that nothing disturbs, on the default pair.
pub(crate) struct Undisturbed {
    metrics: Value,
    artifacts: Value,
    /// Tasks that were computed.
    done: u64,
    blobs: BTreeSet<String>,
    /// How long it takes.
    pub(crate) took: Duration,
}

/// Made once.
pub(crate) static UNDISTURBED: LazyLock<Undisturbed> = LazyLock::new(|| {
    let site = Site::local();
    let began = Instant::now();
    let ended = site.run();
    let took = began.elapsed();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(site.call(&["gc", "--json"]).code, Some(0));
    let (_, done) = site.recorded();
    assert!(done >= 8, "too little to disturb");
    Undisturbed {
        metrics: ended.document["metrics"].clone(),
        artifacts: ended.document["artifacts"].clone(),
        done,
        blobs: site.blobs(),
        took,
    }
});

impl Site {
    /// SQLite and a folder.
    pub(crate) fn local() -> Self {
        Self::with(None)
    }

    /// PostgreSQL, on a server that all tests share, and S3.
    pub(crate) fn team() -> Self {
        Self::team_on(Postgres::start())
    }

    /// PostgreSQL, on a server that may be stopped, and S3.
    pub(crate) fn team_alone() -> Self {
        Self::team_on(Postgres::alone())
    }

    fn team_on(postgres: Postgres) -> Self {
        let database = postgres.proxy();
        Self::with(Some(Services { postgres, database, s3: S3::start() }))
    }

    fn with(services: Option<Services>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A repository of its own: settings above it are not looked for.
        fs::create_dir(folder.path().join(".git")).unwrap();
        Self { folder, services, patience: "60s" }
    }

    /// The program waits no longer than this for a bucket that is out of reach.
    pub(crate) fn impatient(self, patience: &'static str) -> Self {
        Self { patience, ..self }
    }

    pub(crate) fn postgres(&self) -> &Postgres {
        &self.services.as_ref().unwrap().postgres
    }

    pub(crate) fn database(&self) -> &Proxy {
        &self.services.as_ref().unwrap().database
    }

    pub(crate) fn s3(&self) -> &S3 {
        &self.services.as_ref().unwrap().s3
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A call of the program. `before` stands in front of it.
    fn command(&self, before: &[&str], arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_runner");
        let mut all = before.to_vec();
        all.push(program);
        all.extend(arguments);
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).current_dir(self.folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder.path());
        if let Some(Services { postgres, database, s3 }) = &self.services {
            command.env("RUNNER_RECORDS", postgres.url_through(database)).env("RUNNER_ARTIFACTS", s3.url());
            command.envs(s3.environment()).env("AWS_PATIENCE", self.patience).env("AWS_TIMEOUT", "2s");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Ended {
        self.ended(self.command(&[], arguments).output().unwrap())
    }

    /// Begins to run the pipeline.
    pub(crate) fn start(&self) -> Child {
        self.run_command(&[]).spawn().unwrap()
    }

    /// Runs the pipeline.
    pub(crate) fn run(&self) -> Ended {
        self.run_after(&[])
    }

    /// Runs the pipeline by way of another program.
    pub(crate) fn run_after(&self, before: &[&str]) -> Ended {
        self.ended(self.run_command(before).output().unwrap())
    }

    fn run_command(&self, before: &[&str]) -> Command {
        let pipeline = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/zero_shot_eval.yaml");
        self.command(before, &["run", pipeline.to_str().unwrap(), "--limit", ROWS, "--json"])
    }

    pub(crate) fn finish(&self, child: Child) -> Ended {
        self.ended(child.wait_with_output().unwrap())
    }

    /// Whatever happened: no panic, and no secret.
    fn ended(&self, output: Output) -> Ended {
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        for text in [&stdout, &stderr] {
            assert!(!text.contains("panicked"), "{text}");
            if let Some(Services { postgres, s3, .. }) = &self.services {
                assert!(!text.contains(s3.secret()), "{text}");
                assert!(postgres.password().is_none_or(|password| !text.contains(password)), "{text}");
            }
        }
        let document = serde_json::from_str(&stdout).unwrap_or_default();
        Ended { code: output.status.code(), document, stderr }
    }

    /// Waits until so many tasks are done; false if the program ends before.
    pub(crate) fn wait_for_tasks(&self, child: &mut Child, tasks: i64) -> bool {
        let query = "SELECT count(*) FROM tasks WHERE status = 'done'";
        let made = "SELECT count(*) FROM pg_tables WHERE tablename = 'tasks'";
        loop {
            if self.postgres().number(made) == 1 && self.postgres().number(query) >= tasks {
                return true;
            }
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// All that must be true after faults: the next run succeeds with the same result, no task that was done was done again,
    /// nothing is left running, and what nobody needs goes.
    pub(crate) fn settles(&self, context: &str) {
        let expected = &*UNDISTURBED;
        let ended = self.run();
        self.is_right(&ended, context);
        let (statuses, done) = self.recorded();
        assert!(!statuses.contains_key("Running"), "{context}: {statuses:?}");
        assert_eq!(done, expected.done, "{context}: a task that was done was done again, or is lost");

        let collected = self.call(&["gc", "--json"]);
        assert_eq!(collected.code, Some(0), "{context}: {}", collected.stderr);
        let blobs = self.blobs();
        let orphans: Vec<_> = blobs.difference(&expected.blobs).collect();
        assert!(orphans.is_empty(), "{context}: {orphans:?} after {}", collected.document);
        let missing: Vec<_> = expected.blobs.difference(&blobs).collect();
        assert!(missing.is_empty(), "{context}: {missing:?} are gone");
        let again = self.run();
        assert_eq!(again.document["tasks"]["executed"], 0, "{context}");
    }

    /// What a lying server lost is made again as far as anything needs it: the second run from now is right at the latest, and
    /// then nothing is there that does not belong there.
    pub(crate) fn repairs(&self, context: &str) {
        let first = self.run();
        if first.code != Some(0) {
            assert!(first.stderr.contains("artifact"), "{context}: {}", first.stderr);
        }
        let second = self.run();
        assert_eq!(second.code, Some(0), "{context}: {}", second.stderr);
        assert_eq!(second.document["metrics"], UNDISTURBED.metrics, "{context}");
        for (stage, digest) in second.document["artifacts"].as_object().unwrap() {
            assert_eq!(*digest, UNDISTURBED.artifacts[stage], "{context}");
        }
        assert_eq!(self.call(&["gc", "--json"]).code, Some(0), "{context}");
        assert!(self.blobs().is_subset(&UNDISTURBED.blobs), "{context}");
    }

    /// The run succeeded with the result of an undisturbed one.
    pub(crate) fn is_right(&self, ended: &Ended, context: &str) {
        assert_eq!(ended.code, Some(0), "{context}: {}", ended.stderr);
        assert_eq!(ended.document["metrics"], UNDISTURBED.metrics, "{context}");
        assert_eq!(ended.document["artifacts"], UNDISTURBED.artifacts, "{context}");
    }

    /// How many runs and tasks have which status, and how many tasks are done in all runs together.
    fn recorded(&self) -> (BTreeMap<String, u64>, u64) {
        let place = match &self.services {
            None => Place::folder(self.path(".runner")),
            Some(Services { postgres, s3, .. }) => {
                let options = [
                    ("endpoint", s3.endpoint()),
                    ("region", s3.region().to_owned()),
                    ("access_key_id", s3.access_key().to_owned()),
                    ("secret_access_key", s3.secret().to_owned()),
                ];
                let options = options.map(|(name, value)| (name.to_owned(), value)).into();
                Place {
                    folder: self.path(".runner"),
                    records: Some(postgres.url()),
                    artifacts: Some(ArtifactsPlace::S3 { url: s3.url(), options }),
                }
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().unwrap();
        runtime.block_on(async {
            let store = Store::open_at(&place).await.unwrap();
            let (mut statuses, mut done) = (BTreeMap::new(), 0);
            for run in store.records().runs(1000).await.unwrap() {
                *statuses.entry(format!("{:?}", run.status)).or_default() += 1;
                assert!(run.status != RunStatus::Running, "{run:?}");
                for task in store.records().tasks(&run.id).await.unwrap() {
                    *statuses.entry(format!("{:?}", task.status)).or_default() += 1;
                    done += u64::from(task.status == TaskStatus::Done);
                }
            }
            store.close().await;
            (statuses, done)
        })
    }

    /// The names of all artifacts.
    fn blobs(&self) -> BTreeSet<String> {
        let digest = |name: &str| (name.len() == 64).then(|| name.to_owned());
        if let Some(Services { s3, .. }) = &self.services {
            let below = |key: &String| digest(&key.strip_prefix("team/runner/")?.replace('/', ""));
            return s3.keys().iter().filter_map(below).collect();
        }
        let mut blobs = BTreeSet::new();
        for folder in
            fs::read_dir(self.path(".runner/artifacts")).unwrap().flatten().filter(|entry| entry.path().is_dir())
        {
            for file in fs::read_dir(folder.path()).unwrap().flatten() {
                let name = format!("{}{}", folder.file_name().display(), file.file_name().display());
                assert!(digest(&name).is_some(), "{name} is left");
                blobs.insert(name);
            }
        }
        blobs
    }
}
