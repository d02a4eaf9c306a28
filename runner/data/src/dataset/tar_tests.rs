use std::io::{self, Cursor, Read};

use super::*;

struct Bytes(Cursor<Vec<u8>>);

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Input for Bytes {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_position(self.0.position().saturating_add(bytes));
        Ok(())
    }
}

/// Name and content of every member, or the first error.
fn members(archive: Vec<u8>) -> Result<Vec<(String, Vec<u8>)>, String> {
    let length = archive.len() as u64;
    let mut members = Members::new(Box::new(Bytes(Cursor::new(archive))), "x.tar", 0, Some(length));
    let mut found = Vec::new();
    while let Some(member) = members.next().map_err(|error| error.to_string())? {
        let content = members.read(&member, 1 << 20).map_err(|error| error.to_string())?;
        found.push((member.name, content));
    }
    Ok(found)
}

/// A member with a header of our own making.
fn raw(name: &[u8], size: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name);
    header[124..124 + size.len()].copy_from_slice(size);
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend(content);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

fn end(mut archive: Vec<u8>) -> Vec<u8> {
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[test]
fn archives_of_another_program_are_read_with_their_long_names() {
    let long = format!("{}/{}.jpg", "folder".repeat(30), "name".repeat(40));
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut append = |name: &str, content: &[u8]| {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    };
    append("a.jpg", b"picture");
    append(&long, &[7; 1000]);
    append("empty.txt", b"");
    let found = members(builder.into_inner().unwrap()).unwrap();
    assert_eq!(found, [("a.jpg".into(), b"picture".to_vec()), (long, vec![7; 1000]), ("empty.txt".into(), vec![])]);
}

#[test]
fn pax_headers_give_names_and_sizes() {
    let record = b"17 path=b/\xC3\xA9.jpg\n10 size=3\n";
    let mut archive = raw(b"pax", format!("{:o}", record.len()).as_bytes(), b'x', record);
    archive.extend(raw(b"short", b"0", b'0', b"abc"));
    archive.extend(raw(b"folder/", b"0", b'5', b""));
    archive.extend(raw(b"after.cls", b"1", b'0', b"7"));
    let found = members(end(archive)).unwrap();
    assert_eq!(found, [("b/é.jpg".into(), b"abc".to_vec()), ("after.cls".into(), b"7".to_vec())]);
}

#[test]
fn hostile_archives_are_refused_in_words() {
    let member = |name: &[u8], size: &[u8]| end(raw(name, size, b'0', b"abc"));
    let binary = [&[0x80][..], &[0; 4], &[1, 0, 0, 0, 0, 0, 0]].concat();
    let mut damaged = member(b"a.jpg", b"3");
    damaged[3] ^= 1;
    let sparse = raw(b"pax", b"40", b'x', b"32 GNU.sparse.realsize=99999999\n");
    for (archive, part) in [
        (member(b"/etc/passwd", b"3"), "byte 0: member `/etc/passwd` has an absolute name"),
        (member(b"a/../../b.jpg", b"3"), "has `..` in its name"),
        (member(b"..\\b.jpg", b"3"), "has `..` in its name"),
        (member(b"C:\\b.jpg", b"3"), "has an absolute name"),
        (member(b"a.jpg", b"77777777777"), "claims 8589934591 bytes, but only 1536 are left: the archive is cut off"),
        (member(b"a.jpg", &binary), "claims"),
        (member(b"a.jpg", b"9x"), "whose size is no number"),
        (damaged, "its checksum is wrong"),
        (raw(b"a.jpg", b"3", b'0', b"abc"), "cut off: expected another header"),
        (end(raw(b"a.jpg", b"3", b'0', b"abc"))[..700].to_vec(), "cut off"),
        (end(raw(b"long", b"20000000", b'L', b"x")), "over the limit"),
        (end(raw(b"long", b"3", b'L', b"a/b")), "the archive ends behind a header"),
        (end(sparse), "sparse"),
        (end(raw(b"x", b"3", b'S', b"abc")), "sparse"),
        (end(raw(b"pax", b"5", b'x', b"99 a=")), "pax header"),
        (vec![1; 600], "checksum"),
        (Vec::new(), "cut off"),
    ] {
        let message = members(archive).unwrap_err();
        assert!(message.starts_with("x.tar, byte ") && message.contains(part), "{message}\nexpected: {part}");
    }
}

#[test]
fn any_damage_comes_back() {
    let mut archive = raw(b"long", b"12", b'L', b"a/b/c/d.jpg\0");
    archive.extend(raw(b"short", b"3", b'0', b"abc"));
    let archive = end(archive);
    for at in 0..archive.len().min(1600) {
        for with in [0x00, 0x80, 0xFF, 0x37] {
            let mut damaged = archive.clone();
            damaged[at] = with;
            drop(members(damaged));
        }
    }
}
