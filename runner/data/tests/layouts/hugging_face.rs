//! Parquet files as Hugging Face's `datasets` writes them.

use runner_data::Catalog;

use crate::{all, error, put, rows};

/// A Parquet file as Hugging Face's `datasets` writes it: 5 rows, in row groups of 2.
pub(crate) fn parquet() -> Vec<u8> {
    use std::{collections::HashMap, sync::Arc};

    use arrow_array::{
        ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray,
        builder::{ListBuilder, StringBuilder},
    };
    use arrow_schema::{DataType, Field, Fields, Schema};
    use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};

    let features = r#"{"info": {"features": {"img": {"_type": "Image"}, "fine_label": {"names": ["apple", "bear", "cup"], "_type": "ClassLabel"}}}}"#;
    let parts =
        Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)]);
    let bytes: ArrayRef =
        Arc::new(BinaryArray::from_opt_vec(vec![Some(b"p0"), Some(b"p1"), None, Some(b"p3"), Some(b"p4")]));
    let paths: ArrayRef = Arc::new(StringArray::from(vec![Some("0.png"), None, None, Some("3.png"), Some("4.png")]));
    let images: ArrayRef = Arc::new(StructArray::new(parts, vec![bytes, paths], None));
    let mut captions = ListBuilder::new(StringBuilder::new());
    for row in 0..5 {
        captions.append_value([Some(format!("one {row}")), Some(format!("two {row}"))]);
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("img", images),
        ("fine_label", Arc::new(Int64Array::from(vec![2, 0, 1, 1, 0]))),
        ("captions", Arc::new(captions.finish())),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Schema::new(fields).with_metadata(HashMap::from([("huggingface".to_owned(), features.to_owned())]));
    let rows = RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(2)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn hugging_faces_parquet_is_read_with_names_and_captions() {
    let root = tempfile::tempdir().unwrap();
    let file = parquet();
    for name in
        ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"]
    {
        put(root.path(), &format!("hf/{name}"), &file);
    }
    let catalog = Catalog::new(root.path());
    let train = catalog.open("hf:train").unwrap();
    assert_eq!(train.classes().unwrap(), ["apple", "bear", "cup"]);
    assert_eq!((train.schema().names().as_str(), train.len()), ("id, image, label, captions", 10));
    let found = rows(train.as_ref());
    let short: Vec<_> = found.iter().map(|(_, label, bytes)| (*label, std::str::from_utf8(bytes).unwrap())).collect();
    assert_eq!(short[..5], [(2, "p0"), (0, "p1"), (1, ""), (1, "p3"), (0, "p4")]);
    assert_eq!(short[..5], short[5..]);
    let ids: std::collections::HashSet<_> = found.iter().map(|(id, ..)| id).collect();
    assert_eq!(ids.len(), 10);
    assert_eq!(all(train.as_ref(), &["captions"]).texts("captions").unwrap()[9], ["one 4", "two 4"]);
    let limited = train.shards(Some(8)).unwrap();
    assert_eq!(limited.iter().map(|shard| shard.rows).collect::<Vec<_>>(), [5, 3]);
    let cut: usize = train.read(1, Some(8), &["label".to_owned()]).unwrap().map(|batch| batch.unwrap().len()).sum();
    assert_eq!(cut, 3);
    assert!(error(root.path(), "hf").contains("two splits: write hf:train or hf:test"), "{}", error(root.path(), "hf"));

    put(root.path(), "cut.parquet", &file[..file.len() - 9]);
    put(root.path(), "text.parquet", b"PAR1 this is no parquet file PAR1");
    for name in ["cut.parquet", "text.parquet"] {
        let message = error(root.path(), name);
        assert!(message.contains(name) && message.contains("not a Parquet file that can be read"), "{message}");
    }
}
