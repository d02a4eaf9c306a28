//! Outcomes of tests as JUnit XML, which CI systems show.

use std::fmt::Write as _;

use runner_spec::Place;

use crate::cases::{Outcome, Verdict};

/// The document: a suite for each pipeline.
pub(crate) fn document(suites: &[(String, Vec<Outcome>)]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let all: Vec<_> = suites.iter().flat_map(|(_, outcomes)| outcomes).collect();
    let _ = writeln!(text, "<testsuites {}>", counts(&all));
    for (name, outcomes) in suites {
        let name = escaped(name);
        let _ = writeln!(text, "  <testsuite name=\"{name}\" {}>", counts(&outcomes.iter().collect::<Vec<_>>()));
        for outcome in outcomes {
            let _ = write!(text, "    <testcase classname=\"{name}\" name=\"{}\" ", escaped(&outcome.case));
            if let Place::File { file, line, .. } = &outcome.place {
                let _ = write!(text, "file=\"{}\" line=\"{line}\" ", escaped(file));
            }
            let _ = write!(text, "time=\"{:.3}\"", outcome.took.as_secs_f64());
            if outcome.failures.is_empty() {
                text.push_str("/>\n");
                continue;
            }
            text.push_str(">\n");
            let tag = if outcome.verdict == Verdict::Invalid { "error" } else { "failure" };
            for failure in &outcome.failures {
                let (message, whole) = (escaped(&failure.message), escaped(&failure.to_string()));
                let _ = writeln!(text, "      <{tag} message=\"{message}\">{whole}</{tag}>");
            }
            text.push_str("    </testcase>\n");
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn counts(outcomes: &[&Outcome]) -> String {
    let of = |verdict| outcomes.iter().filter(|outcome| outcome.verdict == verdict).count();
    let time: f64 = outcomes.iter().map(|outcome| outcome.took.as_secs_f64()).sum();
    let (failed, invalid) = (of(Verdict::Failed), of(Verdict::Invalid));
    format!("tests=\"{}\" failures=\"{failed}\" errors=\"{invalid}\" time=\"{time:.3}\"", outcomes.len())
}

/// Text as XML takes it: without what would be markup, and without characters that XML does not have.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_name_breaks_the_document() {
        assert_eq!(super::escaped("a \"<&>\" b\u{1}\n"), "a &quot;&lt;&amp;&gt;&quot; b\u{fffd}&#10;");
    }
}
