//! Who is using the store, and which runs live. The operating system frees a lock when its process ends, however it ends.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::StoreError;

/// Where lock files lie below a store. The folder also marks a folder as a store.
const LOCKS: &str = "locks";
/// The ending of a run's lock file.
const RUN_LOCK: &str = "run";

/// A store being opened: the process holds the lock that only one opener at a time can hold.
pub(crate) struct Opening {
    /// Held exclusively until the store is open.
    open: File,
    /// Held shared as long as the store is used.
    using: Arc<File>,
    /// Nobody else had the store open.
    alone: bool,
    folder: PathBuf,
}

impl Opening {
    /// Makes the folder if there is none, refuses a folder of other things, and waits for other openers.
    pub(crate) fn start(root: &Path) -> Result<Self, StoreError> {
        let folder = root.join(LOCKS);
        if !folder.is_dir() {
            refuse_foreign(root, &folder)?;
            fs::create_dir_all(&folder).map_err(StoreError::io(&folder))?;
            // State is not for version control.
            let ignore = root.join(".gitignore");
            fs::write(&ignore, "*\n").map_err(StoreError::io(&ignore))?;
        }
        let open = lock_file(&folder.join("open"))?;
        open.lock().map_err(StoreError::io(folder.join("open")))?;

        let path = folder.join("using");
        let using = lock_file(&path)?;
        let alone = try_lock(&using).map_err(StoreError::io(&path))?;
        if alone {
            // Other openers wait for `open`, so nobody comes in between.
            using.unlock().map_err(StoreError::io(&path))?;
        }
        using.lock_shared().map_err(StoreError::io(&path))?;
        Ok(Self { open, using: Arc::new(using), alone, folder })
    }

    /// What to hold while the store is used.
    pub(crate) fn using(&self) -> Arc<File> {
        self.using.clone()
    }

    /// Whether nobody else has the store open.
    pub(crate) fn alone(&self) -> bool {
        self.alone
    }

    /// Lets the next opener in.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        self.open.unlock().map_err(StoreError::io(self.folder.join("open")))
    }
}

fn refuse_foreign(root: &Path, locks: &Path) -> Result<(), StoreError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io(root)(error)),
    };
    match entries.filter_map(Result::ok).next() {
        // An opener that was killed between its first two steps leaves nothing but the folder.
        None => Ok(()),
        // Another opener may have made the store since we looked.
        Some(_) if locks.is_dir() => Ok(()),
        Some(entry) => Err(StoreError::Foreign {
            path: root.to_owned(),
            found: entry.file_name().to_string_lossy().into_owned(),
            expected: LOCKS,
        }),
    }
}

fn lock_file(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(StoreError::io(path))
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A run that this process is executing. As long as the value lives, nobody takes the run for dead; dropped without
/// [`crate::Records::finish`], the run is marked as interrupted when the store is opened next.
#[derive(Debug)]
pub struct LiveRun {
    id: String,
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl LiveRun {
    /// Takes the lock of a run that is to begin; `None` if a run of that id lives.
    pub(crate) fn start(root: &Path, id: String) -> Result<Option<Self>, StoreError> {
        let path = run_path(root, &id);
        let file = lock_file(&path)?;
        let locked = try_lock(&file).map_err(StoreError::io(&path))?;
        Ok(locked.then_some(Self { id, path, _file: file }))
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The run has ended and is recorded so: its lock file goes.
    pub(crate) fn end(self) -> Result<(), StoreError> {
        remove(&self.path)
    }
}

/// Whether no process executes the run. Its lock file is removed then.
pub(crate) fn is_dead(root: &Path, id: &str) -> Result<bool, StoreError> {
    let path = run_path(root, id);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(StoreError::io(path)(error)),
    };
    let free = try_lock(&file).map_err(StoreError::io(&path))?;
    if free {
        remove(&path)?;
    }
    Ok(free)
}

fn run_path(root: &Path, id: &str) -> PathBuf {
    root.join(LOCKS).join(format!("{id}.{RUN_LOCK}"))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path)(error)),
        _ => Ok(()),
    }
}
