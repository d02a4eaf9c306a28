//! The format of `torch.save` before 1.6: pickles one after another, then the storages.
//!
//! Magic number, protocol version, system, object, names of the storages; then for each storage the number of its elements
//! (i64) and its bytes.

use std::collections::HashMap;

use crate::{
    blob::Blob,
    pickle::{
        Problem,
        input::Input,
        machine::{self, Pickle, broken},
        storage::Place,
        value::Value,
    },
};

/// The magic number, as a pickle writes it.
pub(super) const MAGIC: [u8; 10] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19];
/// The version of the format.
const VERSION: i64 = 1001;

/// Whether a file that begins so is one.
pub(super) fn is_legacy(start: &[u8]) -> bool {
    start.first() == Some(&0x80) && start.windows(MAGIC.len()).any(|window| window == MAGIC)
}

/// The object, and where its storages are, in the order in which it names them.
pub(super) fn open(blob: &Blob) -> Result<(Pickle, Vec<Option<Place>>), Problem> {
    let mut input = Input::buffered(blob.range(0, blob.size()));
    machine::run(&mut input)?;
    let version = machine::run(&mut input)?;
    if !matches!(version.root(), Value::Int(VERSION)) {
        return broken(format!("expected version {VERSION} of PyTorch's old format"));
    }
    let system = machine::run(&mut input)?;
    if let Value::Dict(items) = system.root()
        && let Some((_, order)) = items.iter().find(|(key, _)| system.text(*key) == Some("little_endian"))
        && !matches!(system.get(*order), Value::Bool(true))
    {
        return broken("an old file of a big-endian machine; load it there and save it anew");
    }
    let object = machine::run(&mut input)?;
    let keys = machine::run(&mut input)?;
    let Value::List(items) = keys.root() else { return broken("no list of storages behind the object") };
    let numbers: HashMap<&str, usize> =
        object.storages.iter().enumerate().map(|(i, it)| (it.key.as_str(), i)).collect();
    let mut places = vec![None; object.storages.len()];
    let mut at = input.position;
    for item in items {
        let number = keys.text(*item).and_then(|key| numbers.get(key).copied());
        let Some(number) = number else { return broken("a storage that the object does not name") };
        let storage = &object.storages[number];
        let mut length = [0; 8];
        length.copy_from_slice(&blob.read(at, 8)?);
        if u64::from_le_bytes(length) != storage.length {
            let found = i64::from_le_bytes(length);
            return broken(format!("storage `{}`: expected {} elements, found {found}", storage.key, storage.length));
        }
        let bytes = storage.length.saturating_mul(storage.element.size);
        let Some(end) = (at + 8).checked_add(bytes).filter(|end| *end <= blob.size()) else {
            return broken(format!(
                "storage `{}`: its {bytes} bytes are not in the file, which was cut off",
                storage.key
            ));
        };
        places[number] = Some(Place::Plain { start: at + 8, bytes });
        at = end;
    }
    Ok((object, places))
}
