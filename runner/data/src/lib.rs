//! Datasets, images, preprocessing and tokenizers.

mod contain;
mod dataset;
mod decode;
mod error;
pub mod fetch;
pub mod file;
mod preprocess;
mod resize;
mod text;
pub mod write;

pub use dataset::{
    Amount, Catalog, Children, Choice, Dataset, FileStamp, IMAGE, Idx, Known, LABEL, Memory, Object, Objects,
    OpenOptions, Pick, classes_schema, imagenet_classes, imagenet_synsets, imagenet_templates, read_idx, subset,
};
pub use decode::{Limits, Pixels, decode, encode_png};
pub use error::DataError;
pub use preprocess::{CLIP_MEAN, CLIP_STD, Preprocess, PreprocessCfg, Reference, ResizeMode, RgbConversion, Size};
pub use resize::Filter;
pub use text::{CLIP_CONTEXT, Cleaning, ClipTokenizer, clean, train_tokenizer};
