//! Checkpoints.

use std::{fs, path::PathBuf, sync::LazyLock};

use runner_models::{Checkpoint, Hub, safetensors::Reader};

use crate::datasets::folder;

/// Reads the header, and every tensor that it promises.
pub fn safetensors(bytes: &[u8]) {
    let Ok(reader) = Reader::from_bytes("fuzzed", bytes.to_vec()) else { return };
    let names: Vec<String> = reader.names().map(str::to_owned).collect();
    for name in names {
        let Some(shape) = reader.shape(&name).map(<[usize]>::to_vec) else { continue };
        if let Ok(values) = reader.tensor(&name, &shape) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
        }
    }
}

/// A checkpoint of PyTorch's: zip, or one pickle after the other.
pub fn pickle(bytes: &[u8]) {
    let Ok(checkpoint) = Checkpoint::from_bytes("fuzzed", bytes.to_vec()) else { return };
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    for name in names {
        if let (Ok(values), Some(shape)) = (checkpoint.values(&name), checkpoint.shape(&name)) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
        }
    }
}

/// `config.json` of a checkpoint folder without weights.
pub fn config(bytes: &[u8]) {
    static FILE: LazyLock<PathBuf> = LazyLock::new(|| folder("config").join("config.json"));
    if fs::write(&*FILE, bytes).is_ok()
        && let Some(folder) = FILE.parent().and_then(|folder| folder.to_str())
    {
        let hub = Hub::new(PathBuf::from("/"));
        let _ = hub.info(folder);
        let _ = hub.open(folder);
    }
}
