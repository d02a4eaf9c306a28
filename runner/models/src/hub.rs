//! Model references: what they name, whose identity they are, and the models already loaded.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use runner_contract::{Digest, KeyHasher, Model, ModelInfo, ModelSource};
use runner_data::{ClipTokenizer, Preprocess};

use crate::{
    Classifier, Clip, Loaded, ModelConfig, ModelError, bundle,
    safetensors::Reader,
    weights::{self, Weights},
};

/// The models inside the binary: name and content.
const BUILTIN: &[(&str, &[u8])] = &[("mini-clip", include_bytes!("../builtin/mini-clip.safetensors"))];

/// The files of a model folder, besides the weights, that decide what the model computes.
const PARTS: &[&str] = &[
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
];

/// Finds models by reference, and keeps those loaded.
///
/// A reference is `builtin:NAME`, the path of a Hugging Face `CLIPModel` folder, or the path of a bundle: one safetensors
/// file with the other files' texts in its metadata.
#[derive(Debug)]
pub struct Hub {
    root: PathBuf,
    /// What folders and files were when they were last looked at.
    known: Mutex<HashMap<PathBuf, (Stamp, ModelInfo)>>,
    loaded: Mutex<HashMap<Digest, Arc<Loaded>>>,
}

/// Path, size and modification time of files: while these stay, so does the content.
type Stamp = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// What a reference names.
pub(crate) enum Place {
    Builtin(&'static str, &'static [u8]),
    Folder(PathBuf),
    Bundle(PathBuf),
}

impl Hub {
    /// A hub whose relative paths start at `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root, known: Mutex::default(), loaded: Mutex::default() }
    }

    /// The references of the models inside the binary.
    pub fn builtin() -> impl Iterator<Item = String> {
        BUILTIN.iter().map(|(name, _)| format!("builtin:{name}"))
    }

    /// What a model offers, and its identity: a digest of everything that decides its results. Reads the configuration
    /// and hashes the weights; again only when a file's size or time changed.
    pub fn info(&self, reference: &str) -> Result<ModelInfo, ModelError> {
        let place = self.place(reference)?;
        let (path, files) = match &place {
            Place::Builtin(name, bytes) => {
                return Ok(bundle::config(&builtin(name, bytes)?)?.describe(Digest::of(bytes)));
            }
            Place::Bundle(path) => (path, vec![path.clone()]),
            Place::Folder(path) => (path, folder_files(path)?),
        };
        let stamp = stamp(&files)?;
        if let Some((_, info)) = lock(&self.known).get(path).filter(|(old, _)| *old == stamp) {
            return Ok(info.clone());
        }
        let info = if matches!(place, Place::Folder(_)) {
            folder_config(path)?.describe(folder_identity(path, &files)?)
        } else {
            bundle::config(&Reader::open(path)?)?.describe(hash_file(path)?)
        };
        lock(&self.known).insert(path.clone(), (stamp, info.clone()));
        Ok(info)
    }

    /// Loads a model, or gives the one already loaded of that identity.
    pub fn load(&self, model: &Model) -> Result<Arc<Loaded>, ModelError> {
        if let Some(loaded) = lock(&self.loaded).get(&model.identity) {
            return Ok(loaded.clone());
        }
        let loaded = match &model.source {
            ModelSource::File(path) => bundle::load(Reader::open(path)?)?,
            ModelSource::Reference(reference) => {
                let changed = || ModelError::Changed { reference: reference.clone() };
                if self.info(reference)?.identity != model.identity {
                    return Err(changed());
                }
                match self.place(reference)? {
                    Place::Builtin(name, bytes) => bundle::load(builtin(name, bytes)?)?,
                    Place::Bundle(path) => bundle::load(Reader::open(&path)?)?,
                    Place::Folder(path) => load_folder(&path)?,
                }
            }
        };
        let loaded = Arc::new(loaded);
        lock(&self.loaded).insert(model.identity, loaded.clone());
        Ok(loaded)
    }

    /// Loads the model that a reference names.
    pub fn open(&self, reference: &str) -> Result<Arc<Loaded>, ModelError> {
        let identity = self.info(reference)?.identity;
        self.load(&Model { identity, source: ModelSource::Reference(reference.to_owned()) })
    }

    /// The metadata of a bundle that people read: its model card, as JSON. `None` where there is none.
    pub fn card(&self, reference: &str) -> Result<Option<String>, ModelError> {
        let reader = match self.place(reference)? {
            Place::Builtin(name, bytes) => builtin(name, bytes)?,
            Place::Bundle(path) => Reader::open(&path)?,
            Place::Folder(_) => return Ok(None),
        };
        Ok(reader.metadata().get(bundle::CARD).cloned())
    }

    pub(crate) fn place(&self, reference: &str) -> Result<Place, ModelError> {
        let bad = |problem: &str, hint: &str| ModelError::Reference {
            reference: reference.to_owned(),
            problem: problem.to_owned(),
            hint: Some(hint.to_owned()),
        };
        if let Some(name) = reference.strip_prefix("builtin:") {
            let all = || Self::builtin().collect::<Vec<_>>().join(", ");
            let found = BUILTIN.iter().find(|(builtin, _)| *builtin == name);
            return found
                .map(|(name, bytes)| Place::Builtin(name, bytes))
                .ok_or_else(|| bad("no such built-in model", &format!("there is {}", all())));
        }
        if let Some(name) = reference.strip_prefix("hf:") {
            let name = name.split('@').next().unwrap_or(name);
            let hint = format!(
                "download the folder, for instance with `hf download {name} --local-dir {}`, and give its path",
                name.rsplit('/').next().unwrap_or(name)
            );
            return Err(bad("models are not fetched from the Hugging Face hub yet", &hint));
        }
        if reference.contains("://") {
            return Err(bad("models are not fetched from URLs yet", "download it and give its path"));
        }
        let path = self.root.join(reference);
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Ok(Place::Folder(path)),
            Ok(_) => Ok(Place::Bundle(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(bad(
                &format!("neither a file nor a folder at {}", path.display()),
                "give a path, or `builtin:mini-clip`",
            )),
            Err(source) => Err(ModelError::Io { path, source }),
        }
    }
}

/// A panic elsewhere leaves these maps whole: entries are put in at once.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn builtin(name: &str, bytes: &'static [u8]) -> Result<Reader, ModelError> {
    Reader::from_bytes(&format!("builtin:{name}"), bytes)
}

fn folder_config(folder: &Path) -> Result<ModelConfig, ModelError> {
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).map_err(ModelError::io(&path))?;
    ModelConfig::parse(&path.display().to_string(), &text)
}

/// The files of a folder that decide what the model computes, in a fixed order.
fn folder_files(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let mut files: Vec<PathBuf> = PARTS.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect();
    files.append(&mut weights::files(folder)?);
    Ok(files)
}

fn folder_identity(folder: &Path, files: &[PathBuf]) -> Result<Digest, ModelError> {
    let mut key = KeyHasher::new("model-folder/1");
    for path in files {
        let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
        key = key.digest(&name, &hash_file(path)?);
    }
    Ok(key.finish())
}

fn stamp(files: &[PathBuf]) -> Result<Stamp, ModelError> {
    let each = |path: &PathBuf| {
        let found = fs::metadata(path).map_err(ModelError::io(path))?;
        Ok((path.clone(), found.len(), found.modified().ok()))
    };
    files.iter().map(each).collect()
}

fn hash_file(path: &Path) -> Result<Digest, ModelError> {
    let mut file = File::open(path).map_err(ModelError::io(path))?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ModelError::io(path)(error)),
        };
    }
}

fn load_folder(folder: &Path) -> Result<Loaded, ModelError> {
    let of_data = |error: runner_data::DataError| ModelError::file(folder.display().to_string(), error.to_string());
    let config = folder_config(folder)?;
    if !["preprocessor_config.json", "processor_config.json"].iter().any(|name| folder.join(name).is_file()) {
        let problem = "neither preprocessor_config.json nor processor_config.json, so how to preprocess is unknown";
        return Err(ModelError::file(folder.display().to_string(), problem));
    }
    let preprocess = Preprocess::from_folder(folder).map_err(of_data)?;
    let weights = Weights::open(folder)?;
    let values = &mut |name: &str, shape: &[usize]| weights.tensor(name, shape);
    match config {
        ModelConfig::Clip(config) => {
            let tokenizer = ClipTokenizer::from_folder(folder).map_err(of_data)?;
            Clip::new(config, values, tokenizer, preprocess).map(Loaded::Clip)
        }
        ModelConfig::Classifier(config) => Classifier::new(config, values, preprocess).map(Loaded::Classifier),
    }
}
