//! The bytes of a pickle: counted, bounded, and never believed before they are there.

use std::io::{BufReader, Read};

use crate::pickle::{Problem, value::Value};

/// The longest pickle read, in bytes. That of a training checkpoint of ten thousand tensors has five million.
pub(super) const MAX_PICKLE: u64 = 32 << 20;

/// Bytes of a file, counted.
pub(super) struct Input<R> {
    inner: R,
    /// Bytes read from the start.
    pub(super) position: u64,
    /// Bytes that may still be read for the pickle at hand.
    left: u64,
}

impl<R: Read> Input<BufReader<R>> {
    /// Of a file: most of a pickle is read byte by byte, and each would be a call of the system.
    pub(super) fn buffered(inner: R) -> Self {
        Self::new(BufReader::with_capacity(1 << 16, inner))
    }
}

impl<R: Read> Input<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, position: 0, left: MAX_PICKLE }
    }

    /// Starts with the next pickle of the file.
    pub(super) fn next(&mut self) {
        self.left = MAX_PICKLE;
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Problem> {
        let length = buffer.len() as u64;
        self.left = self.left.checked_sub(length).ok_or_else(too_long)?;
        self.inner.read_exact(buffer)?;
        self.position += length;
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Problem> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, Problem> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// So many bytes. What the file does not have takes no memory.
    pub(super) fn bytes(&mut self, length: u64) -> Result<Vec<u8>, Problem> {
        self.left = self.left.checked_sub(length).ok_or_else(too_long)?;
        let mut bytes = Vec::new();
        self.inner.by_ref().take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(Problem::Broken("the pickle ends early".into()));
        }
        self.position += length;
        Ok(bytes)
    }

    pub(super) fn text(&mut self, length: u64) -> Result<Value, Problem> {
        let text = String::from_utf8(self.bytes(length)?);
        Ok(text.map_or(Value::Inert, |text| Value::Text(text.into())))
    }

    pub(super) fn line(&mut self) -> Result<String, Problem> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                _ if line.len() > 4096 => return Err(Problem::Broken("a line of more than 4096 bytes".into())),
                byte => line.push(byte),
            }
        }
        String::from_utf8(line).map_err(|_| Problem::Broken("a name that is not UTF-8".into()))
    }
}

fn too_long() -> Problem {
    Problem::Broken(format!("a pickle of more than {} MiB, which tensors' names do not take", MAX_PICKLE >> 20))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Counts how often it is read.
    struct Counted(usize);

    impl Read for Counted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            buffer.fill(b'N');
            Ok(buffer.len())
        }
    }

    #[test]
    fn bytes_of_a_file_are_not_read_one_by_one() {
        let mut file = Counted(0);
        let mut input = Input::buffered(&mut file);
        for _ in 0..1 << 20 {
            assert!(input.byte().is_ok_and(|byte| byte == b'N'));
        }
        assert_eq!(input.position, 1 << 20);
        assert_eq!(file.0, 16);
    }
}
