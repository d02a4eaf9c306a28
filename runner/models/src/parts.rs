//! The parts that make a model, wherever they come from: configuration, preprocessing, tokenizer, weights; and what was decided
//! about each, from what.

use std::path::{Path, PathBuf};

use runner_data::{ClipTokenizer, DataError, Preprocess};

use crate::{
    Architecture, Classifier, ClassifierConfig, Clip, Loaded, ModelConfig, ModelError,
    clip::Activation,
    hub::{Meaning, Place, builtin},
    layout::{self, Layout},
    names::Names,
    open_clip, openai,
    safetensors::{Dtype, Reader},
    texts,
    weights::{self, Weights},
};

/// A model that is not loaded yet.
pub(crate) struct Parts {
    pub(crate) config: ModelConfig,
    pub(crate) preprocess: Preprocess,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) weights: Weights,
    pub(crate) origins: Origins,
}

/// Is told of a tensor that the network takes: its name, its shape, and its number format in the file.
type Note<'a> = dyn FnMut(&str, &[usize], Option<Dtype>) + 'a;

/// What each decision was made from, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origins {
    pub(crate) architecture: String,
    pub(crate) activation: String,
    pub(crate) preprocessing: String,
    pub(crate) tokenizer: String,
}

/// Where a model's tokenizer is.
pub(crate) enum Tokenizer {
    /// A classifier has none.
    None,
    /// In a folder of transformers, with the text of its `tokenizer_config.json`.
    Folder { folder: PathBuf, config: Option<String> },
    /// In a bundle: its file's name for messages, `tokenizer.json`, `tokenizer_config.json`.
    Texts { file: String, json: String, config: Option<String> },
    /// In the program: that of OpenAI's code.
    OpenAi,
    /// In the program: that of open_clip, which spells the special tokens otherwise.
    OpenClip,
}

impl Tokenizer {
    pub(crate) fn load(&self) -> Result<ClipTokenizer, ModelError> {
        let of = |name: &str, result: Result<ClipTokenizer, DataError>| {
            result.map_err(|error| ModelError::file(name, error.to_string()))
        };
        match self {
            Self::None => Err(ModelError::Input("a model without a tokenizer takes no texts".to_owned())),
            Self::Folder { folder, config } => {
                of(&folder.display().to_string(), ClipTokenizer::from_folder(folder, config.as_deref()))
            }
            Self::Texts { file, json, config } => of(file, ClipTokenizer::from_json(json, config.as_deref())),
            Self::OpenAi => of("CLIP's vocabulary", ClipTokenizer::openai()),
            Self::OpenClip => of("CLIP's vocabulary", ClipTokenizer::open_clip()),
        }
    }
}

impl Parts {
    /// Reads what a place holds: all but the weights' values.
    pub(crate) fn open(place: &Place) -> Result<Self, ModelError> {
        match place {
            Place::Builtin(name, bytes) => bundle(builtin(name, bytes)?),
            Place::Folder(folder, Layout::HuggingFace) => of_transformers(folder),
            Place::Folder(folder, Layout::OpenClip) => of_open_clip(folder),
            Place::File(path, meaning) => {
                if let Some(reader) = place.bundle()? {
                    return bundle(reader);
                }
                let weights = Weights::open(std::slice::from_ref(path))?;
                match meaning {
                    Meaning::OpenClip(name, known) => {
                        let said = format!("open_clip's {name}");
                        let preprocess = Preprocess::open_clip(&known.preprocess);
                        Ok(Self::clip(ModelConfig::Clip(known.config), preprocess, Tokenizer::OpenClip, weights, &said))
                    }
                    Meaning::OpenAi => of_openai(weights, Activation::QuickGelu, "OpenAI's models"),
                    Meaning::Unsaid => of_weights(weights),
                }
            }
        }
    }

    /// Loads, to be computed on a GPU or else on the processor, where weights are read when they are needed.
    pub(crate) fn load(self, gpu: Option<u32>) -> Result<Loaded, ModelError> {
        let (ModelConfig::Clip(config), None) = (&self.config, gpu) else {
            return self.load_noting(gpu, &mut |_, _, _| ());
        };
        Clip::over(*config, self.weights, self.tokenizer, self.preprocess).map(Loaded::Clip)
    }

    /// Loads all weights, and tells each tensor that the network takes: name, shape, and number format in the file.
    pub(crate) fn load_noting(self, gpu: Option<u32>, note: &mut Note<'_>) -> Result<Loaded, ModelError> {
        let Self { config, preprocess, tokenizer, weights, .. } = self;
        let values = &mut |name: &str, shape: &[usize]| {
            note(name, shape, weights.dtype(name));
            weights.tensor(name, shape)
        };
        match config {
            ModelConfig::Classifier(config) => {
                if gpu.is_some() {
                    let problem = format!(
                        "a {} model cannot be computed on a GPU yet, only CLIP's transformers; use `device: cpu`",
                        config.architecture.name()
                    );
                    return Err(ModelError::Input(problem));
                }
                Classifier::new(config, values, preprocess).map(Loaded::Classifier)
            }
            ModelConfig::Clip(config) => {
                Clip::new(config, values, tokenizer.load()?, preprocess, gpu).map(Loaded::Clip)
            }
        }
    }

    /// A CLIP model whose tokenizer is CLIP's own.
    fn clip(config: ModelConfig, preprocess: Preprocess, tokenizer: Tokenizer, weights: Weights, said: &str) -> Self {
        let origins = Origins {
            architecture: said.to_owned(),
            activation: said.to_owned(),
            preprocessing: said.to_owned(),
            tokenizer: "inside the program".to_owned(),
        };
        Self { config, preprocess, tokenizer, weights, origins }
    }
}

fn bundle(reader: Reader) -> Result<Parts, ModelError> {
    let part = |name: &str| -> Result<_, ModelError> {
        let text = reader.metadata().get(name).ok_or_else(|| {
            let problem = format!(
                "no `{name}` in the metadata, so this is no bundle; for the weights of a model folder, give the folder"
            );
            ModelError::file(reader.name(), problem)
        })?;
        Ok((format!("{}, {name}", reader.name()), text))
    };
    let small = |name: &str| {
        let (file, text) = part(name)?;
        texts::check(&file, text.as_bytes(), texts::Kind::Config).map(|()| (file, text))
    };
    let (file, text) = small("config.json")?;
    let config = ModelConfig::parse(&file, text)?;
    let (file, text) = small("preprocessor_config.json")?;
    let preprocess = Preprocess::from_config(text).map_err(|error| ModelError::file(file, error.to_string()))?;
    let tokenizer = match config {
        ModelConfig::Classifier(_) => Tokenizer::None,
        ModelConfig::Clip(_) => {
            let (file, json) = part("tokenizer.json")?;
            let has = reader.metadata().contains_key("tokenizer_config.json");
            let config = has.then(|| small("tokenizer_config.json")).transpose()?.map(|(_, text)| text.clone());
            Tokenizer::Texts { file, json: json.clone(), config }
        }
    };
    let within = |name: &str| format!("{name} in the bundle");
    let origins = Origins {
        architecture: within("config.json"),
        activation: within("config.json"),
        preprocessing: within("preprocessor_config.json"),
        tokenizer: within("tokenizer.json"),
    };
    Ok(Parts { config, preprocess, tokenizer, weights: Weights::single(reader), origins })
}

fn of_transformers(folder: &Path) -> Result<Parts, ModelError> {
    let has = |name: &str| folder.join(name).is_file();
    let read = |name: &str| {
        let path = folder.join(name);
        texts::read(&path, texts::Kind::Config).map(|text| (path.display().to_string(), text))
    };
    let (file, text) = read("config.json")?;
    let config = ModelConfig::parse(&file, &text)?;
    let Some(preprocessing) = ["preprocessor_config.json", "processor_config.json"].into_iter().find(|name| has(name))
    else {
        let problem = "neither preprocessor_config.json nor processor_config.json, so how to preprocess is unknown";
        return Err(ModelError::file(folder.display().to_string(), problem));
    };
    let (file, text) = read(preprocessing)?;
    let preprocess = Preprocess::from_config(&text).map_err(|error| ModelError::file(file, error.to_string()))?;
    let tokenizer = match config {
        ModelConfig::Classifier(_) => Tokenizer::None,
        ModelConfig::Clip(_) => {
            let config = has("tokenizer_config.json").then(|| read("tokenizer_config.json")).transpose()?;
            Tokenizer::Folder { folder: folder.to_owned(), config: config.map(|(_, text)| text) }
        }
    };
    let origins = Origins {
        architecture: "config.json".to_owned(),
        activation: "config.json".to_owned(),
        preprocessing: preprocessing.to_owned(),
        tokenizer: if has("tokenizer.json") { "tokenizer.json" } else { "vocab.json and merges.txt" }.to_owned(),
    };
    let weights = Weights::open(&weights::files(folder)?)?;
    Ok(Parts { config, preprocess, tokenizer, weights, origins })
}

fn of_open_clip(folder: &Path) -> Result<Parts, ModelError> {
    let path = folder.join(layout::OPEN_CLIP);
    let text = texts::read(&path, texts::Kind::Config)?;
    let (config, preprocess) = open_clip::parse(&path.display().to_string(), &text)?;
    let preprocess = Preprocess::open_clip(&preprocess);
    let weights = Weights::open(&open_clip_weights(folder)?)?;
    Ok(Parts::clip(ModelConfig::Clip(config), preprocess, Tokenizer::OpenClip, weights, layout::OPEN_CLIP))
}

/// The weights of an open_clip folder.
pub(crate) fn open_clip_weights(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let found = Layout::OpenClip.weights(&|name| folder.join(name).is_file());
    let missing = || {
        ModelError::file(
            folder.display().to_string(),
            "no open_clip_model.safetensors and no open_clip_pytorch_model.bin",
        )
    };
    Ok(vec![folder.join(found.ok_or_else(missing)?)])
}

fn of_openai(weights: Weights, activation: Activation, said: &str) -> Result<Parts, ModelError> {
    let config = openai::derive(&weights, activation)?;
    let preprocess = Preprocess::openai(config.vision.image_size());
    let mut parts = Parts::clip(ModelConfig::Clip(config), preprocess, Tokenizer::OpenAi, weights, said);
    parts.origins.architecture = "the tensors' shapes".to_owned();
    parts.origins.preprocessing = "OpenAI's models".to_owned();
    Ok(parts)
}

/// Weights alone: what they are must follow from themselves.
fn of_weights(weights: Weights) -> Result<Parts, ModelError> {
    let shape = |name: &str| weights.shape(name).map(<[usize]>::to_vec);
    if let Some(classes) = weights.classes() {
        let (activation, class) = match classes.contains("GELU") && !classes.contains("QuickGELU") {
            true => (Activation::Gelu, "GELU"),
            false => (Activation::QuickGelu, "QuickGELU"),
        };
        let said = match classes.contains(class) {
            true => format!("class {class} in the archive"),
            false => "OpenAI's models".to_owned(),
        };
        return of_openai(weights, activation, &said);
    }
    if let Some(config) = ClassifierConfig::derive(&shape) {
        let (preprocess, said) = match config.architecture {
            Architecture::ResNet(_) => (Preprocess::torchvision_classifier(), "torchvision's models"),
            Architecture::EfficientNetLite(_) => {
                (Preprocess::efficientnet_lite(config.image_size), "EfficientNet-Lite")
            }
        };
        let origins = Origins {
            architecture: "the tensors' shapes".to_owned(),
            activation: said.to_owned(),
            preprocessing: said.to_owned(),
            tokenizer: String::new(),
        };
        let config = ModelConfig::Classifier(config);
        return Ok(Parts { config, preprocess, tokenizer: Tokenizer::None, weights, origins });
    }
    Err(unnamed(&weights))
}

/// Why weights alone are no model, and what would make them one.
fn unnamed(weights: &Weights) -> ModelError {
    let has = |part: &str| weights.tensors().any(|name| name.contains(part));
    let problem = if let Names::OpenAi { .. } = weights.names() {
        let like = openai::derive(weights, Activation::Gelu).map(|config| open_clip::like(&config)).unwrap_or_default();
        let name = like.first().copied().unwrap_or("NAME");
        let file = weights.name();
        return ModelError::Reference {
            reference: file.to_owned(),
            problem: "a state dict of CLIP does not say whether its activation is GELU or quick GELU".to_owned(),
            hint: Some(format!(
                "give open_clip's name, open_clip:{name}=PATH or open_clip:{name}-quickgelu=PATH; of OpenAI's code, openai:PATH"
            )),
        };
    } else if has("text_model.") || has("vision_model.") {
        "weights without a config.json: for the weights of a model folder, give the folder"
    } else if has("visual.trunk.") {
        "a model with an image tower of timm (SigLIP, EVA, ConvNeXt, MobileCLIP, ViTamin), which is not supported"
    } else if has("text_decoder.") {
        "a CoCa model, which is not supported"
    } else if has("visual.blocks.") {
        "a model with an EVA image tower, which is not supported"
    } else {
        "no model that is known here: expected CLIP (OpenAI, open_clip, transformers), a ResNet of torchvision or an EfficientNet-Lite"
    };
    ModelError::file(weights.name(), problem)
}
