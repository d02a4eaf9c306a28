//! Places to open stores at, and records to put there.

use std::sync::Arc;

use runner_contract::Digest;
use runner_store::{
    ArtifactsPlace, BadRow, Claim, Claimed, Entry, Finish, NewRun, Place, RunStatus, StageRecord, Store, TaskRecord,
    TaskStatus,
};
use runner_testbed::{Postgres, S3};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

/// An empty place for a store. Goes with the last clone.
#[derive(Clone)]
pub(crate) struct Bench {
    place: Place,
    postgres: Option<Arc<Postgres>>,
    _s3: Option<Arc<S3>>,
    _folder: Arc<TempDir>,
}

impl Bench {
    /// SQLite and a folder.
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::folder(folder.path().join("state"));
        Self { place, postgres: None, _s3: None, _folder: Arc::new(folder) }
    }

    /// PostgreSQL and a folder.
    pub(crate) fn postgres() -> Self {
        let mut bench = Self::sqlite();
        let postgres = Postgres::start();
        bench.place.records = Some(postgres.url());
        bench.postgres = Some(Arc::new(postgres));
        bench
    }

    /// The same with its artifacts in a bucket.
    pub(crate) fn with_bucket(mut self) -> Self {
        let s3 = S3::start();
        let endpoint = s3.endpoint();
        let options = [
            ("endpoint", endpoint.as_str()),
            ("region", s3.region()),
            ("access_key_id", s3.access_key()),
            ("secret_access_key", s3.secret()),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        self.place.artifacts = Some(ArtifactsPlace::S3 { url: s3.url(), options });
        self._s3 = Some(Arc::new(s3));
        self
    }

    /// An empty place of the same kind. On a server it is the same one, emptied.
    pub(crate) async fn another(&self) -> Self {
        let mut other = Self { postgres: self.postgres.clone(), ..Self::sqlite() };
        other.place.records.clone_from(&self.place.records);
        if let Some(postgres) = &other.postgres {
            postgres.execute("TRUNCATE runs, artifacts, leases, checkpoints, memos CASCADE");
        }
        other
    }

    /// Records in SQLite that have their artifacts where these have them.
    pub(crate) fn other_records(&self) -> Self {
        let mut other = Self::sqlite();
        let artifacts = ArtifactsPlace::Folder(self.place.folder.join("artifacts"));
        other.place.artifacts = Some(self.place.artifacts.clone().unwrap_or(artifacts));
        other
    }

    /// Opens it as another process would: with connections of its own.
    pub(crate) async fn open(&self) -> Store {
        Store::open_at(&self.place).await.unwrap()
    }

    /// What an administrator does by hand. Both understand the SQL of these tests.
    pub(crate) async fn sql(&self, statement: &str) {
        match &self.postgres {
            Some(postgres) => postgres.execute(statement),
            None => {
                let url = format!("sqlite://{}", self.place.folder.join("records.sqlite").display());
                let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
                sqlx::query(AssertSqlSafe(statement)).execute(&pool).await.unwrap();
                pool.close().await;
            }
        }
    }

    /// A moment in SQL, so many seconds ago.
    pub(crate) fn ago(&self, seconds: u64) -> String {
        match &self.postgres {
            Some(_) => format!("now() - interval '{seconds} s'"),
            None => format!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{seconds} seconds')"),
        }
    }

    /// Makes a run look as if it had begun long after everything that it stores, so that its age protects nothing.
    pub(crate) async fn young(&self, run: &str) {
        let later = match &self.postgres {
            Some(_) => "now() + interval '1 day'",
            None => "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '1 day')",
        };
        self.sql(&format!("UPDATE runs SET started = {later} WHERE id = '{run}'")).await;
    }

    /// Makes a run look as if it were on a machine that was last heard of so long ago.
    pub(crate) async fn far_away(&self, run: &str, seconds: u64) {
        let beat = self.ago(seconds);
        self.sql(&format!("UPDATE runs SET process = 'far/away/1/1', beat = {beat} WHERE id = '{run}'")).await;
    }
}

pub(crate) fn claim(number: u64, keys: &[&[u8]]) -> Claim {
    Claim { task: task(number, TaskStatus::Running), keys: keys.iter().map(|key| Digest::of(key)).collect() }
}

/// Whether the answer was `Yours`.
pub(crate) fn is_yours(answer: &Claimed) -> bool {
    matches!(answer, Claimed::Yours { .. })
}

pub(crate) fn new_run() -> NewRun {
    NewRun {
        pipeline: "zero-shot-eval".into(),
        text: "version: 1\n".into(),
        params: serde_json::json!({"templates": ["{}"], "min_top1": 0.97}),
        limit: Some(300),
        command: vec!["runner".into(), "run".into(), "p.yaml".into()],
        environment: serde_json::json!({"models": {"mini-clip": "abc"}}),
        includes: [("shared.yaml".to_owned(), "stages: {}".to_owned())].into(),
    }
}

pub(crate) fn stage(name: &str, position: u32, status: TaskStatus) -> StageRecord {
    StageRecord {
        position,
        name: name.into(),
        kind: "encode".into(),
        status,
        executed: 3,
        cached: 7,
        rows: 10_000,
        bad: 1,
        seconds: 1.25,
        wall: 0.75,
        manifest: Some(Digest::of(b"manifest")),
        error: None,
    }
}

pub(crate) fn task(task: u64, status: TaskStatus) -> TaskRecord {
    TaskRecord {
        task,
        stages: vec!["image".into(), "text[model=b32]".into()],
        shard: Some(4),
        attempt: 1,
        status,
        rows: 1024,
        bad: 2,
        started: None,
        ended: None,
        error: None,
    }
}

pub(crate) fn entry(key: &[u8]) -> Entry {
    let bad_rows = vec![BadRow { id: "a/1".into(), reason: "not a picture".into() }];
    Entry {
        key: Digest::of(key),
        digest: Digest::of(b"content"),
        rows: 10,
        bytes: 20,
        bad: 1,
        bad_rows,
        holds: vec![Digest::of(b"held")],
    }
}

pub(crate) fn succeeded() -> Finish {
    Finish { status: RunStatus::Succeeded, reason: None, executed: 5, cached: 2, gates: vec![] }
}
