//! Files on disk or in a bucket, read alike.

use std::{
    cmp::Ordering,
    fmt,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use runner_contract::Digest;

use super::{
    folder::is_picture,
    memory::{FileStamp, Remembered, Seen},
    objects::{Children, Object, Objects, Stream},
};
use crate::{DataError, decode};

/// How deep folders are followed, so that a link to a parent ends.
const MOST_DEPTH: usize = 12;

/// Where files are.
#[derive(Clone)]
pub(super) enum Place {
    /// A path.
    Disk(PathBuf),
    /// `s3://bucket/key`, without a slash at its end.
    Bucket(Arc<dyn Objects>, String),
}

/// A file that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Below the place that was listed, with `/` between.
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) version: Version,
}

/// What tells a file's content from another's, without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// When it was last changed (nanoseconds since 1970), where the system says so.
    Modified(Option<i64>),
    /// The ETag of an object.
    Tag(String),
    /// There is no content: a link that leads nowhere, or something that is no plain file.
    Nothing,
}

/// What is read from front to back.
pub(super) trait Input: Read + Send {
    /// Passes over so many bytes.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(path) => path.display().fmt(f),
            Self::Bucket(_, url) => f.write_str(url),
        }
    }
}

impl Place {
    /// A place below.
    pub(super) fn join(&self, below: &str) -> Self {
        match self {
            Self::Disk(path) => Self::Disk(path.join(below)),
            Self::Bucket(objects, url) => Self::Bucket(objects.clone(), format!("{url}/{below}")),
        }
    }

    /// The folder that it is in.
    pub(super) fn parent(&self) -> Option<Self> {
        match self {
            Self::Disk(path) => Some(Self::Disk(path.parent()?.to_owned())),
            Self::Bucket(objects, url) => {
                let (parent, _) = url.rsplit_once('/')?;
                (parent.len() > "s3://".len()).then(|| Self::Bucket(objects.clone(), parent.to_owned()))
            }
        }
    }

    /// The last part of its name, without extension, for names of datasets.
    pub(super) fn stem(&self) -> String {
        let name = match self {
            Self::Disk(path) => {
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                path.file_name().and_then(|name| name.to_str()).unwrap_or("data").to_owned()
            }
            Self::Bucket(_, url) => url.rsplit('/').next().unwrap_or("data").to_owned(),
        };
        let stem = Path::new(&name).file_stem().and_then(|stem| stem.to_str());
        stem.unwrap_or("data").trim_end_matches(".tar").to_owned()
    }

    /// The file of that name, if there is one.
    pub(super) fn file(&self) -> Result<Option<Entry>, DataError> {
        match self {
            Self::Disk(path) => match path.metadata() {
                Ok(found) if found.is_file() => {
                    let seen = Seen::of(&found);
                    Ok(Some(Entry { path: String::new(), size: seen.size, version: Version::Modified(seen.modified) }))
                }
                _ => Ok(None),
            },
            Self::Bucket(objects, url) => {
                let found = objects.head(url).map_err(|message| self.failed(message))?;
                let entry = |object: Object| Entry {
                    path: String::new(),
                    size: object.size,
                    version: Version::Tag(object.tag),
                };
                Ok(found.map(entry))
            }
        }
    }

    /// The names of what lies right in a folder, but hidden ones, sorted; nothing if there is no such folder.
    pub(super) fn children(&self) -> Result<Children, DataError> {
        let mut children = match self {
            Self::Disk(path) if !path.is_dir() => Children::default(),
            Self::Disk(path) => {
                let mut children = Children::default();
                for child in std::fs::read_dir(path).map_err(DataError::io("list", path))? {
                    let child = child.map_err(DataError::io("list", path))?;
                    // Names that are not UTF-8 are complained about where they are read.
                    let name = child.file_name().to_string_lossy().into_owned();
                    if child.path().is_dir() { &mut children.folders } else { &mut children.files }.push(name);
                }
                children
            }
            Self::Bucket(objects, url) => objects.children(url).map_err(|message| self.failed(message))?,
        };
        for names in [&mut children.files, &mut children.folders] {
            names.retain(|name| !name.is_empty() && !name.starts_with('.'));
            names.sort();
        }
        Ok(children)
    }

    /// All files below, but hidden ones, sorted part by part of their paths.
    pub(super) fn list(&self) -> Result<Vec<Entry>, DataError> {
        let mut files = match self {
            Self::Disk(path) => {
                let mut files = Vec::new();
                walk(path, "", MOST_DEPTH, &mut files)?;
                files
            }
            Self::Bucket(objects, url) => {
                let found = objects.list(url).map_err(|message| self.failed(message))?;
                let below = found.into_iter().filter_map(|object| {
                    let path = object.url.strip_prefix(url.as_str())?.strip_prefix('/')?.to_owned();
                    let hidden =
                        path.is_empty() || path.ends_with('/') || path.split('/').any(|part| part.starts_with('.'));
                    (!hidden).then_some(Entry { path, size: object.size, version: Version::Tag(object.tag) })
                });
                below.collect()
            }
        };
        files.sort_by(|a, b| by_parts(&a.path, &b.path));
        Ok(files)
    }

    /// The content of a file, `most` bytes of it at most.
    pub(super) fn read(&self, most: u64) -> Result<Vec<u8>, DataError> {
        let Some(entry) = self.file()? else { return Err(self.failed("no such file")) };
        if entry.size > most {
            return Err(self.failed(format!("{} bytes is over the limit of {most}", entry.size)));
        }
        self.read_range(&entry, 0..entry.size)
    }

    /// The same as text.
    pub(super) fn read_text(&self, most: u64) -> Result<String, DataError> {
        String::from_utf8(self.read(most)?).map_err(|_| self.failed("not UTF-8 text"))
    }

    /// Bytes of a file that was seen.
    pub(super) fn read_range(&self, entry: &Entry, range: Range<u64>) -> Result<Vec<u8>, DataError> {
        match self {
            Self::Disk(path) => {
                let read = || -> io::Result<Vec<u8>> {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(range.start))?;
                    let length = range.end.saturating_sub(range.start);
                    let mut bytes = Vec::with_capacity(length.min(entry.size) as usize);
                    file.take(length).read_to_end(&mut bytes)?;
                    if (bytes.len() as u64) < length {
                        return Err(io::Error::other("it became shorter while it was read"));
                    }
                    Ok(bytes)
                };
                read().map_err(DataError::io("read", path))
            }
            Self::Bucket(objects, url) => {
                let found = self.object(url, entry);
                objects.read(&found, range).map_err(|message| self.failed(message))
            }
        }
    }

    /// A picture's file that was seen, or what stands for one that cannot be had.
    pub(super) fn read_picture(&self, entry: &Entry) -> Result<Vec<u8>, DataError> {
        match (&entry.version, decode::too_large(entry.size)) {
            (Version::Nothing, _) => Ok(decode::none("a link that leads nowhere, or not a regular file")),
            (_, Some(instead)) => Ok(instead),
            (_, None) => self.read_range(entry, 0..entry.size),
        }
    }

    /// Streams a file that was seen, from a byte on.
    pub(super) fn open(&self, entry: &Entry, from: u64) -> Result<Box<dyn Input>, DataError> {
        match self {
            Self::Disk(path) => {
                let mut file = File::open(path).map_err(DataError::io("read", path))?;
                file.seek(SeekFrom::Start(from)).map_err(DataError::io("read", path))?;
                Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
            }
            Self::Bucket(objects, url) => Ok(Box::new(Stream::new(objects.clone(), self.object(url, entry), from))),
        }
    }

    /// What stands for a file's content: its digest, or its ETag and size where it is an object.
    pub(super) fn digest(&self, entry: &Entry, remembered: &Remembered) -> Result<Digest, DataError> {
        if let Some(digest) = entry.version.digest(entry.size) {
            return Ok(digest);
        }
        let part = ["file/1".to_owned()];
        let stamp = self.stamp(entry);
        if let Some([digest]) = stamp.as_ref().and_then(|stamp| remembered.parts(stamp, &part)).as_deref() {
            return Ok(*digest);
        }
        let mut hasher = blake3::Hasher::new();
        let read = hasher.update_reader(self.open(entry, 0)?);
        read.map_err(|error| self.failed(format!("cannot read on: {error}")))?;
        let digest = hasher.finalize().into();
        if let (Some(stamp), Self::Disk(path)) = (&stamp, self) {
            remembered.keep(stamp, path, part.map(|part| (part, digest)));
        }
        Ok(digest)
    }

    /// A stamp of the file, if it is on disk and the system says enough.
    pub(super) fn stamp(&self, entry: &Entry) -> Option<FileStamp> {
        match (self, &entry.version) {
            (Self::Disk(path), Version::Modified(Some(modified))) => {
                FileStamp::at(path, entry.size, *modified).ok().flatten()
            }
            _ => None,
        }
    }

    fn object(&self, url: &str, entry: &Entry) -> Object {
        let tag = match &entry.version {
            Version::Tag(tag) => tag.clone(),
            Version::Modified(_) | Version::Nothing => String::new(),
        };
        Object { url: url.to_owned(), size: entry.size, tag }
    }

    /// An error that names the place.
    pub(super) fn failed(&self, message: impl Into<String>) -> DataError {
        DataError::format(self.to_string(), message)
    }
}

impl Version {
    /// The digest that stands for an object's content: of its ETag and size, or of no content. Files on disk are digested by
    /// content.
    pub(super) fn digest(&self, size: u64) -> Option<Digest> {
        match self {
            Self::Modified(_) => None,
            Self::Nothing => Some(runner_contract::KeyHasher::new("nothing/1").finish()),
            Self::Tag(tag) => {
                let key = runner_contract::KeyHasher::new("object/1");
                Some(key.part("etag", tag.as_bytes()).part("size", &size.to_le_bytes()).finish())
            }
        }
    }
}

/// Compares paths folder by folder.
fn by_parts(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

/// Collects the files below a folder. Links are followed.
fn walk(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<Entry>) -> Result<(), DataError> {
    if depth == 0 {
        return Err(DataError::format(folder.display().to_string(), "folders nested too deep, or a link in a circle"));
    }
    let failed = || DataError::io("list", folder);
    for child in std::fs::read_dir(folder).map_err(failed())? {
        let child = child.map_err(failed())?;
        let path = child.path();
        let Ok(name) = child.file_name().into_string() else {
            return Err(DataError::format(path.display().to_string(), "its name is not UTF-8: rename it"));
        };
        if name.starts_with('.') {
            continue;
        }
        let below = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        // What the listing says already is not asked for again.
        let kind = child.file_type().ok().filter(|kind| !kind.is_symlink());
        if kind.map_or_else(|| path.is_dir(), |kind| kind.is_dir()) {
            walk(&path, &below, depth - 1, files)?;
        } else {
            files.extend(seen(&path, below, kind.is_none())?);
        }
    }
    Ok(())
}

/// A file in a folder. What has no content is of interest only where it is called as a picture is: somebody counts on that.
fn seen(path: &Path, below: String, is_link: bool) -> Result<Option<Entry>, DataError> {
    let seen = match path.metadata() {
        Ok(found) if found.is_file() => Some(Seen::of(&found)),
        Ok(_) => None,
        Err(_) if is_link => None,
        Err(error) => return Err(DataError::io("read", path)(error)),
    };
    Ok(match seen {
        Some(Seen { size, modified }) => Some(Entry { path: below, size, version: Version::Modified(modified) }),
        None => is_picture(path).then_some(Entry { path: below, size: 0, version: Version::Nothing }),
    })
}

impl Input for BufReader<File> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        self.seek_relative(bytes)
    }
}

impl Input for flate2::bufread::MultiGzDecoder<BufReader<Box<dyn Input>>> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.take(bytes), &mut io::sink())?;
        if skipped < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}
