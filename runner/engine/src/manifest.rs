//! Manifests: small JSON artifacts that say what a stage left behind and where.

use std::collections::BTreeMap;

use runner_contract::{Digest, Schema};
use runner_store::BadRow;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Raised when manifests are written in another way.
pub(crate) const VERSION: u32 = 1;

/// The rows of a streaming stage: shards, and the files of the columns that the stage added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dataset {
    pub(crate) version: u32,
    /// By output port.
    pub(crate) ports: BTreeMap<String, DatasetPort>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DatasetPort {
    /// All columns, those passed through from earlier stages included.
    pub(crate) schema: Schema,
    pub(crate) shards: Vec<Shard>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shard {
    pub(crate) rows: u64,
    /// Rows that this stage could not use.
    pub(crate) bad: u64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) bad_rows: Vec<BadRow>,
    pub(crate) groups: Vec<Group>,
}

/// Columns that were made together: a Parquet file with `id` and these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) columns: Vec<String>,
    pub(crate) digest: Digest,
}

/// What a fold or a job made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) version: u32,
    /// Rows that a fold saw.
    pub(crate) n: Option<u64>,
    /// Rows that were unusable, here or on the way here.
    pub(crate) n_bad: Option<u64>,
    pub(crate) metrics: BTreeMap<String, Number>,
    /// By output port.
    pub(crate) rows: BTreeMap<String, RowsFile>,
    /// By output port.
    pub(crate) models: BTreeMap<String, Blob>,
    pub(crate) files: Vec<NamedBlob>,
}

impl Outcome {
    /// The artifacts that it names.
    pub(crate) fn artifacts(&self) -> Vec<Digest> {
        let named = self.rows.values().map(|rows| rows.digest);
        let named = named.chain(self.models.values().map(|model| model.digest));
        named.chain(self.files.iter().map(|file| file.digest)).collect()
    }
}

/// A Parquet file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RowsFile {
    pub(crate) rows: u64,
    pub(crate) schema: Schema,
    pub(crate) digest: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamedBlob {
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

/// A number that survives JSON: what JSON has no number for is a text (`NaN`, `inf`, `-inf`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number(pub(crate) f64);

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() { serializer.serialize_f64(self.0) } else { serializer.collect_str(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
        number.map(Self).ok_or_else(|| serde::de::Error::custom("expected a number"))
    }
}

/// A shard's part of a fold, with the count of the rows behind it: a header line in JSON, then the fold's own bytes.
pub(crate) struct Partial {
    pub(crate) header: PartialHeader,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartialHeader {
    pub(crate) version: u32,
    /// Rows that the fold saw.
    pub(crate) n: u64,
    /// Rows found unusable on the way here, by the key of who could not use them.
    pub(crate) bad: BTreeMap<Digest, u64>,
}

impl Partial {
    pub(crate) fn write(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut out = serde_json::to_vec(&self.header)?;
        out.push(b'\n');
        out.extend_from_slice(&self.bytes);
        Ok(out)
    }

    pub(crate) fn read(file: &[u8]) -> Result<Self, String> {
        let end = file.iter().position(|&byte| byte == b'\n').ok_or("it has no header")?;
        let header: PartialHeader = serde_json::from_slice(&file[..end]).map_err(|error| error.to_string())?;
        Ok(Self { header, bytes: file[end + 1..].to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives() {
        for value in [0.1, -0.0, 1.0 / 3.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324, 0.9732999999999999] {
            let text = serde_json::to_string(&Number(value)).unwrap();
            assert_eq!(serde_json::from_str::<Number>(&text).unwrap(), Number(value), "{text}");
        }
    }

    #[test]
    fn a_partial_may_hold_any_bytes() {
        let header = PartialHeader { version: 1, n: 3, bad: BTreeMap::from([(Digest::of(b"a"), 1)]) };
        let file = Partial { header: header.clone(), bytes: b"\n\0x\n".to_vec() }.write().unwrap();
        let read = Partial::read(&file).unwrap();
        assert_eq!((read.header, read.bytes), (header, b"\n\0x\n".to_vec()));
        assert!(Partial::read(b"").is_err());
        assert!(Partial::read(b"{}\n").is_err());
    }
}
