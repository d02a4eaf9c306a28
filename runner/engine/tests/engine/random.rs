//! Random pipelines against a program that does the same to a list of rows, whatever is stored and whatever is not.

use std::{collections::BTreeMap, fmt::Write as _};

use runner_contract::Random;
use runner_store::RunStatus;

use crate::toys::bench::Bench;

/// A row as a plain program has it.
#[derive(Clone)]
struct Row {
    id: String,
    value: f64,
    columns: BTreeMap<&'static str, String>,
}

/// A random pipeline: its text, and the rows of each port with the columns that they have.
fn pipeline(random: &mut Random) -> (String, Vec<(String, Vec<Row>)>) {
    let count = random.below(40);
    let mut text = format!("  data: {{uses: numbers, with: {{count: {}}}}}\n", count + 1);
    let label = |i: usize| BTreeMap::from([("label", (i % 3).to_string()), ("value", i.to_string())]);
    let rows = (0..=count).map(|i| Row { id: format!("n/{i}"), value: i as f64, columns: label(i) });
    let mut ports = vec![("data".to_owned(), rows.collect::<Vec<_>>())];
    for stage in 0..2 + random.below(6) {
        let (from, rows) = ports[random.below(ports.len())].clone();
        let name = format!("s{stage}");
        let keep = random.below(2) == 0;
        let number = 2 + random.below(4);
        let (uses, with) = match random.below(4) {
            0 => ("add", format!("by: {number}, bad: {}", number + 3)),
            1 => ("embed", format!("factor: {number}")),
            2 => ("repeat", format!("times: {number}")),
            _ => ("keep_if", format!("of: {number}")),
        };
        let _ = writeln!(text, "  {name}: {{uses: {uses}, keep: {keep}, with: {{{with}}}, inputs: {from}}}");
        let multiple = |row: &Row, of: usize| row.value % of as f64 == 0.0;
        let with = |mut row: Row, column: &'static str, value: f64| {
            row.columns.insert(column, value.to_string());
            row
        };
        match uses {
            "add" => {
                let good = rows.into_iter().filter(|row| !multiple(row, number + 3));
                let added = good.map(|row| (row.value + number as f64, row)).map(|(sum, row)| with(row, "sum", sum));
                ports.push((name, added.collect()));
            }
            "embed" => {
                let square = |row: &Row| (row.value * number as f64).powi(2);
                ports.push((
                    name,
                    rows.into_iter().map(|row| (square(&row), row)).map(|(v, row)| with(row, "square", v)).collect(),
                ));
            }
            "repeat" => {
                let child = |row: &Row, k: usize| {
                    let mut child = with(row.clone(), "copy", k as f64);
                    child.columns.insert("parent", row.id.clone());
                    child.id = format!("{}/{k}", row.id);
                    child
                };
                ports.push((name, rows.iter().flat_map(|row| (0..number).map(move |k| child(row, k))).collect()));
            }
            _ => {
                let (yes, no) = rows.into_iter().partition(|row| multiple(row, number));
                ports.push((format!("{name}.yes"), yes));
                ports.push((format!("{name}.no"), no));
            }
        }
    }
    (text, ports)
}

#[test]
fn rows_are_the_same_however_they_come_about() {
    for seed in 0..12 {
        let mut random = Random::new(seed, "pipeline", "");
        let (text, ports) = pipeline(&mut random);
        let mut bench = Bench::with_threads(1 + random.below(3));
        // Half of the pipelines have run before their rows are asked for.
        if seed % 2 == 0 {
            let report = bench.run(&text);
            assert_eq!(report.status, RunStatus::Succeeded, "seed {seed}: {:?}\n{text}", report.error);
        }
        for (port, rows) in &ports {
            let columns: Vec<&str> = rows.first().map(|row| row.columns.keys().copied().collect()).unwrap_or_default();
            let expected: Vec<String> = rows
                .iter()
                .map(|row| {
                    [row.id.clone()].into_iter().chain(row.columns.values().cloned()).collect::<Vec<_>>().join(" ")
                })
                .collect();
            assert_eq!(bench.export(&text, port, &columns), expected, "seed {seed}, {port}:\n{text}");
        }
    }
}
