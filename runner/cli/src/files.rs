//! Files named on the command line, read no further than a sound one is long.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::FileTypeExt as _,
    path::Path,
};

use crate::failure::Failure;

/// The longest picture, in bytes: more than the most pixels that are decoded take.
pub(crate) const MAX_PICTURE: u64 = 512 << 20;
/// The longest list of labels, in bytes.
pub(crate) const MAX_LABELS: u64 = 64 << 20;

/// Reads a whole file of at most so many bytes, or what comes out of a pipe. A device may have no end.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let found = fs::metadata(path).map_err(Failure::file("read", path))?;
    if !found.is_file() && !found.file_type().is_fifo() {
        return Err(Failure::failed(format!("cannot read {}: expected a regular file or a pipe", path.display())));
    }
    let mut bytes = Vec::new();
    if found.len() <= most {
        let file = File::open(path).map_err(Failure::file("read", path))?;
        file.take(most + 1).read_to_end(&mut bytes).map_err(Failure::file("read", path))?;
    }
    // It may have grown since it was looked at, and a pipe does not say.
    if found.len() > most || bytes.len() as u64 > most {
        let most = most >> 20;
        return Err(Failure::failed(format!(
            "cannot read {}: longer than {most} MiB, the most for it",
            path.display()
        )));
    }
    Ok(bytes)
}

/// The same of a text.
pub(crate) fn read_text(path: &Path, most: u64) -> Result<String, Failure> {
    String::from_utf8(read(path, most)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::failed(format!("cannot read {}: byte {at} is not UTF-8 text", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_their_limit_and_not_beyond() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "abc").unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"abc");
        assert!(read(&path, 2).unwrap_err().to_string().contains("longer than 0 MiB"));
        File::create(&path).unwrap().set_len(3 << 30).unwrap();
        assert!(read(&path, MAX_PICTURE).unwrap_err().to_string().ends_with("longer than 512 MiB, the most for it"));
        let endless = read(Path::new("/dev/zero"), MAX_LABELS).unwrap_err().to_string();
        assert_eq!(endless, "cannot read /dev/zero: expected a regular file or a pipe");
    }
}
