//! Where boxes stand: in layers by the longest way from a beginning, ordered so that few lines cross (Sugiyama's method
//! with barycentres).

/// Sweeps over the layers; more change little.
const SWEEPS: usize = 8;

/// A box or a point on a long line's way, and where it stands.
pub(super) struct Place {
    /// Its layer, from 0.
    pub(super) layer: usize,
    /// Its centre across, in the unit of the widths.
    pub(super) x: f64,
}

/// Places boxes of these widths. Returns a place for each, and for every edge the points on its way, from its beginning
/// to its end, as layer and centre. Edges lead from a box to another; circles are not expected and do no harm.
pub(super) fn place(widths: &[f64], edges: &[(usize, usize)], gap: f64) -> (Vec<Place>, Vec<Vec<(usize, f64)>>) {
    let boxes = widths.len();
    let mut layer = vec![0; boxes];
    // As many rounds as there are boxes reach the longest way.
    for _ in 0..boxes {
        for &(from, to) in edges {
            if layer[to] <= layer[from] {
                layer[to] = (layer[from] + 1).min(boxes);
            }
        }
    }
    // What feeds only late layers, a model for instance, stands right before the first of them.
    for node in (0..boxes).rev() {
        if edges.iter().all(|&(_, to)| to != node)
            && let Some(first) = edges.iter().filter(|&&(from, _)| from == node).map(|&(_, to)| layer[to]).min()
        {
            layer[node] = first.saturating_sub(1);
        }
    }

    // Long edges pass through points in the layers between.
    let mut all: Vec<(usize, f64)> = layer.iter().zip(widths).map(|(&layer, &width)| (layer, width)).collect();
    let mut links = Vec::new();
    let mut ways = Vec::new();
    for &(from, to) in edges {
        let mut way = vec![from];
        for between in layer[from] + 1..layer[to] {
            way.push(all.len());
            all.push((between, 0.0));
        }
        way.push(to);
        links.extend(way.windows(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))));
        ways.push(way);
    }

    let layers = all.iter().map(|(layer, _)| layer + 1).max().unwrap_or(0);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); layers];
    for (node, (layer, _)) in all.iter().enumerate() {
        rows[*layer].push(node);
    }
    let mut x = vec![0.0; all.len()];
    for row in &rows {
        spread(row, &all, gap, &mut x);
    }
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let order: Vec<usize> =
            if down { (1..layers).collect() } else { (0..layers.saturating_sub(1)).rev().collect() };
        for index in order {
            let centre = |node: usize| {
                let beside: Vec<f64> = links
                    .iter()
                    .filter_map(|&(from, to)| match (to == node && down, from == node && !down) {
                        (true, _) => Some(x[from]),
                        (_, true) => Some(x[to]),
                        _ => None,
                    })
                    .collect();
                if beside.is_empty() { x[node] } else { beside.iter().sum::<f64>() / beside.len() as f64 }
            };
            let mut wanted: Vec<(f64, usize)> = rows[index].iter().map(|&node| (centre(node), node)).collect();
            wanted.sort_by(|a, b| a.0.total_cmp(&b.0));
            rows[index] = wanted.iter().map(|&(_, node)| node).collect();
            settle(&wanted, &all, gap, &mut x);
        }
    }
    let places = (0..boxes).map(|node| Place { layer: layer[node], x: x[node] }).collect();
    let ways = ways.iter().map(|way| way.iter().map(|&node| (all[node].0, x[node])).collect()).collect();
    (places, ways)
}

/// Side by side, the middle at 0.
fn spread(row: &[usize], all: &[(usize, f64)], gap: f64, x: &mut [f64]) {
    let width: f64 = row.iter().map(|&node| all[node].1 + gap).sum();
    let mut left = -width / 2.0;
    for &node in row {
        x[node] = left + (all[node].1 + gap) / 2.0;
        left += all[node].1 + gap;
    }
}

/// As near to the wanted centres as their widths let them, in this order.
fn settle(wanted: &[(f64, usize)], all: &[(usize, f64)], gap: f64, x: &mut [f64]) {
    let apart = |a: usize, b: usize| (all[a].1 + all[b].1) / 2.0 + gap;
    // From the left each moves right as far as it must, from the right each moves left; the mean of both keeps distances.
    let mut from_left: Vec<f64> = Vec::with_capacity(wanted.len());
    let mut before: Option<(usize, f64)> = None;
    for &(centre, node) in wanted {
        let at = before.map_or(centre, |(other, at)| centre.max(at + apart(other, node)));
        from_left.push(at);
        before = Some((node, at));
    }
    let mut after: Option<(usize, f64)> = None;
    for (&(centre, node), left) in wanted.iter().zip(&from_left).rev() {
        let at = after.map_or(centre, |(other, at)| centre.min(at - apart(other, node)));
        x[node] = f64::midpoint(at, *left);
        after = Some((node, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_a_layer_do_not_touch_and_edges_lead_down() {
        let widths = [80.0, 120.0, 60.0, 90.0, 100.0, 70.0];
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (5, 3), (3, 4), (0, 4)];
        let (places, ways) = place(&widths, &edges, 20.0);
        for (i, a) in places.iter().enumerate() {
            for (j, b) in places.iter().enumerate().skip(i + 1) {
                let apart = (widths[i] + widths[j]) / 2.0;
                assert!(a.layer != b.layer || (a.x - b.x).abs() >= apart, "{i} and {j}");
            }
        }
        assert!(edges.iter().all(|&(from, to)| places[from].layer < places[to].layer));
        assert_eq!(places[5].layer, places[3].layer - 1, "a model stands near its reader");
        assert_eq!(ways[6].len(), 4, "the long edge passes two layers");
    }

    #[test]
    fn nothing_and_a_circle_do_no_harm() {
        assert!(place(&[], &[], 1.0).0.is_empty());
        assert_eq!(place(&[1.0, 1.0], &[(0, 1), (1, 0)], 1.0).0.len(), 2);
    }
}
