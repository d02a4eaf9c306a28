//! Text in a page: what comes from data never becomes markup.

use std::fmt::Write as _;

/// A text as HTML, inside an element or a quoted attribute.
///
/// Characters that are not seen but change how others are seen (control characters, overrides of the direction of writing) become `�`.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A text cut after so many characters, as HTML.
pub(crate) fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", escaped(text[..end].trim_end())),
        None => escaped(text),
    }
}

/// A picture in base64, if it is nothing else.
pub(crate) fn picture(base64: &str, about: &str) -> String {
    let fine = base64.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    if !fine {
        return String::new();
    }
    format!("<img alt=\"{}\" src=\"data:image/png;base64,{base64}\">", escaped(about))
}

/// A whole number with groups of three: `10,000`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How a metric of that name is written: shares in percent, others as they are.
pub(crate) fn value(name: &str, value: f64) -> String {
    let base = name.rsplit_once('.').map_or(name, |(_, base)| base);
    let share = ["top1", "top5", "mean_per_class_recall", "share"].contains(&base) || base.contains("recall@");
    match value {
        value if !value.is_finite() => value.to_string(),
        value if share => format!("{:.2} %", 100.0 * value),
        value if value.fract() == 0.0 && value.abs() < 1e15 => {
            let sign = if value < 0.0 { "−" } else { "" };
            format!("{sign}{}", grouped(value.abs() as u64))
        }
        value => format!("{value:.4}"),
    }
}

/// A table. Headings that begin with `#` are those of numbers; cells are HTML.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    let class = |heading: &str| if heading.starts_with('#') { " class=\"n\"" } else { "" };
    for heading in headings {
        let _ = write!(out, "<th{}>{}</th>", class(heading), escaped(heading.trim_start_matches('#')));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for (cell, heading) in row.iter().zip(headings) {
            let _ = write!(out, "<td{}>{cell}</td>", class(heading));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(escaped("<a b='\"&\u{202e}\u{7}"), "&lt;a b=&#39;&quot;&amp;\u{fffd}\u{fffd}");
        assert_eq!(short("äöü<", 3), "äöü…");
        assert_eq!(picture("abc\" onerror=\"x", "x"), "");
    }

    #[test]
    fn numbers_are_written_as_people_read_them() {
        let found = [("top1", 0.97133), ("recall@5", 0.5), ("log_loss", 0.123456), ("n", 12345.0), ("gain", -0.5)];
        let found = found.map(|(name, number)| value(name, number));
        assert_eq!(found, ["97.13 %", "50.00 %", "0.1235", "12,345", "-0.5000"]);
        assert_eq!(value("n", f64::NAN), "NaN");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
