//! Rows as files for other programs: Parquet, CSV, JSON lines, and a picture of the pictures.

mod cells;
mod grid;
mod parquet;

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use runner_contract::{Batch, ID};

use crate::DataError;

/// Writes rows to a file, chunk by chunk; the file's ending says how. The file appears when it is whole.
pub struct Writer {
    path: PathBuf,
    /// Where it is written until then.
    part: PathBuf,
    format: Format,
}

enum Format {
    Parquet(Box<parquet::Parquet>),
    Csv(Box<csv::Writer<File>>, Option<Vec<String>>),
    Lines(BufWriter<File>),
    Grid(grid::Grid, File),
}

impl Writer {
    /// A writer for a file that ends in `.parquet`, `.csv`, `.jsonl` or `.png`.
    pub fn create(path: &Path) -> Result<Self, DataError> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        if !["parquet", "csv", "jsonl", "png"].contains(&ending.as_str()) {
            let path = path.display();
            return Err(DataError::Invalid(format!(
                "{path}: expected a name that ends in .parquet, .csv, .jsonl or .png"
            )));
        }
        let part = path.with_extension(format!("{ending}.part"));
        let file = File::create(&part).map_err(DataError::io("create", &part))?;
        let format = match ending.as_str() {
            "parquet" => Format::Parquet(Box::new(parquet::Parquet::new(file))),
            "csv" => Format::Csv(Box::new(csv::Writer::from_writer(file)), None),
            "jsonl" => Format::Lines(BufWriter::new(file)),
            _ => Format::Grid(grid::Grid::default(), file),
        };
        Ok(Self { path: path.to_owned(), part, format })
    }

    /// Adds rows: `id` and every column that the batch has. All chunks have the same columns.
    pub fn push(&mut self, rows: &Batch) -> Result<(), DataError> {
        match &mut self.format {
            Format::Parquet(writer) => writer.push(rows).map_err(|error| self.wrong(&error)),
            Format::Csv(writer, columns) => {
                if columns.is_none() {
                    let names = cells::names(rows);
                    writer
                        .write_record(std::iter::once(ID).chain(names.iter().map(String::as_str)))
                        .map_err(wrong(&self.path))?;
                    *columns = Some(names);
                }
                for row in cells::rows(rows).map_err(wrong(&self.path))? {
                    writer.write_record(row.iter().map(|(_, cell)| cell.plain())).map_err(wrong(&self.path))?;
                }
                Ok(())
            }
            Format::Lines(writer) => {
                for row in cells::rows(rows).map_err(wrong(&self.path))? {
                    let fields: Vec<_> =
                        row.iter().map(|(name, cell)| format!("{}:{}", cells::quoted(name), cell.json())).collect();
                    writeln!(writer, "{{{}}}", fields.join(",")).map_err(DataError::io("write", &self.part))?;
                }
                Ok(())
            }
            Format::Grid(grid, _) => grid.push(rows),
        }
    }

    /// Ends the file. Says how many rows it leaves out, which a picture does.
    pub fn finish(mut self) -> Result<u64, DataError> {
        let mut left_out = 0;
        match &mut self.format {
            Format::Parquet(writer) => writer.finish().map_err(|error| self.wrong(&error))?,
            Format::Csv(writer, columns) => {
                if columns.is_none() {
                    writer.write_record([ID]).map_err(wrong(&self.path))?;
                }
                writer.flush().map_err(DataError::io("write", &self.part))?;
            }
            Format::Lines(writer) => writer.flush().map_err(DataError::io("write", &self.part))?,
            Format::Grid(grid, file) => {
                left_out = grid.left_out();
                let picture = grid.picture()?;
                file.write_all(&picture).map_err(DataError::io("write", &self.part))?;
            }
        }
        fs::rename(&self.part, &self.path).map_err(DataError::io("write", &self.path))?;
        Ok(left_out)
    }

    fn wrong(&self, error: &dyn std::fmt::Display) -> DataError {
        wrong(&self.path)(error)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After `finish` there is none any more.
        let _ = fs::remove_file(&self.part);
    }
}

fn wrong<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> DataError {
    move |error| DataError::Invalid(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
