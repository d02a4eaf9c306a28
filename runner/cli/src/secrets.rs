//! Secrets from a file: `NAME=VALUE`, one a line.

use std::{collections::BTreeMap, fs, io, path::Path};

use runner_data::file;

use crate::{failure::Failure, files::MAX_SETTINGS};

/// Reads the file, which nobody else may read. There need be none.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let found = match fs::metadata(path) {
        // Elsewhere the same secrets may come from the environment.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        found => found.map_err(Failure::unreadable(path))?,
    };
    private(path, &found)?;
    let text = file::read_or_drain(path, MAX_SETTINGS).and_then(file::text).map_err(Failure::unreadable(path))?;
    let mut secrets = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line.strip_prefix("export ").unwrap_or(line).split_once('=');
        let name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let Some((name, value)) = pair.map(|(name, value)| (name.trim(), value.trim())).filter(|(it, _)| name(it))
        else {
            // The line itself may be the secret.
            let message = format!("{}:{}: no NAME=VALUE", path.display(), i + 1);
            return Err(Failure::usage(message, "a name has letters, digits and `_`; comments begin with #"));
        };
        secrets.insert(name.to_owned(), unquoted(value).to_owned());
    }
    Ok(secrets)
}

/// The value without a pair of quotes round it.
fn unquoted(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

#[cfg(unix)]
fn private(path: &Path, found: &fs::Metadata) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;

    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let message = format!("{} can be read by others (mode {mode:03o})", path.display());
    Err(Failure::usage(message, format!("chmod 600 {}", path.display())))
}

#[cfg(not(unix))]
fn private(_: &Path, _: &fs::Metadata) -> Result<(), Failure> {
    Ok(())
}
