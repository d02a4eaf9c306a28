//! PyTorch's files, read without PyTorch and without running anything that stands in them.
//!
//! A file of `torch.save` is a pickle: a program for a small machine that may call any function of Python. [`Checkpoint`] reads
//! the opcodes that checkpoints use and knows only the names that make tensors; whatever else a pickle names, it is refused.
//! Three layouts: zip archives (PyTorch 1.6 and later), the older stream of pickles, and TorchScript archives, as OpenAI published
//! CLIP. Tensors are views of storages; each is checked against its storage when the file is opened and read when it is asked
//! for. Memory is bounded by the size of the file.

mod input;
mod legacy;
mod machine;
mod rebuild;
mod state;
mod storage;
#[cfg(test)]
mod tests;
mod value;
mod zip;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use crate::{
    ModelError,
    blob::Blob,
    pickle::{
        input::{Input, MAX_PICKLE},
        machine::{Pickle, broken},
        storage::Place,
        value::TensorView,
        zip::Archive,
    },
    safetensors::Dtype,
};

/// Elements that tensors may have in all, for each of the storages: weights are shared between layers, not between all of them.
const MAX_SHARED: u64 = 4;

/// Why a pickle is not read.
#[derive(Debug)]
enum Problem {
    /// It names what makes no tensor.
    Refused(String),
    /// It is damaged, or lies.
    Broken(String),
    /// It cannot be read.
    Model(ModelError),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Broken("the file ends early".into()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

impl From<ModelError> for Problem {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

impl Problem {
    fn of(self, file: &str) -> ModelError {
        match self {
            Self::Refused(what) => ModelError::Refused { file: file.to_owned(), what: what.escape_debug().to_string() },
            Self::Broken(problem) => ModelError::file(file, problem),
            Self::Model(error) => error,
        }
    }
}

/// An open file of PyTorch: its pickle is read and checked, its tensors are read one by one.
#[derive(Debug)]
pub struct Checkpoint {
    blob: Blob,
    /// Whether numbers are big-endian.
    swap: bool,
    /// The tensors, and where the storage of each is.
    tensors: BTreeMap<String, (Arc<TensorView>, Place)>,
    /// The classes of a TorchScript archive's modules, without the path. `None` for a state dict.
    classes: Option<BTreeSet<String>>,
}

impl Checkpoint {
    /// Whether a file that begins with these bytes is one of PyTorch. 64 bytes tell.
    pub(crate) fn is_start_of(start: &[u8]) -> bool {
        start.starts_with(b"PK\x03\x04") || start.first() == Some(&0x80)
    }

    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::new(Blob::open(path)?)
    }

    /// Reads from memory. `name` stands for the file in messages.
    pub fn from_bytes(name: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self, ModelError> {
        Self::new(Blob::from_bytes(name, bytes))
    }

    pub(crate) fn new(blob: Blob) -> Result<Self, ModelError> {
        let name = blob.name().to_owned();
        Self::read(blob).map_err(|problem| problem.of(&name))
    }

    fn read(blob: Blob) -> Result<Self, Problem> {
        let start = blob.read(0, blob.size().min(512))?;
        let (pickle, places, swap) = if start.starts_with(b"PK\x03\x04") {
            archive(&blob)?
        } else if legacy::is_legacy(&start[..start.len().min(64)]) {
            let (pickle, places) = legacy::open(&blob)?;
            (pickle, places, false)
        } else if start.get(257..262) == Some(b"ustar") {
            return broken("a tar archive, PyTorch's format before 0.1.10; load it with PyTorch and save it anew");
        } else if start.first() == Some(&0x80) {
            // A bare pickle has no storages: what is wrong with it is more to the point if it wants to run something.
            machine::run(&mut Input::buffered(blob.range(0, blob.size())))?;
            return broken("a pickle that `torch.save` did not write");
        } else {
            return broken("not a file of PyTorch: neither a zip archive nor a pickle");
        };
        let found = state::find(&pickle)?;
        let classes = matches!(pickle.root(), value::Value::Module { .. }).then_some(found.classes);
        let mut tensors = BTreeMap::new();
        let (mut claimed, mut held, mut seen) = (0u64, 0u64, BTreeSet::new());
        for (name, view) in found.tensors {
            let bad = |problem: String| Problem::Model(ModelError::tensor(blob.name(), &name, problem));
            let place = places.get(view.storage).copied().flatten();
            let key = pickle.storages.get(view.storage).map_or("", |storage| storage.key.as_str());
            let place = place.ok_or_else(|| bad(format!("its storage `{key}` is not in the file")))?;
            let (first, length) = view.stretch();
            let end = first.checked_add(length).and_then(|end| end.checked_mul(view.element.size));
            if end.is_none_or(|end| end > place.bytes()) {
                return Err(bad(format!("its storage `{key}` has only {} bytes", place.bytes())));
            }
            claimed = claimed.saturating_add(view.len().saturating_mul(view.element.size));
            if seen.insert(view.storage) {
                held = held.saturating_add(place.bytes());
            }
            tensors.insert(name, (view, place));
        }
        if claimed > held.saturating_mul(MAX_SHARED).saturating_add(1 << 20) {
            return broken(format!("tensors of {claimed} bytes over storages of {held}: too many share one storage"));
        }
        Ok(Self { blob, swap, tensors, classes })
    }

    /// The file, for messages.
    pub(crate) fn name(&self) -> &str {
        self.blob.name()
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, if there is one of that name.
    pub fn shape(&self, tensor: &str) -> Option<&[usize]> {
        self.tensors.get(tensor).map(|(view, _)| view.shape.as_slice())
    }

    /// The number format of a tensor, if it is one of floating-point numbers.
    pub(crate) fn dtype(&self, tensor: &str) -> Option<Dtype> {
        self.tensors.get(tensor).and_then(|(view, _)| float(view.element.name))
    }

    /// The classes of a TorchScript archive's modules: `QuickGELU`. `None` for a state dict.
    pub(crate) fn classes(&self) -> Option<&BTreeSet<String>> {
        self.classes.as_ref()
    }

    /// The values of a tensor, row-major, as f32 whatever they are in the file.
    pub fn values(&self, tensor: &str) -> Result<Vec<f32>, ModelError> {
        let bad = |problem: String| ModelError::tensor(self.name(), tensor, problem);
        let (view, place) = self.tensors.get(tensor).ok_or_else(|| bad("missing".into()))?;
        let found = view.element.name;
        let dtype = float(found)
            .ok_or_else(|| bad(format!("expected floating-point numbers of 16 to 64 bits, found {found}")))?;
        let bytes = view.read(&self.blob, *place, self.swap).map_err(|problem| match problem {
            Problem::Refused(problem) | Problem::Broken(problem) => bad(problem),
            Problem::Model(error) => error,
        })?;
        Ok(dtype.decode(&bytes))
    }
}

/// The number format that PyTorch calls so.
fn float(name: &str) -> Option<Dtype> {
    Some(match name {
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::Bf16,
        "float64" => Dtype::F64,
        _ => return None,
    })
}

/// The pickle of a zip archive, where its storages are, and whether numbers are big-endian.
fn archive(blob: &Blob) -> Result<(Pickle, Vec<Option<Place>>, bool), Problem> {
    let archive = Archive::open(blob)?;
    let mut pickles = archive.entries.keys().filter_map(|name| name.strip_suffix("data.pkl"));
    let folder = match (pickles.next(), pickles.next()) {
        (Some(folder), None) => folder,
        (None, _) => return broken("a zip archive without data.pkl, so not one of PyTorch"),
        _ => return broken("a zip archive with two data.pkl"),
    };
    let entry = |name: &str| archive.entries.get(&format!("{folder}{name}"));
    let read = |name: &str, most: u64| match entry(name) {
        Some(entry) if entry.size > most => broken(format!("entry `{folder}{name}`: {} bytes", entry.size)),
        Some(entry) => Ok(Some(entry.read(blob, 0, entry.size)?)),
        None => Ok(None),
    };
    let swap = match read("byteorder", 64)?.as_deref() {
        None | Some(b"little") => false,
        Some(b"big") => true,
        Some(other) => return broken(format!("entry `{folder}byteorder`: `{}`", String::from_utf8_lossy(other))),
    };
    let bytes = read("data.pkl", MAX_PICKLE)?.unwrap_or_default();
    let pickle = machine::run(&mut Input::new(bytes.as_slice()))?;
    let place = |storage: &machine::Storage| entry(&format!("data/{}", storage.key)).copied().map(Place::Entry);
    let places = pickle.storages.iter().map(place).collect();
    Ok((pickle, places, swap))
}
