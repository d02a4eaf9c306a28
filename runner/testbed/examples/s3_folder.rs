//! An S3 server that holds the files of a folder: prints what to put into the environment, and for every line that it reads
//! how often each object was asked for since the last, and for how many bytes. It ends with its input; nothing is kept.
//!
//!     cargo run --release -p runner-testbed --example s3_folder -- DIR

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Write, stdin, stdout},
    path::Path,
};

use runner_testbed::S3;

fn load(s3: &S3, folder: &Path, prefix: &str) -> io::Result<()> {
    for child in fs::read_dir(folder)? {
        let child = child?;
        let key = format!("{prefix}{}", child.file_name().to_string_lossy());
        if child.path().is_dir() {
            load(s3, &child.path(), &format!("{key}/"))?;
        } else {
            s3.set_object(&key, fs::read(child.path())?);
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let folder = env::args().nth(1).ok_or_else(|| io::Error::other("name a folder"))?;
    let s3 = S3::start();
    load(&s3, Path::new(&folder), "data/")?;
    let mut out = stdout();
    for (name, value) in s3.environment() {
        writeln!(out, "export {name}={value}")?;
    }
    writeln!(out, "export DATA=s3://{}/data", s3.bucket())?;
    out.flush()?;
    let mut line = String::new();
    while stdin().read_line(&mut line)? > 0 {
        let mut counts: BTreeMap<String, (usize, u64)> = BTreeMap::new();
        for request in s3.faults().take_seen() {
            let (count, bytes) = counts.entry(format!("{} {}", request.method, request.key)).or_default();
            *count += 1;
            *bytes += request.range.unwrap_or(0);
        }
        for (request, (count, bytes)) in counts {
            writeln!(out, "{count:6} {bytes:12} {request}")?;
        }
        writeln!(out, "-")?;
        out.flush()?;
        line.clear();
    }
    Ok(())
}
