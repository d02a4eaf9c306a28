//! A run as one page: everything inside it, nothing asked of any network, readable without scripts.

use std::fmt::Write as _;

use crate::{
    Estimate, Evaluation,
    html::{escaped, grouped, short, table, value},
    sections::{interval, section},
};

/// Bad rows that are listed.
const BAD_ROWS: usize = 100;

/// What a page tells of a run. All texts are plain.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The pipeline's name.
    pub title: String,
    /// What it is for.
    pub description: Option<String>,
    /// The run's id.
    pub run: String,
    /// How it ended: `succeeded`.
    pub status: String,
    /// Whether that is good.
    pub good: bool,
    /// Why it ended so.
    pub reason: Option<String>,
    /// When it began, and how long it took.
    pub when: String,
    /// The final metrics; the ends of intervals among them as `NAME.low` and `NAME.high`.
    pub metrics: Vec<Metric>,
    /// Conditions, in words, and whether they are met.
    pub gates: Vec<(String, bool)>,
    /// What stages measured, by their names.
    pub evaluations: Vec<(String, Evaluation)>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// Rows that could not be used, as far as they are known by name.
    pub bad: Vec<BadRow>,
    /// Parameters and their values.
    pub params: Vec<(String, String)>,
    /// What it ran with.
    pub environment: Vec<(String, String)>,
    /// The commands that run it again.
    pub repeat: Vec<String>,
    /// The pipeline's text.
    pub pipeline: String,
}

/// A number of a run.
#[derive(Clone, Debug)]
pub struct Metric {
    /// `STAGE.NAME`.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Rows that it was computed from.
    pub n: Option<u64>,
    /// Rows left out.
    pub bad: Option<u64>,
}

/// A stage of a run.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// How it ended.
    pub status: String,
    /// Rows that it took in.
    pub rows: u64,
    /// Rows that it could not use.
    pub bad: u64,
    /// How long it took, in words.
    pub took: String,
}

/// A row that could not be used.
#[derive(Clone, Debug)]
pub struct BadRow {
    /// The stage that could not use it.
    pub stage: String,
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: String,
}

impl Page {
    /// The page, as one HTML file.
    pub fn html(&self) -> String {
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\
             <title>{} · {}</title><style>{}</style></head><body>",
            escaped(&self.title),
            escaped(&self.run),
            include_str!("style.css")
        );
        out.push_str(&self.head());
        out.push_str(&self.comparison());
        for (stage, evaluation) in &self.evaluations {
            out.push_str(&section(stage, evaluation));
        }
        out.push_str(&self.numbers());
        out.push_str(&self.trouble());
        out.push_str(&self.made());
        let _ = writeln!(out, "<footer>Made by runner from run {}.</footer></body></html>", escaped(&self.run));
        out
    }

    fn head(&self) -> String {
        let class = if self.good { "good" } else { "poor" };
        let mut out = format!("<header><h1>{}</h1>", escaped(&self.title));
        if let Some(description) = &self.description {
            let _ = write!(out, "<p class=\"lead\">{}</p>", escaped(description));
        }
        let _ = write!(
            out,
            "<p><span class=\"status {class}\">{}</span> <span class=\"note\">run {} · {}</span></p>",
            escaped(&self.status),
            escaped(&self.run),
            escaped(&self.when)
        );
        if let Some(reason) = &self.reason {
            let _ = write!(out, "<p class=\"poor\">{}</p>", escaped(reason));
        }
        if !self.gates.is_empty() {
            out.push_str("<p>");
            for (gate, met) in &self.gates {
                let (class, sign) = if *met { ("good", "✓") } else { ("poor", "✗") };
                let _ = write!(out, "<span class=\"{class}\">{sign}</span> {}<br>", escaped(gate));
            }
            out.push_str("</p>");
        }
        out.push_str("</header>");
        out
    }

    /// Stages that measured the same, side by side.
    fn comparison(&self) -> String {
        /// The names of the numbers, and who measured them.
        type Family<'a> = (Vec<&'a str>, Vec<&'a (String, Evaluation)>);
        let mut families: Vec<Family<'_>> = Vec::new();
        for it in self.evaluations.iter().filter(|(_, evaluation)| !evaluation.estimates.is_empty()) {
            let names: Vec<_> = it.1.estimates.iter().map(|estimate| estimate.name.as_str()).collect();
            match families.iter_mut().find(|(other, _)| *other == names) {
                Some((_, family)) => family.push(it),
                None => families.push((names, vec![it])),
            }
        }
        let mut out = String::new();
        for (names, family) in families.iter().filter(|(_, family)| family.len() > 1) {
            let headings: Vec<String> = names.iter().map(|name| format!("#{name}")).collect();
            let headings: Vec<&str> = ["", "#n"].into_iter().chain(headings.iter().map(String::as_str)).collect();
            let rows = family.iter().map(|(stage, evaluation)| {
                let cell = |estimate: &Estimate| {
                    let range = interval(estimate).map(|range| format!("<br><span class=\"note\">{range}</span>"));
                    format!("{}{}", value(&estimate.name, estimate.value), range.unwrap_or_default())
                };
                let n = evaluation.estimates.iter().map(|estimate| estimate.n).max().unwrap_or(0);
                let mut row = vec![short(stage, 80), grouped(n)];
                row.extend(evaluation.estimates.iter().map(cell));
                row
            });
            let _ = write!(out, "<section><h2>Comparison</h2>{}</section>", table(&headings, rows));
        }
        out
    }

    fn numbers(&self) -> String {
        let end = |name: &str, end: &str| self.metrics.iter().find(|it| it.name.strip_suffix(end) == Some(name));
        let range = |name: &str| Some((end(name, ".low")?.value, end(name, ".high")?.value));
        let is_end = |name: &str| {
            [".low", ".high"].iter().any(|end| name.strip_suffix(end).is_some_and(|name| range(name).is_some()))
        };
        let rows: Vec<_> = self
            .metrics
            .iter()
            .filter(|it| !is_end(&it.name))
            .map(|it| {
                let range = range(&it.name)
                    .map(|(low, high)| format!("{} – {}", value(&it.name, low), value(&it.name, high)))
                    .unwrap_or_default();
                let optional = |n: Option<u64>| n.map(grouped).unwrap_or_default();
                vec![escaped(&it.name), value(&it.name, it.value), range, optional(it.n), optional(it.bad)]
            })
            .collect();
        if rows.is_empty() {
            return String::new();
        }
        let headings = ["metric", "#value", "#95 % interval", "#n", "#left out"];
        format!("<section><h2>All numbers</h2>{}</section>", table(&headings, rows))
    }

    /// Rows that were left out.
    fn trouble(&self) -> String {
        let total: u64 = self.stages.iter().map(|stage| stage.bad).sum();
        if total == 0 && self.bad.is_empty() {
            return String::new();
        }
        let mut out = format!("<section><h2>Rows left out</h2><p>{} could not be used.</p>", grouped(total));
        if !self.bad.is_empty() {
            let row = |bad: &BadRow| vec![escaped(&bad.stage), escaped(&bad.id), escaped(&bad.reason)];
            out.push_str(&table(&["stage", "row", "why"], self.bad.iter().take(BAD_ROWS).map(row)));
            let more = self.bad.len().saturating_sub(BAD_ROWS);
            if more > 0 {
                let _ = write!(out, "<p class=\"note\">and {} more</p>", grouped(more as u64));
            }
        }
        out.push_str("</section>");
        out
    }

    /// How it was made, and how to make it again.
    fn made(&self) -> String {
        let mut out = String::from("<section><h2>How it was made</h2>");
        let facts = |facts: &[(String, String)]| {
            let mut out = String::from("<dl class=\"facts\">");
            for (name, value) in facts {
                let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value));
            }
            out + "</dl>"
        };
        if !self.params.is_empty() {
            let _ = write!(out, "<h3>Parameters</h3>{}", facts(&self.params));
        }
        if !self.environment.is_empty() {
            let _ = write!(out, "<h3>Environment</h3>{}", facts(&self.environment));
        }
        if !self.stages.is_empty() {
            let some = |n: u64| if n > 0 { grouped(n) } else { String::new() };
            let row = |it: &Stage| {
                let texts = [&it.name, &it.kind, &it.status].map(|text| escaped(text));
                let mut row = texts.to_vec();
                row.extend([some(it.rows), some(it.bad), escaped(&it.took)]);
                row
            };
            let headings = ["stage", "kind", "status", "#rows", "#left out", "#time"];
            let _ = write!(out, "<h3>Stages</h3>{}", table(&headings, self.stages.iter().map(row)));
        }
        if !self.repeat.is_empty() {
            let _ = write!(out, "<h3>Run it again</h3><pre>{}</pre>", escaped(&self.repeat.join("\n")));
        }
        if !self.pipeline.is_empty() {
            let _ =
                write!(out, "<details><summary>The pipeline</summary><pre>{}</pre></details>", escaped(&self.pipeline));
        }
        out.push_str("</section>");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bin, Class, Classification, Finding, Mistake, Pair, Pairs, Retrieval, Template, Templates};

    const HOSTILE: &str = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u{202e}";

    fn hostile() -> Page {
        let text = || HOSTILE.to_owned();
        let class = |label| Class { label, name: text(), n: 3, right: 1, predicted: 2 };
        let image = Some("aGk=\" onload=\"alert(1)".to_owned());
        let mistakes = vec![Mistake { id: text(), truth: text(), predicted: text(), probability: 0.9, image }];
        let confusion = vec![(0, 0, 1), (0, 1, 2), (9, 99, 1)];
        let few = Classification {
            classes: (0..2).map(class).collect(),
            confusion: confusion.clone(),
            calibration: vec![Bin { n: 3, right: 1, confidence: 0.8 }; 15],
            mistakes,
        };
        let many = Classification { classes: (0..1000).map(class).collect(), confusion, ..Classification::default() };
        let template = Template { template: text(), alone: 0.2, without: 0.4, helped: 1, hurt: 2 };
        let pair = Pair { first: text(), second: text(), cosine: 0.99, images: vec![text()] };
        let findings = [
            Finding::Classification(few),
            Finding::Classification(many),
            Finding::Retrieval(Retrieval {
                k: vec![1],
                image_recall: vec![0.5],
                text_recall: vec![],
                ..Retrieval::default()
            }),
            Finding::Templates(Templates { ensemble: 0.3, n: 3, templates: vec![template] }),
            Finding::Pairs(Pairs { title: text(), n: 2, pairs: vec![pair] }),
        ];
        let estimate = || Estimate { name: text(), value: f64::NAN, interval: Some((0.1, f64::INFINITY)), n: 3 };
        Page {
            title: text(),
            description: Some(text()),
            run: text(),
            status: text(),
            reason: Some(text()),
            when: text(),
            metrics: vec![Metric { name: text(), value: 1.0, n: Some(1), bad: None }],
            gates: vec![(text(), false)],
            evaluations: findings.map(|finding| (text(), Evaluation::new(vec![estimate()], finding))).to_vec(),
            stages: vec![Stage { name: text(), kind: text(), status: text(), rows: 1, bad: 1, took: text() }],
            bad: vec![BadRow { stage: text(), id: text(), reason: text() }],
            params: vec![(text(), text())],
            environment: vec![(text(), text())],
            repeat: vec![text()],
            pipeline: text(),
            good: false,
        }
    }

    #[test]
    fn no_text_of_anybody_becomes_markup() {
        let html = hostile().html();
        for bad in ["<script", "<img src=x", "onerror=alert(1)>", "\u{202e}", " onload="] {
            assert!(!html.contains(bad), "{bad}");
        }
        assert_eq!(html.matches("</style>").count(), 1);
    }

    #[test]
    fn nothing_is_asked_of_a_network() {
        let html = hostile().html();
        for far in ["http://", "https://", "url(", "@import", "<link", "<iframe", "<object"] {
            assert!(!html.contains(far), "{far}");
        }
    }

    #[test]
    fn a_run_that_measured_nothing_has_a_page() {
        let html = Page { title: "t".into(), run: "r".into(), status: "failed".into(), ..Page::default() }.html();
        assert!(html.contains("<h1>t</h1>") && !html.contains("All numbers"));
    }
}
