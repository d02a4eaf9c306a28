//! Where things are in an artifact store.

use runner_contract::Digest;

/// Says whose artifacts these are.
pub(super) const MARKER: &str = "store";

/// Below the root: two digits are the folder, the rest the name.
pub(super) fn path(digest: &Digest) -> String {
    let mut text = digest.to_string();
    text.insert(2, '/');
    text
}

/// What lies at a path below the root; `None` if that is no artifact.
pub(super) fn digest(path: &str) -> Option<Digest> {
    let (folder, name) = path.split_once('/')?;
    if folder.len() != 2 {
        return None;
    }
    format!("{folder}{name}").parse().ok()
}
