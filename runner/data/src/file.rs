//! Files that are read whole: no further than a sound one is long, and only what has an end.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::FileTypeExt as _,
    path::Path,
};

/// Reads a plain file of at most so many bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    up_to(path, plain(path)?.len(), most)
}

/// Reads a plain text file of at most so many bytes.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    text(read(path, most)?)
}

/// Reads a plain file of at most so many bytes, or what comes out of a pipe: of a file that somebody names, who may write
/// `<(command)`.
pub fn read_or_drain(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let found = fs::metadata(path)?;
    match found.is_file() || found.file_type().is_fifo() {
        true => up_to(path, found.len(), most),
        false => Err(io::Error::other("expected a regular file or a pipe")),
    }
}

/// The bytes as text.
pub fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("byte {at}: not UTF-8 text"))
    })
}

/// What is known of a plain file, or of one that a link leads to. It is not opened: to open a pipe may take for ever, and a
/// device may have no end.
pub fn plain(path: &Path) -> io::Result<Metadata> {
    let found = fs::metadata(path)?;
    match found.is_file() {
        true => Ok(found),
        false => Err(io::Error::other("expected a regular file")),
    }
}

/// Reads a file that seems to have so many bytes: it may grow, and a pipe does not say how much comes.
fn up_to(path: &Path, size: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if size <= most {
        bytes.reserve_exact(size as usize);
        File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    }
    if size.max(bytes.len() as u64) > most {
        let message = format!("longer than {} MiB, the most that is read of such a file", most >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
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
        assert_eq!(read(&path, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        File::create(&path).unwrap().set_len(3 << 30).unwrap();
        let refused = read_or_drain(&path, 8 << 20).unwrap_err().to_string();
        assert_eq!(refused, "longer than 8 MiB, the most that is read of such a file");
        fs::write(&path, [b'"', 0xff, b'"']).unwrap();
        assert_eq!(read_text(&path, 3).unwrap_err().to_string(), "byte 1: not UTF-8 text");
    }

    #[test]
    fn what_may_have_no_end_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        for path in [Path::new("/dev/zero"), folder.path()] {
            assert_eq!(read(path, 9).unwrap_err().to_string(), "expected a regular file");
            assert_eq!(read_or_drain(path, 9).unwrap_err().to_string(), "expected a regular file or a pipe");
        }
    }
}
