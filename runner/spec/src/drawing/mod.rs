//! A pipeline as a drawing: Mermaid for Markdown, DOT for Graphviz, SVG to look at.

mod layout;
mod svg;

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{InputRef, Pipeline};

pub use svg::svg;

/// What is drawn: boxes, and lines between them.
struct Drawing {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

struct Node {
    /// The upper line: a stage's name, a model's reference.
    name: String,
    /// The lower line: a stage's kind; nothing for a model.
    kind: String,
    model: bool,
}

struct Edge {
    from: usize,
    to: usize,
    /// The ports, where they say more than the kinds do.
    label: String,
    /// Waits without reading.
    wait: bool,
}

impl Drawing {
    fn of(pipeline: &Pipeline) -> Self {
        let mut nodes: Vec<Node> = pipeline
            .stages
            .iter()
            .map(|stage| Node { name: stage.name.clone(), kind: stage.kind.clone(), model: false })
            .collect();
        let mut models = BTreeMap::new();
        let mut edges = Vec::new();
        for (to, stage) in pipeline.stages.iter().enumerate() {
            for (port, input) in &stage.inputs {
                let (from, output) = match input {
                    InputRef::Stage { stage, port } => (*stage, port.as_str()),
                    InputRef::Model { reference, .. } => {
                        let next = nodes.len();
                        let from = *models.entry(reference.as_str()).or_insert(next);
                        if from == next {
                            nodes.push(Node { name: reference.clone(), kind: String::new(), model: true });
                        }
                        (from, "")
                    }
                };
                // `rows` to `rows` is what everybody expects.
                let output = if output == "rows" { "" } else { output };
                let input = if port == "rows" || port == "model" { "" } else { port.as_str() };
                let label = match (output, input) {
                    ("", input) => input.to_owned(),
                    (output, "") => output.to_owned(),
                    (output, input) if output == input => output.to_owned(),
                    (output, input) => format!("{output} → {input}"),
                };
                edges.push(Edge { from, to, label, wait: false });
            }
            edges.extend(stage.needs.iter().map(|&from| Edge { from, to, label: String::new(), wait: true }));
        }
        Self { nodes, edges }
    }
}

/// A Mermaid flowchart.
pub fn mermaid(pipeline: &Pipeline) -> String {
    let drawing = Drawing::of(pipeline);
    // Mermaid takes HTML entities in quoted texts.
    let escape =
        |text: &str| text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;");
    let mut text = "flowchart TD\n".to_owned();
    for (i, node) in drawing.nodes.iter().enumerate() {
        let name = escape(&node.name);
        let _ = match (node.model, node.name == node.kind) {
            (true, _) => writeln!(text, "  n{i}([\"{name}\"])"),
            (false, true) => writeln!(text, "  n{i}[\"{name}\"]"),
            (false, false) => writeln!(text, "  n{i}[\"{name}<br/><small>{}</small>\"]", escape(&node.kind)),
        };
    }
    for edge in &drawing.edges {
        let (from, to, label) = (edge.from, edge.to, escape(&edge.label));
        let _ = match (edge.wait, label.is_empty()) {
            (true, _) => writeln!(text, "  n{from} -.-> n{to}"),
            (_, true) => writeln!(text, "  n{from} --> n{to}"),
            _ => writeln!(text, "  n{from} -->|\"{label}\"| n{to}"),
        };
    }
    text
}

/// A Graphviz digraph.
pub fn dot(pipeline: &Pipeline) -> String {
    let drawing = Drawing::of(pipeline);
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " "));
    let mut text = format!("digraph {} {{\n  node [shape=box, fontname=\"Helvetica\"];\n", quote(&pipeline.name));
    for (i, node) in drawing.nodes.iter().enumerate() {
        // `\n` is DOT's line break; it must not be escaped with the rest.
        let label = match (node.model, node.name == node.kind) {
            (false, false) => {
                format!("{}\\n{}\"", quote(&node.name).trim_end_matches('"'), quote(&node.kind).trim_matches('"'))
            }
            _ => quote(&node.name),
        };
        let shape = if node.model { ", shape=ellipse" } else { "" };
        let _ = writeln!(text, "  n{i} [label={label}{shape}];");
    }
    for edge in &drawing.edges {
        let mut attributes = Vec::new();
        if !edge.label.is_empty() {
            attributes.push(format!("label={}", quote(&edge.label)));
        }
        if edge.wait {
            attributes.push("style=dashed".to_owned());
        }
        let attributes = if attributes.is_empty() { String::new() } else { format!(" [{}]", attributes.join(", ")) };
        let _ = writeln!(text, "  n{} -> n{}{attributes};", edge.from, edge.to);
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests;
