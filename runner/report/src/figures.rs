//! Drawings inside the page, as SVG whose colours are the page's.

use std::fmt::Write as _;

use crate::{
    Bin, Class,
    html::{escaped, grouped, short},
};

/// Up to so many classes a confusion matrix has names and numbers.
const NAMED: usize = 30;
/// More classes are drawn in blocks: so many blocks a side.
const BLOCKS: usize = 150;
/// Shades of blocks.
const SHADES: usize = 6;

/// A value between 0 and 1 with its interval, as a line with a mark.
pub(crate) fn whisker(value: f64, interval: Option<(f64, f64)>) -> String {
    const WIDTH: f64 = 160.0;
    let at = |share: f64| share.clamp(0.0, 1.0) * WIDTH;
    let mut out = format!("<svg class=\"whisker\" viewBox=\"0 0 {WIDTH} 12\" aria-hidden=\"true\">");
    let _ = write!(out, "<line class=\"axis\" x1=\"0\" x2=\"{WIDTH}\" y1=\"6\" y2=\"6\"/>");
    if let Some((low, high)) = interval {
        let (left, right) = (at(low), at(high).max(at(low) + 1.0));
        let _ =
            write!(out, "<rect class=\"span\" x=\"{left:.2}\" y=\"3.5\" width=\"{:.2}\" height=\"5\"/>", right - left);
    }
    let _ = write!(out, "<circle class=\"mark\" cx=\"{:.2}\" cy=\"6\" r=\"3\"/></svg>", at(value));
    out
}

/// A confusion matrix: named cells for few classes, blocks of classes for many.
pub(crate) fn confusion(classes: &[Class], counts: &[(usize, usize, u64)]) -> String {
    if classes.len() <= NAMED { cells(classes, counts) } else { blocks(classes, counts) }
}

fn cells(classes: &[Class], counts: &[(usize, usize, u64)]) -> String {
    let n = classes.len();
    let longest = classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(1).min(18);
    let cell = if n <= 12 { 44.0 } else { 26.0 };
    let label = 14.0 + 7.2 * longest as f64;
    let side = cell * n as f64;
    let (width, height) = (label + side + 8.0, side + label + 30.0);
    let mut out = format!(
        "<svg class=\"confusion\" viewBox=\"0 0 {width:.0} {height:.0}\" style=\"max-width:{width:.0}px\" role=\"img\" aria-label=\"confusion matrix\">"
    );
    for &(row, column, times) in counts {
        let Some(class) = classes.get(row) else { continue };
        let share = times as f64 / class.n.max(1) as f64;
        let (x, y) = (label + column as f64 * cell, row as f64 * cell);
        let (kind, opacity) = if row == column { ("hit", share) } else { ("miss", 0.12 + 0.88 * share.sqrt()) };
        let predicted = classes.get(column).map(|class| escaped(&class.name)).unwrap_or_default();
        let title = format!("{} taken for {predicted}: {}", escaped(&class.name), grouped(times));
        let inner = cell - 2.0;
        let _ = write!(
            out,
            "<g><title>{title}</title><rect class=\"{kind}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{inner}\" height=\"{inner}\" rx=\"3\" fill-opacity=\"{opacity:.3}\"/>",
            x + 1.0,
            y + 1.0
        );
        if times < 10_u64.pow(if n <= 12 { 5 } else { 3 }) {
            let ink = if opacity > 0.6 { "on" } else { "ink" };
            let _ = write!(
                out,
                "<text class=\"{ink}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{times}</text>",
                x + cell / 2.0,
                y + cell / 2.0 + 4.0
            );
        }
        out.push_str("</g>");
    }
    for (i, class) in classes.iter().enumerate() {
        let middle = i as f64 * cell + cell / 2.0;
        let name = short(&class.name, 17);
        let _ = write!(
            out,
            "<text class=\"ink\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            label - 8.0,
            middle + 4.0
        );
        let (x, y) = (label + middle + 4.0, side + 8.0);
        let _ = write!(
            out,
            "<text class=\"ink\" transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"end\">{name}</text>"
        );
    }
    for i in 0..=n {
        let at = i as f64 * cell;
        let _ = write!(out, "<path class=\"grid\" d=\"M{label:.1} {at:.1}h{side:.1}M{:.1} 0v{side:.1}\"/>", label + at);
    }
    let _ = write!(
        out,
        "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">predicted</text></svg>",
        label + side / 2.0,
        height - 6.0
    );
    out
}

/// Blocks of classes, as few paths as there are shades.
fn blocks(classes: &[Class], counts: &[(usize, usize, u64)]) -> String {
    let size = classes.len().div_ceil(BLOCKS);
    let n = classes.len().div_ceil(size);
    let mut sums = vec![0u64; n * n];
    for &(row, column, times) in counts {
        if let Some(sum) = sums.get_mut(row / size * n + column / size) {
            *sum += times;
        }
    }
    let rows: Vec<u64> = sums.chunks_exact(n.max(1)).map(|row| row.iter().sum()).collect();
    let mut paths = vec![[String::new(), String::new()]; SHADES];
    for (at, &sum) in sums.iter().enumerate().filter(|(_, sum)| **sum > 0) {
        let (row, column) = (at / n, at % n);
        let share = (sum as f64 / rows[row].max(1) as f64).sqrt();
        let shade = ((share * SHADES as f64).ceil() as usize).clamp(1, SHADES) - 1;
        let _ = write!(paths[shade][usize::from(row == column)], "M{column} {row}h1v1h-1z");
    }
    let mut out = format!(
        "<svg class=\"confusion\" viewBox=\"-1 -1 {0} {0}\" style=\"max-width:640px\" role=\"img\" aria-label=\"confusion matrix\">",
        n + 2
    );
    let _ = write!(out, "<path class=\"frame\" d=\"M0 0h{n}v{n}h-{n}z\"/>");
    for (i, [miss, hit]) in paths.iter().enumerate() {
        let opacity = (i + 1) as f64 / SHADES as f64;
        for (class, path) in [("miss", miss), ("hit", hit)] {
            if !path.is_empty() {
                let _ = write!(out, "<path class=\"{class}\" fill-opacity=\"{opacity:.2}\" d=\"{path}\"/>");
            }
        }
    }
    out.push_str("</svg>");
    let each = if size == 1 { String::new() } else { format!(", each cell {size} × {size} classes") };
    let _ = write!(
        out,
        "<p class=\"note\">True classes down, predictions across, in the order of the labels{each}. The darker a cell, the larger \
         its share of its row.</p>"
    );
    out
}

/// How often predictions of a confidence are right.
pub(crate) fn reliability(bins: &[Bin]) -> String {
    const SIDE: f64 = 300.0;
    const LEFT: f64 = 40.0;
    const BELOW: f64 = 60.0;
    let (top, histogram) = (8.0, 8.0 + SIDE + 26.0 + BELOW);
    let x = |share: f64| LEFT + share * SIDE;
    let y = |share: f64| top + SIDE - share * SIDE;
    let mut out = format!(
        "<svg class=\"reliability\" viewBox=\"0 0 {:.0} {:.0}\" style=\"max-width:{:.0}px\" role=\"img\" aria-label=\"reliability diagram\">",
        LEFT + SIDE + 16.0,
        histogram + 40.0,
        LEFT + SIDE + 16.0
    );
    for tick in 0..=5 {
        let share = f64::from(tick) / 5.0;
        let _ = write!(out, "<path class=\"grid\" d=\"M{LEFT} {:.1}h{SIDE}\"/>", y(share));
        let _ = write!(
            out,
            "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{share:.1}</text>",
            LEFT - 6.0,
            y(share) + 4.0
        );
        let _ = write!(
            out,
            "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{share:.1}</text>",
            x(share),
            histogram + 16.0
        );
    }
    let most = bins.iter().map(|bin| bin.n).max().unwrap_or(0).max(1);
    for (i, bin) in bins.iter().enumerate().filter(|(_, bin)| bin.n > 0) {
        let width = SIDE / bins.len() as f64;
        let left = x(i as f64 / bins.len() as f64) + 1.0;
        let accuracy = bin.right as f64 / bin.n as f64;
        let (low, high) = (accuracy.min(bin.confidence), accuracy.max(bin.confidence));
        let inner = width - 2.0;
        let _ = write!(
            out,
            "<g><title>confidence {:.3}, {} of {} right</title>",
            bin.confidence,
            grouped(bin.right),
            grouped(bin.n)
        );
        for (class, from, to) in [("hit", 0.0, accuracy), ("gap", low, high)] {
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{inner:.1}\" height=\"{:.1}\"/>",
                y(to),
                y(from) - y(to)
            );
        }
        let height = bin.n as f64 / most as f64 * BELOW;
        let _ = write!(
            out,
            "<rect class=\"many\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{inner:.1}\" height=\"{height:.1}\"/></g>",
            histogram - height
        );
    }
    let _ = write!(out, "<path class=\"diagonal\" d=\"M{:.1} {:.1}L{:.1} {:.1}\"/>", x(0.0), y(0.0), x(1.0), y(1.0));
    let _ = write!(
        out,
        "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">confidence</text></svg>",
        x(0.5),
        histogram + 34.0
    );
    out
}

/// A bar of a share, for tables.
pub(crate) fn bar(share: f64) -> String {
    let width = 100.0 * share.clamp(0.0, 1.0);
    format!("<span class=\"bar\"><span style=\"width:{width:.2}%\"></span></span>")
}

/// A bar to the left or to the right of nothing, for gains; `most` is the longest.
pub(crate) fn lean(value: f64, most: f64) -> String {
    let width = if most > 0.0 { 50.0 * (value.abs() / most).min(1.0) } else { 0.0 };
    let (class, left) = if value < 0.0 { ("less", 50.0 - width) } else { ("more", 50.0) };
    format!("<span class=\"lean\"><span class=\"{class}\" style=\"left:{left:.2}%;width:{width:.2}%\"></span></span>")
}
