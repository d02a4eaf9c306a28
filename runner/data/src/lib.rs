//! Datasets, images, preprocessing and tokenizers.

mod dataset;
mod decode;
mod error;
pub mod fetch;
mod preprocess;
mod resize;
mod resize16;
mod text;
pub mod write;

pub use dataset::{Catalog, Dataset, FileStamp, IMAGE, Idx, Known, LABEL, Memory, classes_schema, read_idx};
pub use decode::{Limits, Pixels, decode, encode_png};
pub use error::DataError;
pub use preprocess::{CLIP_MEAN, CLIP_STD, Preprocess, PreprocessCfg, Reference, ResizeMode, RgbConversion, Size};
pub use resize::Filter;
pub use text::{CLIP_CONTEXT, Cleaning, ClipTokenizer, clean, train_tokenizer};
