//! Content digests and derived cache keys, both BLAKE3.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A BLAKE3 digest: of content (an artifact) or of a derivation (a cache key). Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The text is not a digest.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a digest: expected 64 hexadecimal digits")]
pub struct InvalidDigest(String);

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        blake3::Hash::from_hex(text).map(Self::from).map_err(|_| InvalidDigest(text.chars().take(80).collect()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Builds a cache key from named parts. Every part is framed by its length, so that no two lists of parts collide.
pub struct KeyHasher(blake3::Hasher);

impl KeyHasher {
    /// Starts a key of the given domain, for instance `"column-group/1"`.
    pub fn new(domain: &str) -> Self {
        Self(blake3::Hasher::new()).part("domain", domain.as_bytes())
    }

    /// Adds a named part.
    #[must_use]
    pub fn part(mut self, name: &str, value: &[u8]) -> Self {
        for bytes in [name.as_bytes(), value] {
            self.0.update(&(bytes.len() as u64).to_le_bytes());
            self.0.update(bytes);
        }
        self
    }

    /// Adds a digest as a named part.
    #[must_use]
    pub fn digest(self, name: &str, value: &Digest) -> Self {
        self.part(name, value.as_bytes())
    }

    /// Adds a JSON value in canonical form: object keys sorted, no white space.
    #[must_use]
    pub fn json(self, name: &str, value: &serde_json::Value) -> Self {
        let mut text = String::new();
        canonical(value, &mut text);
        self.part(name, text.as_bytes())
    }

    /// The key.
    pub fn finish(self) -> Digest {
        self.0.finalize().into()
    }
}

fn canonical(value: &serde_json::Value, out: &mut String) {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (i, (name, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_framed() {
        let ab = KeyHasher::new("t").part("a", b"bc").finish();
        let a = KeyHasher::new("t").part("ab", b"c").finish();
        assert_ne!(ab, a);
    }

    #[test]
    fn settings_in_another_order_give_the_same_key() {
        let one = KeyHasher::new("t").json("s", &serde_json::json!({"b": [1, {"y": 2, "x": 3}], "a": null})).finish();
        let two = KeyHasher::new("t").json("s", &serde_json::json!({"a": null, "b": [1, {"x": 3, "y": 2}]})).finish();
        assert_eq!(one, two);
    }

    #[test]
    fn text_form_round_trips() {
        let digest = Digest::of(b"runner");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!("xyz".parse::<Digest>().is_err());
    }
}
