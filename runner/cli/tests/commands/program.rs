//! Drives the real binary in a folder of its own.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A folder to work in, with its own store and no settings of the user's.
pub(crate) struct Program {
    pub(crate) folder: TempDir,
}

/// What a call did.
pub(crate) struct Called {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A repository of its own: settings above it are not looked for.
        fs::create_dir(folder.path().join(".git")).unwrap();
        Self { folder }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runner"));
        command.args(arguments).current_dir(self.folder.path());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.folder.path()).env("COLUMNS", "100");
        command
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Called {
        Called::new(self.command(arguments).output().unwrap())
    }

    pub(crate) fn call_with(&self, arguments: &[&str], stdin: &str) -> Called {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        Called::new(child.wait_with_output().unwrap())
    }

    /// Calls with a stdout that nobody reads, as before `| true`.
    pub(crate) fn call_unread(&self, arguments: &[&str]) -> Called {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Called::new(self.command(arguments).stdout(writer).output().unwrap())
    }

    /// Calls with `--json` and reads the document; nothing else may stand on stdout.
    pub(crate) fn json(&self, arguments: &[&str], code: i32) -> Value {
        let called = self.call(&[arguments, &["--json"]].concat());
        assert_eq!(called.code, code, "{}{}", called.stdout, called.stderr);
        serde_json::from_str(&called.stdout).unwrap_or_else(|error| panic!("{error}:\n{}", called.stdout))
    }
}

impl Called {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Everything that a user sees, for snapshots.
    pub(crate) fn all(&self) -> String {
        let mut text = format!("exit code {}\n", self.code);
        for (name, stream) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !stream.is_empty() {
                text.push_str(&format!("---- {name}\n{stream}"));
            }
        }
        text
    }
}

/// What differs from call to call.
pub(crate) fn filters() -> Vec<(&'static str, &'static str)> {
    vec![
        (r"\d{8}-\d{6}-[a-z0-9]{4}", "RUN"),
        (r"\b[0-9a-f]{64}\b", "DIGEST"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{3}Z)?", "TIME"),
        (r" *\b(\d+ m \d\d s|\d+(\.\d)? m?s)\b", " SPAN"),
        // The heading is as wide as the spans below it.
        (r" +wall +busy", " wall busy"),
        (r"[0-9,]+ rows/s", "RATE rows/s"),
        (r"/\S*/\.tmp\w+", "FOLDER"),
    ]
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}
