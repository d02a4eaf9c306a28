//! The tensors of a checkpoint under the names that the networks know, whatever the format and the names in the file.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde_json::Value;

use crate::{
    ModelError,
    blob::Blob,
    names::{Names, View},
    pickle::Checkpoint,
    safetensors::{Dtype, Reader},
    texts,
};

/// A checkpoint's tensors.
#[derive(Debug)]
pub(crate) struct Weights {
    /// What a missing tensor is missing from.
    name: String,
    files: Vec<File>,
    names: Names,
}

/// A file of tensors.
#[derive(Debug)]
enum File {
    Safetensors(Reader),
    PyTorch(Checkpoint),
}

impl File {
    fn open(path: &Path) -> Result<Self, ModelError> {
        let blob = Blob::open(path)?;
        match is_pytorch(&blob)? {
            true => Checkpoint::new(blob).map(Self::PyTorch),
            false => Reader::new(blob).map(Self::Safetensors),
        }
    }

    fn shape(&self, tensor: &str) -> Option<&[usize]> {
        match self {
            Self::Safetensors(reader) => reader.shape(tensor),
            Self::PyTorch(checkpoint) => checkpoint.shape(tensor),
        }
    }

    fn dtype(&self, tensor: &str) -> Option<Dtype> {
        match self {
            Self::Safetensors(reader) => reader.dtype(tensor),
            Self::PyTorch(checkpoint) => checkpoint.dtype(tensor),
        }
    }

    fn values(&self, tensor: &str) -> Result<Vec<f32>, ModelError> {
        match self {
            Self::Safetensors(reader) => reader.values(tensor),
            Self::PyTorch(checkpoint) => checkpoint.values(tensor),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Safetensors(reader) => reader.name(),
            Self::PyTorch(checkpoint) => checkpoint.name(),
        }
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Self::Safetensors(reader) => reader.names().collect(),
            Self::PyTorch(checkpoint) => checkpoint.names().collect(),
        }
    }
}

impl Weights {
    /// The tensors of a bundle.
    pub(crate) fn single(reader: Reader) -> Self {
        Self { name: reader.name().to_owned(), files: vec![File::Safetensors(reader)], names: Names::Canonical }
    }

    /// Opens the files that [`files`] lists, of one checkpoint: an index first where there are several.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, ModelError> {
        let named = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
        let files = if let [file] = paths { std::slice::from_ref(file) } else { paths.get(1..).unwrap_or_default() };
        let files = files.iter().map(|path| File::open(path)).collect::<Result<Vec<_>, _>>()?;
        let names = Names::of(&|name| files.iter().any(|file| file.shape(name).is_some()));
        Ok(Self { name: named, files, names })
    }

    /// The file, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How tensors are called in the file.
    pub(crate) fn names(&self) -> Names {
        self.names
    }

    /// The names of all tensors, as they are in the file.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &str> {
        self.files.iter().flat_map(File::names)
    }

    /// The shape of a tensor, by its name in the file.
    pub(crate) fn shape(&self, tensor: &str) -> Option<&[usize]> {
        self.files.iter().find_map(|file| file.shape(tensor))
    }

    /// The classes of the modules, where the file is a TorchScript archive.
    pub(crate) fn classes(&self) -> Option<&BTreeSet<String>> {
        match self.files.as_slice() {
            [File::PyTorch(checkpoint)] => checkpoint.classes(),
            _ => None,
        }
    }

    /// The number format that a tensor of the network has in the file.
    pub(crate) fn dtype(&self, name: &str) -> Option<Dtype> {
        let part = self.names.locate(name);
        if part.gain.is_some_and(|gain| self.shape(&gain).is_some()) {
            return Some(Dtype::F32);
        }
        self.files.iter().find_map(|file| file.dtype(&part.name))
    }

    /// Reads a tensor of the network: of this shape, every value finite.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let part = self.names.locate(name);
        let stored = part.view.stored(shape);
        let mut values = self.stored(&part.name, &stored)?;
        match part.view {
            View::Whole => {}
            View::Third(third) => {
                let length = values.len() / 3;
                values = values.split_off(third * length);
                values.truncate(length);
            }
            View::Transposed => values = transposed(&values, stored[1]),
        }
        let Some(gain) = part.gain.filter(|gain| self.shape(gain).is_some()) else { return Ok(values) };
        let outputs = shape.first().copied().unwrap_or(1);
        let gain = self.stored(&gain, &[outputs])?;
        for (row, gain) in
            values.chunks_exact_mut(shape.get(1..).unwrap_or_default().iter().product::<usize>().max(1)).zip(gain)
        {
            row.iter_mut().for_each(|value| *value *= gain);
        }
        Ok(values)
    }

    /// Fails unless there is a tensor of the network of this shape.
    pub(crate) fn check(&self, name: &str, shape: &[usize]) -> Result<(), ModelError> {
        let part = self.names.locate(name);
        self.find(&part.name, &part.view.stored(shape)).map(drop)
    }

    /// The file with a tensor, which must have this shape.
    fn find(&self, name: &str, shape: &[usize]) -> Result<&File, ModelError> {
        let Some(file) = self.files.iter().find(|file| file.shape(name).is_some()) else {
            return Err(ModelError::tensor(&self.name, name, format!("missing, expected shape {shape:?}")));
        };
        let bad = |problem: String| ModelError::tensor(file.name(), name, problem);
        let found = file.shape(name).unwrap_or_default();
        // A scalar is a list of one in some training scripts.
        if found != shape && !(shape.is_empty() && found == [1]) {
            return Err(bad(format!("expected shape {shape:?}, found {found:?}")));
        }
        Ok(file)
    }

    /// Reads a tensor as it is in the file.
    fn stored(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let file = self.find(name, shape)?;
        let values = file.values(name)?;
        // By blocks, since a loop that may end anywhere takes one value at a time.
        let finite =
            |block: &[f32]| block.chunks(1024).all(|some| some.iter().fold(true, |all, value| all & value.is_finite()));
        if values.par_chunks(1 << 18).all(finite) {
            return Ok(values);
        }
        let wrong = values.iter().enumerate().find(|(_, value)| !value.is_finite());
        let (i, value) = wrong.unwrap_or((0, &f32::NAN));
        Err(ModelError::tensor(file.name(), name, format!("value {i} is {value}, expected finite numbers")))
    }
}

/// The transpose of a matrix of so many columns.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns.max(1))).copied().collect()
}

/// Whether a file is not one of PyTorch, so one of safetensors.
pub(crate) fn is_safetensors(path: &Path) -> Result<bool, ModelError> {
    Ok(!is_pytorch(&Blob::open(path)?)?)
}

/// Whether a file is one of PyTorch, or else of safetensors. What begins like neither is refused here, where both are known.
fn is_pytorch(blob: &Blob) -> Result<bool, ModelError> {
    let start = blob.read(0, blob.size().min(64))?;
    let pytorch = Checkpoint::is_start_of(&start);
    if pytorch || Reader::is_start_of(&start) {
        return Ok(pytorch);
    }
    let problem = "neither safetensors nor a file of PyTorch: expected a safetensors file, or a zip archive or a pickle of protocol 2 \
                   or later, as torch.save writes them";
    Err(ModelError::file(blob.name(), problem))
}

/// The files that hold a folder's weights in Hugging Face's layout: one, or an index and what it lists.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    for (single, index, ending) in [
        ("model.safetensors", "model.safetensors.index.json", ".safetensors"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json", ".bin"),
    ] {
        let (single, index) = (folder.join(single), folder.join(index));
        if single.is_file() {
            return Ok(vec![single]);
        }
        if index.is_file() {
            let text = texts::read(&index, texts::Kind::Index)?;
            let names = listed(&index.display().to_string(), &text, ending)?;
            return Ok([index].into_iter().chain(names.into_iter().map(|name| folder.join(name))).collect());
        }
    }
    let problem = "no weights: expected model.safetensors or pytorch_model.bin, or the index of one in parts";
    Err(ModelError::file(folder.display().to_string(), problem))
}

/// The files that an index lists.
pub(crate) fn listed(file: &str, text: &str, ending: &str) -> Result<BTreeSet<String>, ModelError> {
    let bad = |problem: &str| ModelError::file(file, problem);
    let value: Value = serde_json::from_str(text).map_err(|error| bad(&format!("not JSON: {error}")))?;
    let map = value.get("weight_map").and_then(Value::as_object).ok_or_else(|| bad("no object `weight_map`"))?;
    let kind = ending.trim_start_matches('.');
    let names = map.values().map(|name| {
        let plain = |name: &&str| name.ends_with(ending) && !name.contains(['/', '\\', ':']);
        name.as_str()
            .filter(plain)
            .map(str::to_owned)
            .ok_or_else(|| bad(&format!("weight_map: expected the name of a {kind} file, found {name}")))
    });
    names.collect()
}
