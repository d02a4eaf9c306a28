//! Model references: what they name, whose identity they are, and the models already loaded.

use std::{
    collections::HashMap,
    env, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use runner_contract::{Digest, KeyHasher, Model, ModelInfo, ModelSource};

use crate::{
    Loaded, ModelError,
    blob::Blob,
    bundle,
    hugging_face::{HuggingFace, Name},
    layout::{self, Layout},
    open_clip::Known,
    parts::{Parts, open_clip_weights},
    safetensors::Reader,
    texts, weights,
};

/// Bytes that are read, and then hashed, at a time.
const HASHED: usize = 4 << 20;
/// The models inside the binary: name and content.
const BUILTIN: &[(&str, &[u8])] = &[("mini-clip", include_bytes!("../builtin/mini-clip.safetensors"))];

/// Finds models by reference, and keeps those loaded.
///
/// A reference is one of
/// - `builtin:NAME`, a model inside the program; `imported:NAME`, one that was imported;
/// - the path of a folder as transformers or open_clip leave it, of a bundle (one safetensors file with the other files' texts in its
///   metadata), of a TorchScript archive of CLIP as OpenAI published them, of the weights of a ResNet of torchvision or of an
///   EfficientNet-Lite;
/// - `open_clip:NAME=PATH`, a state dict with the name of its configuration in open_clip, or `open_clip:NAME/TAG=PATH` with a
///   pretrained tag, too; `openai:PATH`, a state dict of OpenAI's code;
/// - `hf:ORG/NAME@REVISION`, a folder on the Hugging Face hub.
#[derive(Debug)]
pub struct Hub {
    root: PathBuf,
    /// The folder of imported models.
    library: PathBuf,
    hugging_face: HuggingFace,
    /// What folders and files were when they were last looked at.
    known: Mutex<HashMap<String, (Stamp, ModelInfo)>>,
    loaded: Mutex<LoadedModels>,
    /// Those opened by reference.
    opened: Mutex<HashMap<String, (Stamp, Arc<Loaded>)>>,
}

/// Path, size and modification time of files: while these stay, so does the content.
type Stamp = Vec<(PathBuf, u64, Option<SystemTime>)>;

/// Models by identity and GPU.
type LoadedModels = HashMap<(Digest, Option<u32>), Arc<Loaded>>;

/// What a reference names.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Builtin(&'static str, &'static [u8]),
    Folder(PathBuf, Layout),
    File(PathBuf, Meaning),
}

/// What a reference says of a file beside its path.
#[derive(Clone, Debug)]
pub(crate) enum Meaning {
    /// Nothing: it must say itself.
    Unsaid,
    /// A state dict of OpenAI's code.
    OpenAi,
    /// A state dict of open_clip: the configuration's name, and what it stands for.
    OpenClip(String, Box<Known>),
}

impl Hub {
    /// A hub whose relative paths start at `root`. Imported models and Hugging Face's cache are where the environment says.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            library: Self::default_library(),
            hugging_face: HuggingFace::from_env(),
            known: Mutex::default(),
            loaded: Mutex::default(),
            opened: Mutex::default(),
        }
    }

    /// The same with another folder of imported models.
    #[must_use]
    pub fn with_library(self, library: PathBuf) -> Self {
        Self { library, ..self }
    }

    /// The same with another Hugging Face hub or cache.
    #[must_use]
    pub fn with_hugging_face(self, hugging_face: HuggingFace) -> Self {
        Self { hugging_face, ..self }
    }

    /// `$RUNNER_MODELS`, else `$XDG_CACHE_HOME/runner/models`, else `~/.cache/runner/models`.
    pub fn default_library() -> PathBuf {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = || {
            Some(variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?.join("runner/models"))
        };
        variable("RUNNER_MODELS").or_else(cache).unwrap_or_else(|| PathBuf::from(".runner/models"))
    }

    /// The folder of imported models.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// The references of the models inside the binary.
    pub fn builtin() -> impl Iterator<Item = String> {
        BUILTIN.iter().map(|(name, _)| format!("builtin:{name}"))
    }

    /// The references of the imported models, sorted.
    pub fn imported(&self) -> Result<Vec<String>, ModelError> {
        let entries = match fs::read_dir(&self.library) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(ModelError::io(&self.library))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(ModelError::io(&self.library))?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(".safetensors"));
            found.extend(name.filter(|name| is_name(name)).map(|name| format!("imported:{name}")));
        }
        found.sort();
        Ok(found)
    }

    /// What a model offers, and its identity: a digest of everything that decides its results. Reads the configuration
    /// and hashes the weights; again only when a file's size or time changed.
    pub fn info(&self, reference: &str) -> Result<ModelInfo, ModelError> {
        let place = self.place(reference)?;
        if let Place::Builtin(_, bytes) = place {
            return Ok(Parts::open(&place)?.config.describe(Digest::of(bytes)));
        }
        let files = files(&place)?;
        let stamp = stamp(&files)?;
        if let Some((_, info)) = lock(&self.known).get(reference).filter(|(old, _)| *old == stamp) {
            return Ok(info.clone());
        }
        let info = Parts::open(&place)?.config.describe(identity(&place, &files)?);
        lock(&self.known).insert(reference.to_owned(), (stamp, info.clone()));
        Ok(info)
    }

    /// Loads a model, or gives the one already loaded of that identity.
    pub fn load(&self, model: &Model) -> Result<Arc<Loaded>, ModelError> {
        self.load_on(model, None)
    }

    /// The same, on a GPU where one is named, by its index.
    pub fn load_on(&self, model: &Model, gpu: Option<u32>) -> Result<Arc<Loaded>, ModelError> {
        if let Some(loaded) = lock(&self.loaded).get(&(model.identity, gpu)) {
            return Ok(loaded.clone());
        }
        let place = match &model.source {
            ModelSource::File(path) => Place::File(path.clone(), Meaning::Unsaid),
            ModelSource::Reference(reference) => {
                if self.info(reference)?.identity != model.identity {
                    return Err(ModelError::Changed { reference: reference.clone() });
                }
                self.place(reference)?
            }
        };
        let loaded = Arc::new(Parts::open(&place)?.load(gpu)?);
        lock(&self.loaded).insert((model.identity, gpu), loaded.clone());
        Ok(loaded)
    }

    /// Loads the model that a reference names, or gives the one opened before, unless a file's size or time changed. Does
    /// not read what it does not need, as [`Hub::info`] does for the identity.
    pub fn open(&self, reference: &str) -> Result<Arc<Loaded>, ModelError> {
        let place = self.place(reference)?;
        let stamp = stamp(&files(&place)?)?;
        if let Some((_, loaded)) = lock(&self.opened).get(reference).filter(|(old, _)| *old == stamp) {
            return Ok(loaded.clone());
        }
        let loaded = Arc::new(Parts::open(&place)?.load(None)?);
        lock(&self.opened).insert(reference.to_owned(), (stamp, loaded.clone()));
        Ok(loaded)
    }

    /// The metadata of a bundle that people read: its model card, as JSON. `None` where there is none.
    pub fn card(&self, reference: &str) -> Result<Option<String>, ModelError> {
        let Some(reader) = self.place(reference)?.bundle()? else { return Ok(None) };
        let Some(text) = reader.metadata().get(bundle::CARD) else { return Ok(None) };
        let file = format!("{}, {}", reader.name(), bundle::CARD);
        texts::check(&file, text.as_bytes(), texts::Kind::Config).map(|()| Some(text.clone()))
    }

    /// The commit that a reference to the Hugging Face hub stands for.
    pub(crate) fn commit(&self, reference: &str) -> Result<Option<String>, ModelError> {
        let name = reference.strip_prefix("hf:").and_then(Name::parse);
        name.map(|name| Ok(self.hugging_face.snapshot(&name)?.commit)).transpose()
    }

    pub(crate) fn place(&self, reference: &str) -> Result<Place, ModelError> {
        let bad = |problem: &str, hint: &str| ModelError::Name {
            reference: reference.to_owned(),
            problem: problem.to_owned(),
            hint: hint.to_owned(),
        };
        let (scheme, rest) = reference.split_once(':').unwrap_or(("", reference));
        match scheme {
            "builtin" => {
                let all = || Self::builtin().collect::<Vec<_>>().join(", ");
                let found = BUILTIN.iter().find(|(builtin, _)| *builtin == rest);
                found
                    .map(|(name, bytes)| Place::Builtin(name, bytes))
                    .ok_or_else(|| bad("no such built-in model", &format!("there is {}", all())))
            }
            "imported" => {
                let path = self.library.join(format!("{rest}.safetensors"));
                if is_name(rest) && path.is_file() {
                    return Ok(Place::File(path, Meaning::Unsaid));
                }
                let hint = match self.imported()? {
                    none if none.is_empty() => format!("runner model import MODEL --name {rest}"),
                    some => format!("there is {}", some.join(", ")),
                };
                Err(bad(&format!("no such model in {}", self.library.display()), &hint))
            }
            "hf" => {
                let Some(name) = Name::parse(rest) else {
                    return Err(bad(
                        "expected hf:ORG/NAME or hf:ORG/NAME@REVISION",
                        "for instance hf:openai/clip-vit-base-patch32",
                    ));
                };
                let folder = self.hugging_face.snapshot(&name)?.folder;
                let layout = layout::of(&|name| folder.join(name).is_file());
                Ok(Place::Folder(folder, layout))
            }
            "openai" => Ok(Place::File(self.file(reference, rest)?, Meaning::OpenAi)),
            "open_clip" => {
                let Some((name, path)) = rest.split_once('=') else {
                    return Err(bad(
                        "expected open_clip:NAME=PATH",
                        "for instance open_clip:ViT-B-32=open_clip_pytorch_model.bin",
                    ));
                };
                let known = Known::parse(name).map_err(|hint| bad("no such configuration of open_clip", &hint))?;
                Ok(Place::File(self.file(reference, path)?, Meaning::OpenClip(name.to_owned(), Box::new(known))))
            }
            _ if reference.contains("://") => {
                Err(bad("models are not fetched from URLs yet", "download it and give its path"))
            }
            _ => {
                let path = self.file(reference, reference)?;
                if !path.is_dir() {
                    return Ok(Place::File(path, Meaning::Unsaid));
                }
                let layout = layout::of(&|name| path.join(name).is_file());
                Ok(Place::Folder(path, layout))
            }
        }
    }

    /// A path that there is.
    fn file(&self, reference: &str, path: &str) -> Result<PathBuf, ModelError> {
        let path = self.root.join(path);
        match fs::metadata(&path) {
            Ok(_) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ModelError::Reference {
                reference: reference.to_owned(),
                problem: format!("neither a file nor a folder at {}", path.display()),
                hint: Some("give a path, or `builtin:mini-clip`".to_owned()),
            }),
            Err(source) => Err(ModelError::Io { path, source }),
        }
    }
}

impl Place {
    /// The bundle that is there; `None` if it is something else.
    pub(crate) fn bundle(&self) -> Result<Option<Reader>, ModelError> {
        let reader = match self {
            Self::Builtin(name, bytes) => builtin(name, bytes)?,
            Self::File(path, Meaning::Unsaid) if weights::is_safetensors(path)? => Reader::open(path)?,
            _ => return Ok(None),
        };
        Ok(Some(reader).filter(bundle::is_bundle))
    }
}

/// Whether a text can be the name of an imported model.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// A panic elsewhere leaves these maps whole: entries are put in at once.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn builtin(name: &str, bytes: &'static [u8]) -> Result<Reader, ModelError> {
    Reader::from_bytes(&format!("builtin:{name}"), bytes)
}

/// The files that decide what a model computes, in a fixed order.
fn files(place: &Place) -> Result<Vec<PathBuf>, ModelError> {
    let (folder, layout) = match place {
        Place::Builtin(..) => return Ok(Vec::new()),
        Place::File(path, _) => return Ok(vec![path.clone()]),
        Place::Folder(folder, layout) => (folder, *layout),
    };
    let mut files: Vec<PathBuf> =
        layout.parts().iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect();
    files.append(&mut match layout {
        Layout::HuggingFace => weights::files(folder)?,
        Layout::OpenClip => open_clip_weights(folder)?,
    });
    Ok(files)
}

/// The identity of what is at a place: of its files, and of what the reference says beside them.
fn identity(place: &Place, files: &[PathBuf]) -> Result<Digest, ModelError> {
    let (mut key, folder) = match place {
        Place::Builtin(_, bytes) => return Ok(Digest::of(bytes)),
        Place::File(path, Meaning::Unsaid) => return hash_file(path),
        Place::File(path, Meaning::OpenAi) => (KeyHasher::new("model-openai/1"), path.parent()),
        Place::File(path, Meaning::OpenClip(name, _)) => {
            (KeyHasher::new("model-open-clip-name/1").part("name", name.as_bytes()), path.parent())
        }
        Place::Folder(folder, Layout::HuggingFace) => (KeyHasher::new("model-folder/1"), Some(folder.as_path())),
        Place::Folder(folder, Layout::OpenClip) => (KeyHasher::new("model-open-clip/1"), Some(folder.as_path())),
    };
    for path in files {
        let name = match place {
            Place::Folder(..) => {
                folder.and_then(|folder| path.strip_prefix(folder).ok()).unwrap_or(path).to_string_lossy()
            }
            _ => "weights".into(),
        };
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

pub(crate) fn hash_file(path: &Path) -> Result<Digest, ModelError> {
    let blob = Blob::open(path)?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; HASHED]);
    for start in (0..blob.size()).step_by(HASHED) {
        let piece = &mut buffer[..(blob.size() - start).min(HASHED as u64) as usize];
        blob.read_into(start, piece).map_err(ModelError::io(path))?;
        hasher.update_rayon(piece);
    }
    Ok(hasher.finalize().into())
}
