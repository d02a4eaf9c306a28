//! Where a store is: its records and its artifacts, each by itself.

use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Where a store is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The folder of whatever is not elsewhere.
    pub folder: PathBuf,
    /// A `postgres://` URL; `None` is SQLite in the folder.
    pub records: Option<String>,
    /// Where artifacts are; `None` is `artifacts/` in the folder.
    pub artifacts: Option<ArtifactsPlace>,
}

/// Where artifacts are.
#[derive(Clone, PartialEq, Eq)]
pub enum ArtifactsPlace {
    /// A folder of their own.
    Folder(PathBuf),
    /// A bucket, or a part of one.
    S3 {
        /// `s3://BUCKET/PREFIX`.
        url: String,
        /// What `object_store` calls configuration keys (`endpoint`, `region`, `allow_http`); they come before the environment's.
        options: BTreeMap<String, String>,
    },
}

impl Place {
    /// The default pair in a folder.
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), records: None, artifacts: None }
    }
}

/// A URL without its password, for people.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A password may hold `@`, `/` or `?` where somebody forgot to encode it: the host comes after the last `@`.
    let shown = match rest.rsplit_once('@').map(|(user, rest)| (user.split_once(':'), rest)) {
        Some((Some((user, _)), rest)) => format!("{user}:***@{rest}"),
        _ => rest.to_owned(),
    };
    let pairs = shown.split_inclusive(['?', '&']).map(|piece| match piece.split_once('=') {
        Some((name, value)) if is_secret(name) => {
            let end = value.rfind(['?', '&']).map_or("", |at| &value[at..]);
            format!("{name}=***{end}")
        }
        _ => piece.to_owned(),
    });
    format!("{scheme}://{}", pairs.collect::<String>())
}

/// Whether a setting of this name is not for everybody's eyes.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["passw", "secret", "token", "signature", "key"].iter().any(|word| name.contains(word))
}

impl fmt::Display for ArtifactsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::S3 { url, .. } => f.write_str(&redacted(url)),
        }
    }
}

impl fmt::Debug for ArtifactsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => f.debug_tuple("Folder").field(folder).finish(),
            Self::S3 { url, options } => {
                let shown: BTreeMap<_, _> = options
                    .iter()
                    .map(|(name, value)| (name, if is_secret(name) { "***" } else { value.as_str() }))
                    .collect();
                f.debug_struct("S3").field("url", &redacted(url)).field("options", &shown).finish()
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.records {
            Some(url) => f.write_str(&redacted(url))?,
            None => write!(f, "{}", self.folder.display())?,
        }
        match &self.artifacts {
            Some(artifacts) => write!(f, " with artifacts in {artifacts}"),
            None if self.records.is_some() => write!(f, " with artifacts in {}", self.folder.display()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("folder", &self.folder)
            .field("records", &self.records.as_deref().map(redacted))
            .field("artifacts", &self.artifacts)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("postgres://host/db", "postgres://host/db"),
            ("postgres://ann@host:5432/db", "postgres://ann@host:5432/db"),
            ("postgres://ann:s3cret@host/db?sslmode=require", "postgres://ann:***@host/db?sslmode=require"),
            ("postgres://ann:p@ss:w@host/db", "postgres://ann:***@host/db"),
            ("postgres://ann:@host/db", "postgres://ann:***@host/db"),
            ("postgres://ann:a/b?c@host/db", "postgres://ann:***@host/db"),
            ("postgres:///db?host=/tmp&password=x&user=ann", "postgres:///db?host=/tmp&password=***&user=ann"),
            ("postgres:///db?user=a@b&password=x", "postgres:///db?user=a@b&password=***"),
            ("postgres://host:5432/db?user=a@b&password=x", "postgres://host:***@b&password=***"),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("folder/with:colon@at", "folder/with:colon@at"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
