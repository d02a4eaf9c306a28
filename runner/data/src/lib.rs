//! Datasets, images, preprocessing and tokenizers.
