//! The drawing as SVG, in our own layout.

use std::fmt::Write as _;

use super::{Drawing, Node, layout};
use crate::Pipeline;

/// Width of a character of the label font, about, and the other measures; in pixels.
const CHARACTER: f64 = 7.4;
const PADDING: f64 = 14.0;
const HEIGHT: f64 = 46.0;
const LAYER: f64 = 96.0;
const GAP: f64 = 26.0;
const MARGIN: f64 = 20.0;

/// An SVG picture. Colours follow the viewer's light or dark scheme.
pub fn svg(pipeline: &Pipeline) -> String {
    let drawing = Drawing::of(pipeline);
    let width = |node: &Node| {
        let characters = node.name.chars().count().max(node.kind.chars().count());
        characters as f64 * CHARACTER + 2.0 * PADDING
    };
    let widths: Vec<f64> = drawing.nodes.iter().map(width).collect();
    let edges: Vec<_> = drawing.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let (places, mut ways) = layout::place(&widths, &edges, GAP);
    let turns = spread_ends(&edges, &widths, &mut ways);
    let points = || ways.iter().flatten().map(|&(_, x)| x);
    let left = places.iter().zip(&widths).map(|(place, width)| place.x - width / 2.0).chain(points());
    let left = left.fold(0.0, f64::min);
    let right = places.iter().zip(&widths).map(|(place, width)| place.x + width / 2.0).chain(points());
    let right = right.fold(0.0, f64::max);
    let layers = places.iter().map(|place| place.layer).max().unwrap_or(0);
    let total_width = right - left + 2.0 * MARGIN;
    let total_height = layers as f64 * LAYER + HEIGHT + 2.0 * MARGIN;
    let x = |at: f64| at - left + MARGIN;
    let y = |layer: usize| layer as f64 * LAYER + MARGIN;

    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {total_width:.0} {total_height:.0}\" \
         width=\"{total_width:.0}\" height=\"{total_height:.0}\" role=\"img\">\n<title>{}</title>\n{STYLE}",
        escape(&pipeline.name)
    );
    for ((edge, way), turn) in drawing.edges.iter().zip(&ways).zip(turns) {
        let mut path = String::new();
        // A point on the way counts as the middle of its layer; a box is left below and reached above.
        let last = way.len().saturating_sub(1);
        for (i, pair) in way.windows(2).enumerate() {
            let [(from_layer, from), (to_layer, to)] = pair else { continue };
            let start = y(*from_layer) + if i == 0 { HEIGHT } else { HEIGHT / 2.0 };
            let end = y(*to_layer) + if i + 1 == last { -5.0 } else { HEIGHT / 2.0 };
            let bend = (start + end) / 2.0;
            if i == 0 {
                let _ = write!(path, "M{:.1} {start:.1}", x(*from));
            }
            let _ = write!(path, " C{:.1} {bend:.1} {:.1} {bend:.1} {:.1} {end:.1}", x(*from), x(*to), x(*to));
        }
        let class = if edge.wait { "edge wait" } else { "edge" };
        let _ = writeln!(text, "<path class=\"{class}\" marker-end=\"url(#end)\" d=\"{path}\"/>");
        // Near the end, where lines to one box are apart; neighbours at different heights.
        if let (false, [.., (_, from), (layer, to)]) = (edge.label.is_empty(), way.as_slice()) {
            let (at, below) = (x(from * 0.3 + to * 0.7), y(*layer) - if turn % 2 == 0 { 16.0 } else { 29.0 });
            let _ =
                writeln!(text, "<text class=\"port\" x=\"{at:.1}\" y=\"{below:.1}\">{}</text>", escape(&edge.label));
        }
    }
    for ((node, place), width) in drawing.nodes.iter().zip(&places).zip(&widths) {
        let (left, top, centre) = (x(place.x - width / 2.0), y(place.layer), x(place.x));
        let (class, round) = if node.model { ("box model", HEIGHT / 2.0) } else { ("box", 8.0) };
        let _ = writeln!(
            text,
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\" rx=\"{round}\"/>"
        );
        let two = !node.kind.is_empty() && node.kind != node.name;
        let name_at = top + if two { 20.0 } else { 28.0 };
        let _ =
            writeln!(text, "<text class=\"name\" x=\"{centre:.1}\" y=\"{name_at:.1}\">{}</text>", escape(&node.name));
        if two {
            let kind_at = top + 36.0;
            let _ = writeln!(
                text,
                "<text class=\"kind\" x=\"{centre:.1}\" y=\"{kind_at:.1}\">{}</text>",
                escape(&node.kind)
            );
        }
    }
    text.push_str("</svg>\n");
    text
}

/// Moves the ends of lines to one box apart, in the order in which they come. Says for each line the how-manyth it is.
fn spread_ends(edges: &[(usize, usize)], widths: &[f64], ways: &mut [Vec<(usize, f64)>]) -> Vec<usize> {
    let mut turns = vec![0; edges.len()];
    for (node, width) in widths.iter().enumerate() {
        let comes_from = |edge: &usize| ways[*edge].iter().rev().nth(1).map_or(0.0, |&(_, x)| x);
        let mut ends: Vec<usize> = (0..edges.len()).filter(|&edge| edges[edge].1 == node).collect();
        ends.sort_by(|a, b| comes_from(a).total_cmp(&comes_from(b)));
        let middle = ends.len().saturating_sub(1) as f64 / 2.0;
        let step = (width * 0.7 / ends.len() as f64).min(36.0);
        for (turn, &edge) in ends.iter().enumerate() {
            turns[edge] = turn;
            if let Some((_, x)) = ways[edge].last_mut() {
                *x += (turn as f64 - middle) * step;
            }
        }
    }
    turns
}

const STYLE: &str = "\
<style>
text { font: 13px ui-sans-serif, system-ui, sans-serif; text-anchor: middle; fill: #1f2937; }
.kind, .port { font-size: 11px; fill: #6b7280; }
.box { fill: #f3f6fa; stroke: #64748b; }
.model { fill: #fdf3e3; stroke: #b7791f; }
.edge { fill: none; stroke: #94a3b8; stroke-width: 1.4; }
.wait { stroke-dasharray: 4 4; }
#end path { fill: #94a3b8; }
@media (prefers-color-scheme: dark) {
  text { fill: #e5e7eb; } .kind, .port { fill: #9ca3af; }
  .box { fill: #1e293b; } .model { fill: #3a2c12; }
}
</style>
<defs><marker id=\"end\" viewBox=\"0 0 8 8\" refX=\"4\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
<path d=\"M0 0 L8 4 L0 8 z\"/></marker></defs>
";

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no other control characters.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
