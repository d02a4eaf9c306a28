//! Who is using the folder of a store. The operating system frees a lock when its process ends, however it ends.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::StoreError;

/// Where lock files lie below a store. The folder also marks a folder as a store.
const LOCKS: &str = "locks";

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
    pub(crate) async fn start(root: &Path) -> Result<Self, StoreError> {
        // Not on a thread of the event loop: the one that is waited for may need it.
        let root = root.to_owned();
        let start = tokio::task::spawn_blocking(move || Self::wait(&root)).await;
        start.map_err(|error| StoreError::Unavailable { store: "records", reason: error.to_string() })?
    }

    fn wait(root: &Path) -> Result<Self, StoreError> {
        let folder = root.join(LOCKS);
        if !folder.is_dir() {
            refuse_foreign(root, &folder)?;
            fs::create_dir_all(&folder).map_err(StoreError::unwritable("create", root))?;
            // State is not for version control.
            let ignore = root.join(".gitignore");
            fs::write(&ignore, "*\n").map_err(StoreError::unwritable("create", root))?;
        }
        let lock_file = |path: &Path| lock_file(path).map_err(StoreError::unwritable("write to", root));
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
        Err(error) => return Err(StoreError::unwritable("use", root)(error)),
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

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
