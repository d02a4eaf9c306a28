//! A small writer of pickles and zip archives, honest or not.

use std::io::Write as _;

use flate2::{Compression, write::DeflateEncoder};

/// The opcodes of a pickle, put together by hand.
#[derive(Clone, Default)]
pub(super) struct Pickle(Vec<u8>);

impl Pickle {
    pub(super) fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub(super) fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn text(self, text: &str) -> Self {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        self.op(b"X").op(&length).op(text.as_bytes())
    }

    pub(super) fn int(self, value: i64) -> Self {
        self.op(&[0x8A, 8]).op(&value.to_le_bytes())
    }

    pub(super) fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    pub(super) fn tuple(self, items: impl FnOnce(Self) -> Self) -> Self {
        items(self.op(b"(")).op(b"t")
    }

    pub(super) fn ints(self, values: &[i64]) -> Self {
        self.tuple(|it| values.iter().fold(it, |it, value| it.int(*value)))
    }

    pub(super) fn storage(self, class: &str, key: &str, length: i64) -> Self {
        self.tuple(|it| it.text("storage").global("torch", class).text(key).text("cpu").int(length)).op(b"Q")
    }

    /// `_rebuild_tensor_v2` of storage `0`.
    pub(super) fn tensor(self, held: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .tuple(|it| {
                it.storage("FloatStorage", "0", held).int(offset).ints(shape).ints(strides).op(&[0x89]).op(b"}")
            })
            .op(b"R")
    }

    /// A state dict with one tensor `w`.
    pub(super) fn state(self, value: impl FnOnce(Self) -> Self) -> Self {
        value(self.op(b"}").text("w")).op(b"s")
    }

    pub(super) fn end(self) -> Vec<u8> {
        self.op(b".").0
    }
}

/// An entry of an archive, and what its headers say of it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) local_name: String,
    pub(super) content: Vec<u8>,
    pub(super) method: u16,
    pub(super) size: u32,
    /// Where the directory says that it is, if not where it is.
    pub(super) place: Option<u32>,
}

impl Entry {
    pub(super) fn stored(name: &str, content: &[u8]) -> Self {
        let size = u32::try_from(content.len()).unwrap();
        let (name, local_name) = (name.to_owned(), name.to_owned());
        Self { name, local_name, content: content.to_vec(), method: 0, size, place: None }
    }

    pub(super) fn deflated(name: &str, content: &[u8]) -> Self {
        let mut packer = DeflateEncoder::new(Vec::new(), Compression::best());
        packer.write_all(content).unwrap();
        Self { content: packer.finish().unwrap(), method: 8, ..Self::stored(name, content) }
    }
}

/// A zip archive.
pub(super) fn zip(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let place = entry.place.unwrap_or(u32::try_from(bytes.len()).unwrap());
        let packed = u32::try_from(entry.content.len()).unwrap();
        let fixed = |name: &str| {
            let mut fixed = vec![20, 0, 0, 0];
            fixed.extend(entry.method.to_le_bytes());
            fixed.extend([0; 8]);
            fixed.extend(packed.to_le_bytes());
            fixed.extend(entry.size.to_le_bytes());
            fixed.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
            fixed.extend([0, 0]);
            fixed
        };
        bytes.extend(b"PK\x03\x04");
        bytes.extend(fixed(&entry.local_name));
        bytes.extend(entry.local_name.as_bytes());
        bytes.extend(&entry.content);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(fixed(&entry.name));
        directory.extend([0; 10]);
        directory.extend(place.to_le_bytes());
        directory.extend(entry.name.as_bytes());
    }
    let start = u32::try_from(bytes.len()).unwrap();
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend(count);
    bytes.extend(count);
    bytes.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

/// An archive as `torch.save` writes it: the pickle, and storage `0`.
pub(super) fn archive(pickle: Vec<u8>, storage: &[u8]) -> Vec<u8> {
    zip(&[Entry::stored("archive/data.pkl", &pickle), Entry::stored("archive/data/0", storage)])
}
