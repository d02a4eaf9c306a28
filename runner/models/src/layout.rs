//! Which files make a model folder.

/// Whose folder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As `save_pretrained` of transformers leaves it.
    HuggingFace,
    /// As open_clip keeps its models on the hub.
    OpenClip,
}

/// The files of transformers, besides the weights, that decide what the model computes.
const PARTS: &[&str] = &[
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
];
/// The weights in transformers' layout, the first before the next; an index lists parts.
const WEIGHTS: &[&str] =
    &["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];
/// open_clip's configuration.
pub(crate) const OPEN_CLIP: &str = "open_clip_config.json";
/// open_clip's weights, the first before the next.
const OPEN_CLIP_WEIGHTS: &[&str] = &["open_clip_model.safetensors", "open_clip_pytorch_model.bin"];

/// The layout of a folder with these files. Where there are both, transformers' is taken if it says how to preprocess.
pub(crate) fn of(has: &dyn Fn(&str) -> bool) -> Layout {
    let any = |names: &[&str]| names.iter().any(|name| has(name));
    let whole = has("config.json") && any(WEIGHTS) && any(&["preprocessor_config.json", "processor_config.json"]);
    match has(OPEN_CLIP) && any(OPEN_CLIP_WEIGHTS) && !whole {
        true => Layout::OpenClip,
        false => Layout::HuggingFace,
    }
}

impl Layout {
    /// The files besides the weights. Not all are in every folder.
    pub(crate) fn parts(self) -> &'static [&'static str] {
        match self {
            Self::HuggingFace => PARTS,
            Self::OpenClip => &[OPEN_CLIP],
        }
    }

    /// The file of the weights, or their index.
    pub(crate) fn weights(self, has: &dyn Fn(&str) -> bool) -> Option<&'static str> {
        let names = match self {
            Self::HuggingFace => WEIGHTS,
            Self::OpenClip => OPEN_CLIP_WEIGHTS,
        };
        names.iter().copied().find(|name| has(name))
    }
}

/// How the names of the files end that an index lists; `None` if it is none.
pub(crate) fn listed_by(file: &str) -> Option<&'static str> {
    let name = file.strip_suffix(".index.json")?;
    if name.ends_with(".safetensors") { Some(".safetensors") } else { Some(".bin") }
}
