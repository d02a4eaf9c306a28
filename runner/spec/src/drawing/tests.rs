use runner_contract::{Bound, Digest, ModelInfo};

use super::*;
use crate::StageDef;

fn stage(name: &str, kind: &str, inputs: &[(&str, InputRef)], needs: &[usize]) -> StageDef {
    StageDef {
        name: name.into(),
        base: name.into(),
        coordinates: Vec::new(),
        kind: kind.into(),
        bound: Bound {
            settings: serde_json::Value::Null,
            consumes: BTreeMap::new(),
            outputs: BTreeMap::new(),
            hints: BTreeMap::new(),
        },
        inputs: inputs.iter().map(|(port, input)| ((*port).to_owned(), input.clone())).collect(),
        received: BTreeMap::new(),
        outputs: BTreeMap::new(),
        needs: needs.to_vec(),
        keep: false,
        cache: true,
        device: None,
        retries: 0,
        timeout: None,
        max_bad: crate::MaxBad::default(),
        secrets: Vec::new(),
    }
}

fn sample() -> Pipeline {
    let of = |stage, port: &str| InputRef::Stage { stage, port: port.into() };
    let info =
        ModelInfo { identity: Digest::of(b"m"), family: "clip".into(), encodes: Vec::new(), dim: None, classes: None };
    let model = || InputRef::Model { reference: "builtin:\"mini\" <clip>".into(), info: info.clone() };
    Pipeline {
        name: "a & b".into(),
        description: None,
        params: BTreeMap::new(),
        stages: vec![
            stage("data", "dataset", &[], &[]),
            stage("prompts", "prompts", &[("classes", of(0, "classes"))], &[]),
            stage("image", "encode", &[("model", model()), ("rows", of(0, "rows"))], &[]),
            stage("text", "encode", &[("model", model()), ("rows", of(1, "rows"))], &[2]),
            stage("scored", "score", &[("queries", of(2, "rows")), ("candidates", of(3, "rows"))], &[]),
        ],
        skipped: Vec::new(),
        gates: Vec::new(),
        text: String::new(),
        includes: BTreeMap::new(),
        environment: BTreeMap::new(),
    }
}

#[test]
fn mermaid_shows_stages_models_and_ports() {
    let expected = "\
flowchart TD
  n0[\"data<br/><small>dataset</small>\"]
  n1[\"prompts\"]
  n2[\"image<br/><small>encode</small>\"]
  n3[\"text<br/><small>encode</small>\"]
  n4[\"scored<br/><small>score</small>\"]
  n5([\"builtin:&quot;mini&quot; &lt;clip&gt;\"])
  n0 -->|\"classes\"| n1
  n5 --> n2
  n0 --> n2
  n5 --> n3
  n1 --> n3
  n2 -.-> n3
  n3 -->|\"candidates\"| n4
  n2 -->|\"queries\"| n4
";
    assert_eq!(mermaid(&sample()), expected);
}

#[test]
fn dot_quotes_what_is_quoted() {
    let text = dot(&sample());
    assert!(text.starts_with("digraph \"a & b\" {\n"), "{text}");
    assert!(text.contains("n0 [label=\"data\\ndataset\"];"), "{text}");
    assert!(text.contains("n5 [label=\"builtin:\\\"mini\\\" <clip>\", shape=ellipse];"), "{text}");
    assert!(text.contains("n2 -> n3 [style=dashed];"), "{text}");
    assert!(text.contains("n3 -> n4 [label=\"candidates\"];"), "{text}");
}

#[test]
fn svg_has_a_box_for_everything_and_escapes_texts() {
    let text = svg(&sample());
    assert_eq!(text.matches("<rect ").count(), 6);
    assert_eq!(text.matches("<path class=\"edge").count(), 8);
    assert!(text.contains("<title>a &amp; b</title>"));
    assert!(text.contains(">builtin:&quot;mini&quot; &lt;clip&gt;<"));
    assert!(!text.contains("NaN") && !text.contains("inf"));
}
