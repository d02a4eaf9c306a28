//! The safetensors format: a checked reader that trusts no header, and a writer whose bytes depend on the content alone.
//!
//! Layout: the header's length (u64, little-endian), the header (JSON: tensor name to `dtype`, `shape` and
//! `data_offsets`, and `__metadata__` with texts), the data.

use std::{borrow::Cow, collections::BTreeMap, fmt, path::Path};

use half::{bf16, f16};
use rayon::prelude::*;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value, json};

use crate::{ModelError, blob::Blob};

/// The largest header read, in bytes. A bundle's holds its tokenizer, a few million.
const MAX_HEADER: u64 = 64 << 20;
/// Values of the header's JSON; a tensor has six.
pub(crate) const MAX_VALUES: usize = 2 << 20;
/// The entry that is no tensor.
const METADATA: &str = "__metadata__";
/// Bytes of a number of each format.
const SIZES: &[(&str, u64)] = &[
    ("F64", 8),
    ("F32", 4),
    ("F16", 2),
    ("BF16", 2),
    ("F8_E4M3", 1),
    ("F8_E5M2", 1),
    ("I64", 8),
    ("I32", 4),
    ("I16", 2),
    ("I8", 1),
    ("U64", 8),
    ("U32", 4),
    ("U16", 2),
    ("U8", 1),
    ("BOOL", 1),
];

/// A number format of tensors on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point (IEEE half).
    F16,
    /// Brain floating point.
    Bf16,
    /// 64-bit floating point.
    F64,
}

impl Dtype {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "F64" => Self::F64,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F64 => "F64",
        }
    }

    fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32 + Sync) -> Vec<f32> {
            bytes.as_chunks().0.par_iter().with_min_len(1 << 16).map(|chunk| value(*chunk)).collect()
        }
        match self {
            Self::F32 => each(bytes, f32::from_le_bytes),
            Self::F16 => each(bytes, |raw| f16::from_le_bytes(raw).to_f32()),
            Self::Bf16 => each(bytes, |raw| bf16::from_le_bytes(raw).to_f32()),
            Self::F64 => each(bytes, |raw| f64::from_le_bytes(raw) as f32),
        }
    }

    fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        for value in values {
            match self {
                Self::F32 => out.extend(value.to_le_bytes()),
                Self::F16 => out.extend(f16::from_f32(*value).to_le_bytes()),
                Self::Bf16 => out.extend(bf16::from_f32(*value).to_le_bytes()),
                Self::F64 => out.extend(f64::from(*value).to_le_bytes()),
            }
        }
    }
}

/// A tensor's place in the file. The format stays a text, so that tensors nobody reads may have any.
#[derive(Debug)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    /// Bytes after the header: start and end, inside the file.
    range: (u64, u64),
}

/// An open safetensors file: its header is read and checked, its tensors are read one by one.
#[derive(Debug)]
pub struct Reader {
    blob: Blob,
    /// Where the data begins.
    start: u64,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl Reader {
    /// Whether a file that begins with these bytes may be one: with the length of a header that is read.
    pub(crate) fn is_start_of(start: &[u8]) -> bool {
        start.first_chunk().is_some_and(|length| u64::from_le_bytes(*length) <= MAX_HEADER)
    }

    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::new(Blob::open(path)?)
    }

    /// Reads from memory. `name` stands for the file in messages.
    pub fn from_bytes(name: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self, ModelError> {
        Self::new(Blob::from_bytes(name, bytes))
    }

    pub(crate) fn new(blob: Blob) -> Result<Self, ModelError> {
        let bad = |problem: String| ModelError::file(blob.name(), format!("not a safetensors file: {problem}"));
        let size = blob.size();
        if size < 8 {
            return Err(bad(format!("{size} bytes long, expected at least 8")));
        }
        let mut length = [0; 8];
        length.copy_from_slice(&blob.read(0, 8)?);
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER {
            return Err(bad("it does not begin with the length of a header".to_owned()));
        }
        if length > size - 8 {
            return Err(bad(format!("a header of {length} bytes in a file of {size}")));
        }
        let header = blob.read(8, length)?;
        if values(&header) > MAX_VALUES {
            return Err(bad(format!("a header of more than {MAX_VALUES} values")));
        }
        let Header(header) = serde_json::from_slice(&header)
            .map_err(|error| bad(format!("the header is not a JSON object: {error}")))?;
        let data = size - 8 - length;
        let (mut entries, mut metadata) = (BTreeMap::new(), BTreeMap::new());
        for (tensor, value) in header {
            if tensor == METADATA {
                metadata = serde_json::from_value(value)
                    .map_err(|error| bad(format!("`{METADATA}` does not map names to texts: {error}")))?;
                continue;
            }
            let bad = |problem| ModelError::tensor(blob.name(), &tensor, problem);
            let entry = entry(&value, data).map_err(bad)?;
            if entries.insert(tensor.clone(), entry).is_some() {
                return Err(bad("stands twice in the header".to_owned()));
            }
        }
        check_ranges(blob.name(), &entries, data)?;
        Ok(Self { blob, start: 8 + length, entries, metadata })
    }

    /// The file, for messages.
    pub fn name(&self) -> &str {
        self.blob.name()
    }

    /// The texts beside the tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor, if there is one of that name.
    pub fn shape(&self, tensor: &str) -> Option<&[usize]> {
        self.entries.get(tensor).map(|entry| entry.shape.as_slice())
    }

    /// The number format of a tensor, if it is one of floating-point numbers.
    pub(crate) fn dtype(&self, tensor: &str) -> Option<Dtype> {
        Dtype::parse(&self.entries.get(tensor)?.dtype)
    }

    /// Reads a tensor, as f32 whatever it is on disk. It must have this shape, and every value must be finite.
    pub fn tensor(&self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let bad = |problem: String| ModelError::tensor(self.name(), tensor, problem);
        let entry = self.entries.get(tensor).ok_or_else(|| bad(format!("missing, expected shape {shape:?}")))?;
        if entry.shape != shape {
            return Err(bad(format!("expected shape {shape:?}, found {:?}", entry.shape)));
        }
        let values = self.values(tensor)?;
        match values.iter().position(|value| !value.is_finite()) {
            Some(i) => Err(bad(format!("value {i} is {}, expected finite numbers", values[i]))),
            None => Ok(values),
        }
    }

    /// Reads a tensor, as f32 whatever it is on disk.
    pub(crate) fn values(&self, tensor: &str) -> Result<Vec<f32>, ModelError> {
        let bad = |problem: String| ModelError::tensor(self.name(), tensor, problem);
        let entry = self.entries.get(tensor).ok_or_else(|| bad("missing".to_owned()))?;
        let dtype = Dtype::parse(&entry.dtype)
            .ok_or_else(|| bad(format!("expected numbers in F32, F16, BF16 or F64, found {}", entry.dtype)))?;
        let (start, length) = (self.start + entry.range.0, entry.range.1 - entry.range.0);
        match dtype {
            Dtype::F32 => self.blob.read_f32(start, length / 4),
            other => Ok(other.decode(&self.blob.read(start, length)?)),
        }
    }
}

/// Values in a JSON text, whose memory they take: at least as many as it says, and quick to count.
pub(crate) fn values(json: &[u8]) -> usize {
    let (mut count, mut text, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b',' | b'[' | b'{' if !text => count += 1,
            _ => {}
        }
    }
    count
}

/// The header's entries in order, those that stand twice among them.
struct Header(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Tensors lie one behind the other and fill the data: so no two share bytes, and nothing hides between them.
fn check_ranges(file: &str, entries: &BTreeMap<String, Entry>, data: u64) -> Result<(), ModelError> {
    let mut order: Vec<_> = entries.iter().map(|(name, entry)| (entry.range, name)).collect();
    order.sort_unstable();
    let mut at = 0;
    for ((start, end), name) in order {
        if start != at {
            let what = if start < at { "over another tensor" } else { "behind a hole" };
            let problem = format!("its bytes, from {start}, lie {what}: expected them from {at}");
            return Err(ModelError::tensor(file, name, problem));
        }
        at = end;
    }
    if at == data {
        return Ok(());
    }
    Err(ModelError::file(file, format!("not a safetensors file: tensors fill {at} of {data} bytes of data")))
}

/// Checks one entry of the header against the bytes of data that there are.
fn entry(value: &Value, data: u64) -> Result<Entry, String> {
    let dtype = value.get("dtype").and_then(Value::as_str).ok_or("no `dtype`")?.to_owned();
    let list = |name: &str| -> Result<Vec<u64>, String> {
        let items = value.get(name).and_then(Value::as_array).ok_or(format!("no list `{name}`"))?;
        items.iter().map(|item| item.as_u64().ok_or(format!("`{name}` holds {item}"))).collect()
    };
    let [start, end] = list("data_offsets")?[..] else { return Err("`data_offsets` are not two numbers".into()) };
    if start > end || end > data {
        return Err(format!("bytes {start} to {end} of {data} bytes of data"));
    }
    let shape = list("shape")?;
    if let Some((_, size)) = SIZES.iter().find(|(name, _)| *name == dtype) {
        let bytes = shape.iter().try_fold(*size, |size, &n| size.checked_mul(n));
        if bytes != Some(end - start) {
            return Err(format!("shape {shape:?} of {dtype} in {} bytes", end - start));
        }
    }
    let shape = shape.into_iter().map(|n| usize::try_from(n).map_err(|_| format!("dimension {n}")));
    Ok(Entry { dtype, shape: shape.collect::<Result<_, _>>()?, range: (start, end) })
}

/// A tensor to write.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// Its values, row-major.
    pub values: &'a [f32],
}

/// A tensor that is yet to be written.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: Dtype,
}

/// Writes a safetensors file: tensors in the order given, metadata sorted, the header padded with spaces to a multiple of
/// eight bytes. Equal content gives equal bytes.
pub fn write(tensors: &[Tensor<'_>], dtype: Dtype, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut bytes = header(tensors.iter().map(|tensor| (tensor.name, tensor.shape, dtype)), metadata);
    for tensor in tensors {
        dtype.encode(tensor.values, &mut bytes);
    }
    bytes
}

/// [`write`] for tensors that are too large to hold all at once: `values` is asked for each in order, and what it refuses ends it.
pub(crate) fn write_each<E>(
    tensors: &[Planned],
    metadata: &BTreeMap<String, String>,
    values: &mut dyn FnMut(&Planned) -> Result<Vec<f32>, E>,
    put: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    put(&header(tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice(), tensor.dtype)), metadata))?;
    for tensor in tensors {
        let mut bytes = Vec::new();
        tensor.dtype.encode(&values(tensor)?, &mut bytes);
        put(&bytes)?;
    }
    Ok(())
}

/// What stands before the data, the header's length first.
fn header<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a [usize], Dtype)>,
    metadata: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.into(), json!(metadata));
    }
    let mut start = 0;
    for (name, shape, dtype) in tensors {
        let end = start + dtype.size() * shape.iter().product::<usize>();
        let entry = json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [start, end]});
        header.insert(name.to_owned(), entry);
        start = end;
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn message(bytes: Vec<u8>) -> String {
        Reader::from_bytes("m.safetensors", bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let metadata = BTreeMap::from([("card".to_owned(), "{\"a\": 1}".to_owned())]);
        let values = [1.0, -2.5, 0.25, 3.0, 65504.0, -0.0];
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F64] {
            let tensors = [
                Tensor { name: "b", shape: &[2, 2], values: &values[..4] },
                Tensor { name: "a", shape: &[], values: &values[..1] },
            ];
            let reader = Reader::from_bytes("m", write(&tensors, dtype, &metadata)).unwrap();
            assert_eq!(reader.tensor("b", &[2, 2]).unwrap(), values[..4]);
            assert_eq!(reader.tensor("a", &[]).unwrap(), [1.0]);
            assert_eq!(reader.metadata(), &metadata);
            assert_eq!(reader.names().collect::<Vec<_>>(), ["a", "b"]);
        }
    }

    #[test]
    fn lying_headers_are_refused_with_the_tensor_named() {
        let entry = |shape: &str, offsets: &str| {
            file(&format!(r#"{{"w": {{"dtype": "F32", "shape": {shape}, "data_offsets": {offsets}}}}}"#), &[0; 16])
        };
        assert_eq!(message(entry("[5]", "[0, 16]")), "m.safetensors: tensor `w`: shape [5] of F32 in 16 bytes");
        assert!(message(entry("[4]", "[0, 17]")).contains("bytes 0 to 17 of 16 bytes of data"));
        assert!(message(entry("[4]", "[16, 0]")).contains("bytes 16 to 0"));
        assert!(message(entry("[4611686018427387904, 4]", "[0, 0]")).contains("in 0 bytes"));
        let two = |first: &str, second: &str| {
            let one = |name: &str, offsets: &str| {
                format!(r#""{name}": {{"dtype": "F32", "shape": [1], "data_offsets": {offsets}}}"#)
            };
            message(file(&format!("{{{}, {}}}", one("a", first), one("b", second)), &[0; 8]))
        };
        assert_eq!(
            two("[0, 4]", "[0, 4]"),
            "m.safetensors: tensor `b`: its bytes, from 0, lie over another tensor: expected them from 4"
        );
        assert!(two("[4, 8]", "[4, 8]").contains("tensor `a`: its bytes, from 4, lie behind a hole"));
        assert!(message(entry("[2]", "[0, 8]")).contains("tensors fill 8 of 16 bytes of data"));
        assert!(
            message(entry("[1152921504606846976]", "[0, 16]"))
                .contains("shape [1152921504606846976] of F32 in 16 bytes")
        );
        let twice = r#"{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#;
        assert!(message(file(twice, &[0; 4])).contains("tensor `w`: stands twice"));
        assert!(
            message(file(&format!("[{}0]", "0,".repeat(3 << 20)), &[]))
                .contains("a header of more than 2097152 values")
        );
        assert!(message(entry("[-1]", "[0, 16]")).contains("`shape` holds -1"));
        assert!(message(entry("[4]", "[0]")).contains("not two numbers"));
        assert!(message(u64::MAX.to_le_bytes().to_vec()).contains("it does not begin with the length of a header"));
        assert!(message(vec![1, 2]).contains("2 bytes long"));
        assert!(message(file("[]", &[])).contains("not a JSON object"));
    }

    #[test]
    fn tensors_are_read_only_as_expected() {
        let header = r#"{"i": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]},
            "n": {"dtype": "F32", "shape": [1], "data_offsets": [16, 20]}}"#;
        let mut data = [0; 20];
        data[16..].copy_from_slice(&f32::NAN.to_le_bytes());
        let reader = Reader::from_bytes("m", file(header, &data)).unwrap();
        let message = |tensor, shape: &[usize]| reader.tensor(tensor, shape).unwrap_err().to_string();
        assert_eq!(message("i", &[2]), "m: tensor `i`: expected numbers in F32, F16, BF16 or F64, found I64");
        assert_eq!(message("n", &[2]), "m: tensor `n`: expected shape [2], found [1]");
        assert_eq!(message("n", &[1]), "m: tensor `n`: value 0 is NaN, expected finite numbers");
        assert_eq!(message("x", &[3, 4]), "m: tensor `x`: missing, expected shape [3, 4]");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, header in "[\\[\\]{}:,\"a-z0-9_ -]{0,80}") {
            let _ = Reader::from_bytes("m", bytes.clone());
            let _ = Reader::from_bytes("m", file(&header, &bytes));
        }
    }
}
