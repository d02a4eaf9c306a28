//! The JSON Schema for editors is that of the kinds there are.

use std::{fs, path::Path};

use runner_stages::{Services, registry};

#[test]
fn the_schema_for_editors_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/pipeline.schema.json");
    let found = format!("{:#}\n", runner_spec::schema(&registry(&Services::new("."))));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
    assert!(committed == found, "write it anew: runner schema > schemas/pipeline.schema.json");
}
