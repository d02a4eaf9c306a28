//! The bytes of partials and checkpoints: little-endian, exact for floats, equal for equal values.

use runner_contract::StageError;

/// Writes values one behind the other.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Starts with a format version.
    pub(crate) fn new(version: u8) -> Self {
        Self(vec![version])
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.0.extend(value);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads them back in the same order.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Checks the version. `what` is named in errors: `a checkpoint`.
    pub(crate) fn new(bytes: &'a [u8], version: u8, what: &'static str) -> Result<Self, StageError> {
        match bytes.split_first() {
            Some((&found, rest)) if found == version => Ok(Self { rest, what }),
            Some((found, _)) => Err(StageError::new(format!("{what} has format {found}, expected {version}"))),
            None => Err(StageError::new(format!("{what} is empty"))),
        }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], StageError> {
        let (head, rest) =
            self.rest.split_at_checked(n).ok_or_else(|| StageError::new(format!("{} is cut off", self.what)))?;
        self.rest = rest;
        Ok(head)
    }

    fn word(&mut self) -> Result<[u8; 8], StageError> {
        let mut word = [0; 8];
        word.copy_from_slice(self.take(8)?);
        Ok(word)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, StageError> {
        self.word().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, StageError> {
        self.word().map(i64::from_le_bytes)
    }

    pub(crate) fn f64(&mut self) -> Result<f64, StageError> {
        self.word().map(f64::from_le_bytes)
    }

    /// How many items follow. Each takes at least one byte, so that a damaged count cannot ask for all memory.
    pub(crate) fn count(&mut self) -> Result<usize, StageError> {
        let count = self.u64()?;
        usize::try_from(count).ok().filter(|&count| count <= self.rest.len()).ok_or_else(|| {
            StageError::new(format!("{} is damaged: {count} items in {} bytes", self.what, self.rest.len()))
        })
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], StageError> {
        let n = self.count()?;
        self.take(n)
    }

    pub(crate) fn text(&mut self) -> Result<String, StageError> {
        let bytes = self.bytes()?.to_vec();
        String::from_utf8(bytes).map_err(|_| StageError::new(format!("{} is damaged: text is not UTF-8", self.what)))
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), StageError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(StageError::new(format!("{} is damaged: {} bytes too many", self.what, self.rest.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_damage_is_an_error() {
        let mut writer = Writer::new(1);
        writer.u64(7);
        writer.i64(-7);
        writer.f64(0.1);
        writer.text("é");
        let bytes = writer.finish();
        let read = |bytes: &[u8]| -> Result<_, StageError> {
            let mut reader = Reader::new(bytes, 1, "a partial")?;
            let values = (reader.u64()?, reader.i64()?, reader.f64()?, reader.text()?);
            reader.finish()?;
            Ok(values)
        };
        assert_eq!(read(&bytes).unwrap(), (7, -7, 0.1, "é".to_owned()));
        for n in 0..bytes.len() {
            assert!(read(&bytes[..n]).is_err(), "{n} bytes");
        }
        assert!(read(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
}
