//! The development kit's `meta.mat`: of MATLAB's level 5 format, as much as it takes to read ids and synsets.
//!
//! Format: "MAT-File Format", MathWorks; an element is a tag (type, bytes) and its data, padded to 8 bytes.

use std::io::Read;

use flate2::read::ZlibDecoder;

/// Most bytes that a compressed variable may unpack to: the file itself has 70 KB.
const MOST_BYTES: u64 = 64 << 20;
/// How deep cells and structures may be nested.
const MOST_DEPTH: usize = 8;
const COMPRESSED: u32 = 15;
const MATRIX: u32 = 14;
const STRUCT: u8 = 2;

/// Id and synset of each entry of the variable `synsets`.
pub(super) fn synsets(file: &[u8]) -> Result<Vec<(usize, String)>, String> {
    let body = file.get(128..).ok_or("not a MATLAB file: shorter than its header")?;
    if file.get(126..128) != Some(b"IM") {
        return Err("not a MATLAB 5 file of this byte order".to_owned());
    }
    let mut elements = Elements(body);
    while let Some((kind, data)) = elements.next()? {
        let unpacked;
        let (kind, data) = match kind {
            COMPRESSED => {
                let mut bytes = Vec::new();
                let read = ZlibDecoder::new(data).take(MOST_BYTES).read_to_end(&mut bytes);
                read.map_err(|error| format!("a compressed variable cannot be unpacked: {error}"))?;
                unpacked = bytes;
                Elements(&unpacked).next()?.ok_or("an empty variable")?
            }
            _ => (kind, data),
        };
        if kind == MATRIX
            && let Some(found) = structure(data)?
        {
            return Ok(found);
        }
    }
    Err("no structures with the fields ILSVRC2012_ID and WNID".to_owned())
}

/// The entries of an array of structures that has the fields.
fn structure(data: &[u8]) -> Result<Option<Vec<(usize, String)>>, String> {
    let mut parts = Elements(data);
    let (_, flags) = parts.next()?.ok_or("a variable without flags")?;
    if flags.first() != Some(&STRUCT) {
        return Ok(None);
    }
    let (_, _sizes) = parts.next()?.ok_or("a variable without sizes")?;
    let (_, _name) = parts.next()?.ok_or("a variable without a name")?;
    let (_, width) = parts.next()?.ok_or("a structure without fields")?;
    let width = width.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
    let (_, names) = parts.next()?.ok_or("a structure without fields")?;
    if width == 0 || width > 256 {
        return Err(format!("names of fields of {width} bytes"));
    }
    let name = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let fields: Vec<String> = names.chunks_exact(width).map(name).collect();
    let place = |wanted: &str| fields.iter().position(|field| field == wanted);
    let (Some(id), Some(synset)) = (place("ILSVRC2012_ID"), place("WNID")) else { return Ok(None) };
    let mut found = Vec::new();
    let mut entry: (Option<usize>, Option<String>) = (None, None);
    let mut field = 0;
    while let Some((_, value)) = parts.next()? {
        if field == id {
            entry.0 = values(value, 0)?.first().copied().map(|value| value as usize);
        } else if field == synset {
            entry.1 = Some(values(value, 0)?.iter().filter_map(|&code| char::from_u32(code as u32)).collect());
        }
        field += 1;
        if field == fields.len() {
            if let (Some(id), Some(synset)) = std::mem::take(&mut entry) {
                found.push((id, synset));
            }
            field = 0;
        }
    }
    Ok(Some(found))
}

/// The values of a matrix of numbers or characters; of a cell, those of its first element.
fn values(matrix: &[u8], depth: usize) -> Result<Vec<f64>, String> {
    if depth > MOST_DEPTH {
        return Err("nested too deep".to_owned());
    }
    let mut parts = Elements(matrix);
    for what in ["flags", "sizes", "name"] {
        parts.next()?.ok_or_else(|| format!("a matrix without {what}"))?;
    }
    let Some((kind, data)) = parts.next()? else { return Ok(Vec::new()) };
    fn read<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
    }
    Ok(match kind {
        1 => read(data, |b: [u8; 1]| f64::from(i8::from_le_bytes(b))),
        2 | 16 => read(data, |b: [u8; 1]| f64::from(b[0])),
        3 => read(data, |b| f64::from(i16::from_le_bytes(b))),
        4 | 17 => read(data, |b| f64::from(u16::from_le_bytes(b))),
        5 => read(data, |b| f64::from(i32::from_le_bytes(b))),
        6 | 18 => read(data, |b| f64::from(u32::from_le_bytes(b))),
        7 => read(data, |b| f64::from(f32::from_le_bytes(b))),
        9 => read(data, f64::from_le_bytes),
        MATRIX => values(data, depth + 1)?,
        other => return Err(format!("values of type {other}")),
    })
}

/// Elements one after the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn next(&mut self) -> Result<Option<(u32, &'a [u8])>, String> {
        let Some((tag, rest)) = self.0.split_first_chunk::<8>() else { return Ok(None) };
        let word = |at: usize| u32::from_le_bytes([tag[at], tag[at + 1], tag[at + 2], tag[at + 3]]);
        let cut = || "cut off".to_owned();
        // Up to four bytes of data stand in the tag itself.
        if word(0) >> 16 != 0 {
            let (kind, length) = (word(0) & 0xFFFF, (word(0) >> 16) as usize);
            let data = self.0.get(4..4 + length).filter(|_| length <= 4).ok_or_else(cut)?;
            self.0 = rest;
            return Ok(Some((kind, data)));
        }
        let (kind, length) = (word(0), word(4) as usize);
        let data = rest.get(..length).ok_or_else(cut)?;
        let padded = if kind == COMPRESSED { length } else { length.next_multiple_of(8) };
        self.0 = rest.get(padded..).unwrap_or_default();
        Ok(Some((kind, data)))
    }
}

#[cfg(test)]
mod tests {
    use super::synsets;

    /// Written by `scipy.io.savemat`, as `reference/imagenet.py` says.
    const PACKED: &[u8] = include_bytes!("../../../tests/golden/meta.mat");

    #[test]
    fn ids_and_synsets_are_read_and_damage_is_an_error() {
        let found = synsets(PACKED).unwrap();
        assert_eq!(found.len(), 5);
        assert_eq!(found[0], (1, "n02119789".to_owned()));
        assert_eq!(found[4], (1001, "n00001740".to_owned()));
        for end in 0..PACKED.len() {
            assert!(synsets(&PACKED[..end]).is_err(), "cut at {end}");
        }
        for at in 0..PACKED.len() {
            let mut damaged = PACKED.to_vec();
            damaged[at] ^= 0x55;
            // It may still say something, but it must come back.
            drop(synsets(&damaged));
        }
    }
}
