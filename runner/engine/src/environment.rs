//! What a run runs with, so that it can be repeated: versions, machine, kinds, models, sources.

use std::{collections::BTreeMap, fs};

use serde_json::{Map, Value, json};

use crate::{Plan, graph::ModelFrom};

/// A JSON object of it, under what the caller says himself.
pub(crate) fn describe(plan: &Plan, given: Value) -> Value {
    let runtime = &plan.runtime;
    let nodes = &runtime.graph.nodes;
    let kinds: BTreeMap<&str, u32> = nodes.iter().map(|node| (node.kind.as_str(), node.version)).collect();
    let mut models = Map::new();
    for node in nodes {
        for (port, from) in &node.models {
            if let ModelFrom::Given { reference, info } = from {
                let model = json!({"reference": reference, "identity": info.identity});
                models.insert(format!("{}.{port}", node.name), model);
            }
        }
    }
    let source = |(stage, sum): (&usize, &crate::plan::SourceSum)| {
        let node = &nodes[*stage];
        let about = json!({
            "settings": node.settings, "rows": sum.rows, "shards": sum.shards, "digest": sum.digest,
        });
        (node.name.clone(), about)
    };
    let devices: Vec<String> = runtime.config.devices().iter().map(ToString::to_string).collect();
    let mut all = json!({
        "runner": env!("CARGO_PKG_VERSION"),
        "os": os(),
        "arch": std::env::consts::ARCH,
        "cpu": line("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().ok().map(usize::from),
        "memory": line("/proc/meminfo", "MemTotal").and_then(|text| kilobytes(&text)),
        "threads": runtime.config.threads,
        "backend": runtime.config.backend,
        "devices": devices,
        "kinds": kinds,
        "models": models,
        "sources": plan.sources.iter().map(source).collect::<Map<_, _>>(),
        "variables": plan.pipeline.environment,
    });
    if let (Some(all), Value::Object(given)) = (all.as_object_mut(), given) {
        all.extend(given);
    }
    runtime.secrets.redact_value(all)
}

/// `linux 6.1.0`.
fn os() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, release.trim()).trim_end().to_owned()
}

/// The value behind a name in a file of `name: value` lines.
fn line(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// `24576 kB` in bytes.
fn kilobytes(text: &str) -> Option<u64> {
    Some(text.strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(kilobytes("24576 kB"), Some(24576 * 1024));
        assert_eq!(kilobytes("many"), None);
    }
}
