//! What is told of each kind of finding.

use std::fmt::Write as _;

use crate::{
    Class, Classification, Estimate, Evaluation, Finding, Pairs, Retrieval, Templates, figures,
    html::{escaped, grouped, picture, short, table, value},
};

/// Confused classes that are listed.
const CONFUSED: usize = 20;
/// Classes that are listed at once; the rest can be unfolded.
const HARDEST: usize = 25;
/// Templates that are listed at once.
const TEMPLATES: usize = 40;

/// A stage's section.
pub(crate) fn section(stage: &str, evaluation: &Evaluation) -> String {
    let mut out = format!("<section><h2>{}</h2>", escaped(stage));
    if !evaluation.estimates.is_empty() {
        out.push_str(&cards(&evaluation.estimates));
    }
    out.push_str(&match &evaluation.finding {
        Finding::Classification(found) => classification(found),
        Finding::Retrieval(found) => retrieval(found),
        Finding::Templates(found) => templates(found),
        Finding::Pairs(found) => pairs(found),
    });
    out.push_str("</section>");
    out
}

/// The interval of an estimate in words: `96.8 % – 97.4 %`.
pub(crate) fn interval(estimate: &Estimate) -> Option<String> {
    let (low, high) = estimate.interval?;
    Some(format!("{} – {}", value(&estimate.name, low), value(&estimate.name, high)))
}

fn cards(estimates: &[Estimate]) -> String {
    let mut out = String::from("<div class=\"cards\">");
    for estimate in estimates {
        let _ = write!(
            out,
            "<div class=\"card\"><div class=\"name\">{}</div><div class=\"value\">{}</div>",
            escaped(&estimate.name),
            value(&estimate.name, estimate.value)
        );
        let n = format!("n = {}", grouped(estimate.n));
        let words = interval(estimate).map_or_else(|| n.clone(), |interval| format!("{interval}, {n}"));
        let _ = write!(out, "<div class=\"interval\">{words}</div>");
        if value(&estimate.name, 0.5).ends_with('%') || estimate.name == "ece" {
            out.push_str(&figures::whisker(estimate.value, estimate.interval));
        }
        out.push_str("</div>");
    }
    out.push_str("</div>");
    if estimates.iter().any(|estimate| estimate.interval.is_some()) {
        out.push_str("<p class=\"note\">Intervals: 95 %, percentile bootstrap.</p>");
    }
    out
}

fn classification(found: &Classification) -> String {
    let mut out = String::from("<div class=\"columns\"><div class=\"wide\"><h3>Confusion</h3>");
    out.push_str(&figures::confusion(&found.classes, &found.confusion));
    out.push_str("</div><div><h3>Reliability</h3>");
    out.push_str(&figures::reliability(&found.calibration));
    out.push_str("<p class=\"note\">Bars: how often predictions of a confidence are right; shaded: how far that is from what they say. Below: how many.</p></div></div>");
    out.push_str(&confused(found));
    out.push_str(&by_class(&found.classes));
    if !found.mistakes.is_empty() {
        out.push_str("<h3>Worst mistakes</h3><div class=\"tiles\">");
        for mistake in &found.mistakes {
            let image = mistake.image.as_deref().map(|image| picture(image, &mistake.id)).unwrap_or_default();
            let _ = write!(
                out,
                "<figure title=\"{}\"><div class=\"frame\">{image}</div><figcaption><b>{}</b><br><i>{}</i> {:.0} %</figcaption></figure>",
                escaped(&mistake.id),
                short(&mistake.truth, 40),
                short(&mistake.predicted, 40),
                100.0 * mistake.probability
            );
        }
        out.push_str("</div><p class=\"note\">The true class, and below it the prediction with its probability. First those that put the truth farthest behind.</p>");
    }
    out
}

fn confused(found: &Classification) -> String {
    let mut pairs: Vec<_> = found.confusion.iter().filter(|(truth, predicted, _)| truth != predicted).collect();
    pairs.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.cmp(b)));
    if pairs.is_empty() {
        return String::new();
    }
    let name = |place: usize| found.classes.get(place).map(|class| short(&class.name, 60)).unwrap_or_default();
    let rows = pairs.into_iter().take(CONFUSED).map(|&(truth, predicted, times)| {
        let n = found.classes.get(truth).map_or(0, |class| class.n).max(1);
        vec![name(truth), name(predicted), grouped(times), format!("{:.1} %", 100.0 * times as f64 / n as f64)]
    });
    format!("<h3>Most confused</h3>{}", table(&["true", "predicted", "#rows", "#of the class"], rows))
}

fn by_class(classes: &[Class]) -> String {
    let recall = |class: &Class| class.right as f64 / class.n as f64;
    let mut seen: Vec<_> = classes.iter().filter(|class| class.n > 0).collect();
    seen.sort_by(|a, b| recall(a).total_cmp(&recall(b)).then_with(|| a.label.cmp(&b.label)));
    let rows = |classes: &[&Class]| {
        let row = |class: &&Class| {
            let precision = class.right as f64 / class.predicted.max(1) as f64;
            vec![
                short(&class.name, 60),
                figures::bar(recall(class)),
                format!("{:.1} %", 100.0 * recall(class)),
                format!("{:.1} %", 100.0 * precision),
                grouped(class.n),
            ]
        };
        table(&["class", "", "#recall", "#precision", "#rows"], classes.iter().map(row))
    };
    if seen.len() <= 2 * HARDEST {
        return format!("<h3>Classes, the hardest first</h3>{}", rows(&seen));
    }
    let (hardest, others) = seen.split_at(HARDEST);
    format!(
        "<h3>Hardest classes</h3>{}<details><summary>the other {}</summary>{}</details>",
        rows(hardest),
        grouped(others.len() as u64),
        rows(others)
    )
}

fn retrieval(found: &Retrieval) -> String {
    let rows = found.k.iter().zip(found.image_recall.iter().zip(&found.text_recall)).map(|(k, (image, text))| {
        let share = |share: f64| format!("{:.2} %", 100.0 * share);
        vec![grouped(*k as u64), figures::bar(*image), share(*image), figures::bar(*text), share(*text)]
    });
    format!(
        "<h3>Recall among the first k</h3>{}<p class=\"note\">{} pictures, {} captions. A caption finds its picture; a picture finds one of its captions.</p>",
        table(&["#k", "pictures by captions", "#", "captions by pictures", "#"], rows),
        grouped(found.images),
        grouped(found.captions)
    )
}

fn templates(found: &Templates) -> String {
    let mut sorted: Vec<_> = found.templates.iter().collect();
    let gain = |template: &crate::Template| found.ensemble - template.without;
    sorted.sort_by(|a, b| gain(b).total_cmp(&gain(a)).then_with(|| b.alone.total_cmp(&a.alone)));
    let most = sorted.iter().map(|template| gain(template).abs()).fold(0.0, f64::max);
    let rows = |templates: &[&crate::Template]| {
        let row = |template: &&crate::Template| {
            vec![
                short(&template.template, 90),
                format!("{:.2} %", 100.0 * template.alone),
                figures::lean(gain(template), most),
                format!("{:+.3}", 100.0 * gain(template)),
                grouped(template.helped),
                grouped(template.hurt),
            ]
        };
        table(&["template", "#alone", "gain", "#points", "#helped", "#hurt"], templates.iter().map(row))
    };
    let (first, others) = sorted.split_at(sorted.len().min(TEMPLATES));
    let mut out = String::from("<h3>Prompts that helped and hurt</h3>");
    out.push_str(&rows(first));
    if !others.is_empty() {
        let _ = write!(out, "<details><summary>the other {}</summary>{}</details>", others.len(), rows(others));
    }
    let _ = write!(
        out,
        "<p class=\"note\">Alone: top-1 with this template only. Gain: top-1 with all templates ({:.2} %) minus top-1 without this one, on {} \
         rows; helped and hurt count the rows that it makes right or wrong.</p>",
        100.0 * found.ensemble,
        grouped(found.n)
    );
    out
}

fn pairs(found: &Pairs) -> String {
    let mut out = format!("<h3>{}</h3>", escaped(&found.title));
    if found.pairs.is_empty() {
        out.push_str("<p class=\"note\">None.</p>");
        return out;
    }
    if found.pairs.iter().any(|pair| !pair.images.is_empty()) {
        out.push_str("<div class=\"tiles\">");
        for pair in &found.pairs {
            let images: String = pair.images.iter().map(|image| picture(image, &pair.first)).collect();
            let two = if pair.images.len() > 1 { " two" } else { "" };
            let _ = write!(
                out,
                "<figure><div class=\"frame{two}\">{images}</div><figcaption><b>{:.4}</b><br>{}<br>{}</figcaption></figure>",
                pair.cosine,
                short(&pair.first, 60),
                short(&pair.second, 60)
            );
        }
        out.push_str("</div>");
    } else {
        let row =
            |pair: &crate::Pair| vec![short(&pair.first, 80), short(&pair.second, 160), format!("{:.4}", pair.cosine)];
        out.push_str(&table(&["", "", "#cosine"], found.pairs.iter().map(row)));
    }
    let _ = write!(out, "<p class=\"note\">{} of {} shown.</p>", grouped(found.pairs.len() as u64), grouped(found.n));
    out
}
