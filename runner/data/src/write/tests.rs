use runner_contract::{ColumnData, Digest, ImageForm, ImagesBuilder};

use super::*;
use crate::decode;

fn rows(first: usize, n: usize) -> Batch {
    let mut images = ImagesBuilder::new(ImageForm::Pixels);
    for i in first..first + n {
        let grey = [u8::try_from(i % 250).unwrap(); 6];
        images.push(runner_contract::ImageRef::Pixels { height: 2, width: 3, channels: 1, data: &grey }).unwrap();
    }
    let each = |i: usize| i as f32 + 0.1;
    Batch::new((first..first + n).map(|i| format!("d/{i}")).collect())
        .with("image", ColumnData::Images(images))
        .unwrap()
        .with("text", ColumnData::Text((0..n).map(|i| format!("a \"quoted\", {i}\nline")).collect()))
        .unwrap()
        .with("score", ColumnData::Numbers((0..n).map(|i| if i == 1 { f64::NAN } else { 0.5 }).collect()))
        .unwrap()
        .with("embedding", ColumnData::Embeddings((0..2 * n).map(each).collect(), 2, Digest::of(b"m")))
        .unwrap()
        .with("names", ColumnData::Texts((0..n).map(|i| vec!["x".to_owned(); i % 3]).collect()))
        .unwrap()
}

fn written(name: &str, batches: &[Batch]) -> (tempfile::TempDir, PathBuf, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let mut writer = Writer::create(&path).unwrap();
    for batch in batches {
        writer.push(batch).unwrap();
    }
    let left_out = writer.finish().unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the file");
    (folder, path, left_out)
}

#[test]
fn csv_has_a_heading_and_quotes_what_needs_it() {
    let (_folder, path, _) = written("rows.csv", &[rows(0, 2), rows(2, 1)]);
    let mut reader = csv::Reader::from_path(&path).unwrap();
    assert_eq!(reader.headers().unwrap(), vec!["id", "image", "text", "score", "embedding", "names"]);
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 3);
    let size = "{\"height\":2,\"width\":3,\"channels\":1}";
    assert_eq!(records[1], vec!["d/1", size, "a \"quoted\", 1\nline", "", "[2.1,3.1]", "[\"x\"]"]);
}

#[test]
fn every_json_line_is_an_object() {
    let (_folder, path, _) = written("rows.jsonl", &[rows(0, 2), rows(2, 1)]);
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["id"], "d/2");
    assert_eq!(lines[1]["score"], serde_json::Value::Null);
    assert_eq!(lines[0]["embedding"], serde_json::json!([0.1, 1.1]));
}

#[test]
fn parquet_has_all_rows_and_pictures_as_files() {
    let (_folder, path, _) = written("rows.parquet", &[rows(0, 2), rows(2, 1)]);
    let reader = ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
    let batches: Vec<_> =
        reader.unwrap().build().unwrap().map(|it| Batch::from_records(it.unwrap()).unwrap()).collect();
    let all = Batch::concat(&batches).unwrap();
    assert_eq!(all.len(), 3);
    let runner_contract::ImageRef::Encoded { bytes, path } = all.images("image").unwrap()[2] else { panic!() };
    assert_eq!(path, "d/2.png");
    assert_eq!(decode(bytes, path, &crate::Limits::default()).unwrap().data, [2; 6]);
    assert_eq!(all.vectors("embedding").unwrap().0.len(), 6);
}

#[test]
fn a_picture_shows_the_first_pictures() {
    let (_folder, path, left_out) = written("rows.png", &[rows(0, 300), rows(300, 300)]);
    assert_eq!(left_out, 200);
    let picture = decode(&fs::read(path).unwrap(), "rows.png", &crate::Limits::default()).unwrap();
    // Tiles of 3 × 2 pixels, enlarged 16 times, 20 by 20, and 2 pixels between.
    assert_eq!((picture.width, picture.height, picture.channels), (20 * 50 + 2, 20 * 34 + 2, 3));
    assert_eq!(picture.data[(2 * picture.width + 52) * 3], 1, "the second tile");
}

#[test]
fn no_rows_make_a_file_all_the_same() {
    let (_folder, path, _) = written("rows.csv", &[]);
    assert_eq!(fs::read_to_string(path).unwrap(), "id\n");
    let (_folder, path, _) = written("rows.parquet", &[]);
    assert!(fs::metadata(path).unwrap().len() > 0);
}

#[test]
fn other_endings_and_unfinished_files_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let refused = Writer::create(&folder.path().join("rows.xlsx")).err().unwrap().to_string();
    assert!(refused.ends_with("rows.xlsx: expected a name that ends in .parquet, .csv, .jsonl or .png"), "{refused}");
    let mut writer = Writer::create(&folder.path().join("rows.csv")).unwrap();
    writer.push(&rows(0, 1)).unwrap();
    drop(writer);
    let mut writer = Writer::create(&folder.path().join("rows.png")).unwrap();
    assert!(writer.push(&Batch::new(vec!["a".into()])).is_err());
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
