//! A place for artifacts, and ways to get at it behind the store's back.

use std::{collections::BTreeMap, fs, path::PathBuf};

use runner_contract::Digest;
use runner_store::{Artifacts, ArtifactsPlace};
use runner_testbed::S3;
use tempfile::TempDir;

/// A place that goes with the test.
pub(crate) enum Bench {
    Folder(TempDir),
    Bucket(S3),
}

impl Bench {
    pub(crate) fn folder() -> Self {
        Self::Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn bucket() -> Self {
        Self::Bucket(S3::start())
    }

    pub(crate) fn place(&self) -> ArtifactsPlace {
        match self {
            Self::Folder(folder) => ArtifactsPlace::Folder(folder.path().join("artifacts")),
            Self::Bucket(s3) => bucket_place(s3, &[]),
        }
    }

    /// Another handle each time, as processes have.
    pub(crate) async fn open(&self) -> Artifacts {
        Artifacts::open(&self.place()).await.unwrap()
    }

    /// Changes what is stored.
    pub(crate) fn set(&self, digest: &Digest, content: &[u8]) {
        match self {
            Self::Folder(_) => fs::write(self.file(digest), content).unwrap(),
            Self::Bucket(s3) => s3.set_object(&key(digest), content.to_vec()),
        }
    }

    /// Everything that is there, by path below the root.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = match self {
            Self::Bucket(s3) => {
                s3.keys().iter().map(|key| key.strip_prefix("team/runner/").unwrap().to_owned()).collect()
            }
            Self::Folder(folder) => {
                let root = folder.path().join("artifacts");
                let mut names = Vec::new();
                for folder in fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()) {
                    let files = if folder.is_dir() {
                        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect()
                    } else {
                        vec![folder]
                    };
                    names.extend(files.iter().map(|file| file.strip_prefix(&root).unwrap().display().to_string()));
                }
                names
            }
        };
        names.sort_unstable();
        names
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        let Self::Folder(folder) = self else { panic!("no folder") };
        folder.path().join("artifacts").join(path(digest))
    }
}

/// Below the root.
pub(crate) fn path(digest: &Digest) -> String {
    let text = digest.to_string();
    format!("{}/{}", &text[..2], &text[2..])
}

/// In the bucket.
pub(crate) fn key(digest: &Digest) -> String {
    format!("team/runner/{}", path(digest))
}

/// The bucket, with short time-outs; `more` comes before.
pub(crate) fn bucket_place(s3: &S3, more: &[(&str, &str)]) -> ArtifactsPlace {
    let endpoint = s3.endpoint();
    let mut options: BTreeMap<_, _> = [
        ("endpoint", endpoint.as_str()),
        ("region", s3.region()),
        ("access_key_id", s3.access_key()),
        ("secret_access_key", s3.secret()),
        ("timeout", "1s"),
        ("patience", "10s"),
    ]
    .into();
    options.extend(more.iter().copied());
    let options = options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    ArtifactsPlace::S3 { url: s3.url(), options }
}

/// Content of so many bytes that no other number gives.
pub(crate) fn content(bytes: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}
