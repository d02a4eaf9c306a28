//! What a pipeline may take from outside its file: variables of the environment, secrets, files that it includes.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use runner_data::file;

/// Most bytes of an included file that are read: more than a pipeline may have.
const MOST_BYTES: u64 = (1 << 20) + 1;

/// Where [`crate::Services`] look for what pipelines take from outside. The default is the process' environment and the
/// current folder.
#[derive(Clone, Default)]
pub struct Surroundings {
    root: PathBuf,
    secrets: BTreeMap<String, String>,
    recorded: Option<Recorded>,
}

/// What a run took from outside when it ran.
#[derive(Clone)]
struct Recorded {
    environment: BTreeMap<String, String>,
    includes: BTreeMap<String, String>,
}

impl Surroundings {
    /// Names of files are relative to `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..Self::default() }
    }

    /// The same with secrets by name. A variable of the environment of the same name comes before them.
    #[must_use]
    pub fn with_secrets(mut self, secrets: BTreeMap<String, String>) -> Self {
        self.secrets = secrets;
        self
    }

    /// The same with the variables and included files that are recorded of a run, instead of those that there are now.
    #[must_use]
    pub fn recorded(mut self, environment: BTreeMap<String, String>, includes: BTreeMap<String, String>) -> Self {
        self.recorded = Some(Recorded { environment, includes });
        self
    }

    /// What `${{ env.NAME }}` stands for.
    pub fn environment(&self, name: &str) -> Option<String> {
        match &self.recorded {
            Some(recorded) => recorded.environment.get(name).cloned(),
            None => env::var(name).ok(),
        }
    }

    /// What `${{ secrets.NAME }}` stands for: a variable of the environment, the file that the variable `NAME_FILE` names, or
    /// a line of the file of secrets.
    pub fn secret(&self, name: &str) -> Option<String> {
        secret(name, &|name| env::var_os(name)).or_else(|| self.secrets.get(name).cloned())
    }

    /// Reads a file that `include:` names: relative to the folder of the file that includes it, upwards too.
    pub fn include(&self, from: &str, path: &str) -> Result<(String, Vec<u8>), String> {
        let name = plain(&Path::new(from).parent().unwrap_or(Path::new("")).join(path));
        if let Some(recorded) = &self.recorded {
            let text = recorded.includes.get(&name).ok_or_else(|| format!("`{name}` is not recorded with the run"))?;
            return Ok((name, text.clone().into_bytes()));
        }
        match read(&self.root.join(&name)) {
            Ok(Some(bytes)) => Ok((name, bytes)),
            Ok(None) => {
                Err(format!("`{name}` is {}", if self.root.join(&name).is_dir() { "a folder" } else { "no file" }))
            }
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound => format!("there is no file `{name}`"),
                io::ErrorKind::PermissionDenied => format!("`{name}` may not be read"),
                _ => format!("cannot read `{name}`: {error}"),
            }),
        }
    }
}

/// The bytes of a file; nothing of what may block, or never end.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// A secret: an environment variable, or the file that `NAME_FILE` names, as containers have it.
fn secret(name: &str, variable: &dyn Fn(&str) -> Option<OsString>) -> Option<String> {
    let text = match variable(name) {
        Some(value) => value.into_string().ok()?,
        None => {
            let path = PathBuf::from(variable(&format!("{name}_FILE"))?);
            let text = file::read_or_drain(&path, MOST_BYTES).and_then(file::text).ok()?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            line.strip_suffix('\r').unwrap_or(line).to_owned()
        }
    };
    Some(text).filter(|text| !text.is_empty())
}

/// A path without `.` and `..`, so that a file has one name; with `/` between its parts.
fn plain(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let mut start = "";
    for part in path.components() {
        match part {
            Component::ParentDir if parts.last().is_some_and(|part| *part != "..") => drop(parts.pop()),
            // Above the root is the root.
            Component::ParentDir if !start.is_empty() => {}
            Component::ParentDir => parts.push(".."),
            Component::Normal(name) => parts.push(name.to_str().unwrap_or_default()),
            Component::RootDir => start = "/",
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    match (start, parts.as_slice()) {
        ("", []) => ".".to_owned(),
        _ => format!("{start}{}", parts.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_name_whichever_way_it_is_reached() {
        for (path, name) in [
            ("pipelines/./shared/../x.yaml", "pipelines/x.yaml"),
            ("../../x.yaml", "../../x.yaml"),
            ("a/../../x.yaml", "../x.yaml"),
            ("/a/../../x.yaml", "/x.yaml"),
            ("a/..", "."),
        ] {
            assert_eq!(plain(Path::new(path)), name);
        }
    }

    #[test]
    fn included_files_are_read_beside_those_that_include_them() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/x.yaml"), "stages: {}").unwrap();
        let around = Surroundings::new(root.path());
        let read = |from, path| around.include(from, path);
        for (from, path) in [("a/p.yaml", "x.yaml"), ("p.yaml", "./a/x.yaml"), ("a/b/p.yaml", "../x.yaml")] {
            assert_eq!(read(from, path), Ok(("a/x.yaml".to_owned(), b"stages: {}".to_vec())), "{from} {path}");
        }
        let absolute = root.path().join("a/x.yaml");
        assert!(read("p.yaml", absolute.to_str().unwrap()).is_ok());
        assert_eq!(read("p.yaml", "a/b"), Err("`a/b` is a folder".to_owned()));
        assert_eq!(read("a/p.yaml", "no.yaml"), Err("there is no file `a/no.yaml`".to_owned()));
        fs::write(root.path().join("big"), vec![b' '; 3 << 20]).unwrap();
        assert_eq!(read("p.yaml", "big").unwrap().1.len() as u64, MOST_BYTES);
    }

    #[test]
    fn secrets_come_from_variables_or_from_the_files_that_they_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("token");
        fs::write(&path, "from file\r\n").unwrap();
        let variable = |name: &str| match name {
            "SET" | "BOTH" => Some("from variable".into()),
            "FILED_FILE" | "BOTH_FILE" => Some(path.clone().into_os_string()),
            "LOST_FILE" => Some(root.path().join("lost").into_os_string()),
            "EMPTY" => Some("".into()),
            _ => None,
        };
        let found = ["SET", "BOTH", "FILED", "LOST", "EMPTY", "UNSET"].map(|name| secret(name, &variable));
        let [set, both, filed, none @ ..] = found.map(|value| value.unwrap_or_default());
        assert_eq!((set.as_str(), both.as_str(), filed.as_str()), ("from variable", "from variable", "from file"));
        assert_eq!(none, [""; 3]);
    }

    #[test]
    fn a_recorded_run_sees_what_it_saw() {
        let map = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let around = Surroundings::new("/nowhere").recorded(map("REGION", "eu"), map("p/a.yaml", "then"));
        assert_eq!(around.environment("REGION").as_deref(), Some("eu"));
        assert_eq!(around.environment("PATH"), None);
        assert_eq!(around.include("p/x.yaml", "a.yaml").unwrap().1, b"then");
        assert!(around.include("p/x.yaml", "b.yaml").unwrap_err().contains("not recorded"));
        let secrets = Surroundings::default().with_secrets(map("RUNNER_NO_SUCH_VARIABLE", "s"));
        assert_eq!(secrets.secret("RUNNER_NO_SUCH_VARIABLE").as_deref(), Some("s"));
        assert_eq!(secrets.secret("RUNNER_NO_OTHER_VARIABLE"), None);
    }
}
