//! Brings MNIST and Fashion-MNIST into the cache folder, from their public mirrors or from files that the user has.
//!
//! Files are kept unpacked, so that rows are read from their places; each appears under its name only when its SHA-256 is
//! the one of the published file.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use crate::{
    DataError,
    dataset::{gunzip, is_gzip},
    decode::MOST_BYTES,
    file,
};

/// A file of a dataset.
struct Remote {
    /// Its name, unpacked.
    name: &'static str,
    /// Its length in bytes, unpacked.
    length: usize,
    /// SHA-256 of its unpacked content, in hexadecimal.
    sha256: &'static str,
}

/// A dataset that can be fetched.
struct Collection {
    name: &'static str,
    /// Folders that hold `NAME.gz`, the first that works is taken.
    mirrors: &'static [&'static str],
    files: [Remote; 4],
}

const COLLECTIONS: [Collection; 2] = [
    Collection {
        name: "mnist",
        mirrors: &[
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ],
        files: [
            Remote {
                name: "train-images-idx3-ubyte",
                length: 47_040_016,
                sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            },
            Remote {
                name: "train-labels-idx1-ubyte",
                length: 60_008,
                sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            },
            Remote {
                name: "t10k-images-idx3-ubyte",
                length: 7_840_016,
                sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            },
            Remote {
                name: "t10k-labels-idx1-ubyte",
                length: 10_008,
                sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            },
        ],
    },
    Collection {
        name: "fashion-mnist",
        mirrors: &[
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        ],
        files: [
            Remote {
                name: "train-images-idx3-ubyte",
                length: 47_040_016,
                sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            },
            Remote {
                name: "train-labels-idx1-ubyte",
                length: 60_008,
                sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            },
            Remote {
                name: "t10k-images-idx3-ubyte",
                length: 7_840_016,
                sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            },
            Remote {
                name: "t10k-labels-idx1-ubyte",
                length: 10_008,
                sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            },
        ],
    },
];

/// How far a fetch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The file: `train-images-idx3-ubyte.gz`.
    pub file: String,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all, where the server says.
    pub total: Option<u64>,
}

/// What a fetch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where the files lie.
    pub folder: PathBuf,
    /// Files that are new.
    pub added: usize,
    /// Files that were there already, whole.
    pub kept: usize,
}

/// The datasets that can be fetched.
pub fn names() -> impl Iterator<Item = &'static str> {
    COLLECTIONS.iter().map(|collection| collection.name)
}

/// Brings the files of a dataset (`mnist`, `fashion-mnist`) into `cache`, from the folder `from` or else from the public mirrors.
///
/// Files that are there already are checked and kept. `progress` hears of every part of a download.
pub fn fetch(
    name: &str,
    cache: &Path,
    from: Option<&Path>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Fetched, DataError> {
    let collection = COLLECTIONS.iter().find(|collection| collection.name == name).ok_or_else(|| {
        let message =
            format!("nothing of that name can be fetched: expected {}", names().collect::<Vec<_>>().join(" or "));
        DataError::Reference { reference: name.to_owned(), message }
    })?;
    let folder = cache.join(name);
    fs::create_dir_all(&folder).map_err(DataError::io("create", &folder))?;
    let mut fetched = Fetched { folder, added: 0, kept: 0 };
    for file in &collection.files {
        let target = fetched.folder.join(file.name);
        if fs::metadata(&target).is_ok_and(|there| there.len() == file.length as u64)
            && file::read(&target, MOST_BYTES).is_ok_and(|bytes| file.check(&bytes).is_ok())
        {
            fetched.kept += 1;
            continue;
        }
        let bytes = match from {
            Some(from) => file.find_in(from)?,
            None => file.get(collection.name, collection.mirrors, progress)?,
        };
        put(&target, &bytes)?;
        fetched.added += 1;
    }
    Ok(fetched)
}

impl Remote {
    /// Whether these are the file's unpacked bytes.
    fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let found = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if found == self.sha256 {
            return Ok(());
        }
        let length = bytes.len();
        Err(format!("{length} bytes with SHA-256 {found}, expected {} bytes with SHA-256 {}", self.length, self.sha256))
    }

    /// The unpacked bytes of what was read, checked.
    fn unpack(&self, bytes: Vec<u8>, source: &str) -> Result<Vec<u8>, DataError> {
        let bytes = if is_gzip(&bytes) { gunzip(&bytes, self.length, source)? } else { bytes };
        let wrong = |message| DataError::format(source, format!("not {} as it was published: {message}", self.name));
        self.check(&bytes).map_err(wrong)?;
        Ok(bytes)
    }

    fn find_in(&self, folder: &Path) -> Result<Vec<u8>, DataError> {
        let dotted = self.name.replacen("-idx", ".idx", 1);
        let candidates = [self.name, &dotted].map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]);
        let Some(path) = candidates.iter().flatten().find(|path| path.is_file()) else {
            let message = format!("no {} in it, plain or .gz", self.name);
            return Err(DataError::format(folder.display().to_string(), message));
        };
        let bytes = file::read(path, MOST_BYTES).map_err(DataError::io("read", path))?;
        self.unpack(bytes, &path.display().to_string())
    }

    fn get(
        &self,
        collection: &str,
        mirrors: &[&str],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<u8>, DataError> {
        let mut failures = Vec::new();
        for mirror in mirrors {
            let url = format!("{mirror}/{}.gz", self.name);
            let got = self
                .download(&url, progress)
                .and_then(|bytes| self.unpack(bytes, &url).map_err(|error| error.to_string()));
            match got {
                Ok(bytes) => return Ok(bytes),
                Err(message) => failures.push((url, message)),
            }
        }
        let url = failures.iter().map(|(url, _)| url.as_str()).collect::<Vec<_>>().join(" or ");
        let message = failures.into_iter().map(|(_, message)| message).collect::<Vec<_>>().join("; ");
        let name = self.name;
        let hint = format!(
            "bring {name}.gz and the other files here by other means, then: runner dataset fetch {collection} --from FOLDER"
        );
        Err(DataError::Download { url, message, hint })
    }

    fn download(&self, url: &str, progress: &mut dyn FnMut(Progress)) -> Result<Vec<u8>, String> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_global(Some(Duration::from_secs(1800)))
            .build()
            .into();
        let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
        let total = response.body().content_length();
        // Packed is never much longer than unpacked.
        let most = self.length as u64 + (1 << 16);
        let mut body = response.body_mut().as_reader().take(most);
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            progress(Progress { file: format!("{}.gz", self.name), done: bytes.len() as u64, total });
            match body.read(&mut buffer).map_err(|error| error.to_string())? {
                0 => break,
                n => bytes.extend_from_slice(&buffer[..n]),
            }
        }
        match total {
            Some(total) if total != bytes.len() as u64 => {
                Err(format!("cut off after {} of {total} bytes", bytes.len()))
            }
            _ => Ok(bytes),
        }
    }
}

/// Writes a file that appears whole or not at all.
fn put(target: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let aside = target.with_extension(format!("part{}", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, target)
    };
    write().map_err(|error| {
        // What is left of a failed write is only in the way; the error to tell is the first one.
        let _ = fs::remove_file(&aside);
        DataError::io("write", target)(error)
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const FILE: Remote = Remote {
        name: "f-idx1-ubyte",
        length: 5,
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    };

    /// Answers one request with `body`.
    fn serve(body: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len()).unwrap();
            stream.write_all(body).unwrap();
        });
        format!("http://{address}")
    }

    #[test]
    fn a_download_is_checked_and_the_next_mirror_is_asked() {
        let (bad, good) = (serve(b"hallo"), serve(b"hello"));
        let mut parts = 0;
        let bytes = FILE.get("mnist", &[&bad, &good], &mut |_| parts += 1).unwrap();
        assert_eq!(bytes, b"hello");
        assert!(parts >= 2);
    }

    #[test]
    fn without_network_the_error_names_the_url_and_the_way_out() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mirror = format!("http://{address}");
        let error = FILE.get("mnist", &[&mirror], &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains(&format!("{mirror}/f-idx1-ubyte.gz")), "{error}");
        assert!(error.contains("runner dataset fetch mnist --from FOLDER"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_the_published_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("train-images-idx3-ubyte"), b"other").unwrap();
        let cache = tempfile::tempdir().unwrap();
        let error = fetch("mnist", cache.path(), Some(folder.path()), &mut |_| ()).unwrap_err().to_string();
        assert!(error.contains("not train-images-idx3-ubyte as it was published: 5 bytes with SHA-256"), "{error}");
        assert_eq!(fs::read_dir(cache.path().join("mnist")).unwrap().count(), 0);
        let error = fetch("cifar", cache.path(), None, &mut |_| ()).unwrap_err().to_string();
        assert_eq!(error, "no dataset `cifar`: nothing of that name can be fetched: expected mnist or fashion-mnist");
    }
}
