//! Every vector of one set against every vector of another, a tile at a time: never the whole matrix, never more than a block
//! of each set.

use std::sync::{Mutex, PoisonError};

use runner_contract::{Context, Need, Rows, StageError};
use runner_nn::{Workers, dot_products};

use crate::vectors::normalize;

/// Values of a block of rows: 64 MiB.
const BLOCK: usize = 16 << 20;
/// Rows of a panel: what one thread works on.
const PANEL: usize = 256;
/// Columns of a tile.
const COLUMNS: usize = 1024;

/// Cosines of some rows with some others.
pub(crate) struct Tile<'a> {
    /// Place of the first row in its set.
    pub(crate) row: usize,
    /// Place of the first column in its set.
    pub(crate) column: usize,
    /// Columns.
    pub(crate) width: usize,
    /// `[rows, width]`
    pub(crate) cosines: &'a [f32],
}

impl Tile<'_> {
    /// Its rows, with their places in their set.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (usize, &[f32])> {
        (self.row..).zip(self.cosines.chunks_exact(self.width.max(1)))
    }
}

/// A set of embeddings to read.
pub(crate) struct Set<'a> {
    /// The rows.
    pub(crate) rows: &'a dyn Rows,
    /// Their embedding column.
    pub(crate) column: &'a str,
}

/// Consecutive rows of a set, each of length 1.
struct Block {
    /// Place of the first.
    first: usize,
    /// `[rows, dim]`
    vectors: Vec<f32>,
    dim: usize,
}

impl Block {
    fn len(&self) -> usize {
        self.vectors.len().checked_div(self.dim).unwrap_or(0)
    }
}

impl Set<'_> {
    /// Reads the set block by block; stops at the first error.
    fn blocks(&self, mut take: impl FnMut(Block) -> Result<(), StageError>) -> Result<(), StageError> {
        let mut block = Block { first: 0, vectors: Vec::new(), dim: 0 };
        for rows in self.rows.scan(&[Need::column(self.column)])? {
            let rows = rows?;
            let (values, dim) = rows.vectors(self.column)?;
            if block.dim != dim && block.dim != 0 {
                return Err(StageError::new(format!("embeddings of {} and of {dim} components in one set", block.dim)));
            }
            if let Some(bad) = values.iter().position(|value| !value.is_finite()) {
                let id = rows.ids()?.value(bad / dim.max(1)).to_owned();
                return Err(StageError::new(format!("row `{id}`: its embedding is not finite")));
            }
            if block.vectors.len() + values.len() > BLOCK && !block.vectors.is_empty() {
                let next = block.first + block.len();
                take(std::mem::replace(&mut block, Block { first: next, vectors: Vec::new(), dim }))?;
            }
            block.dim = dim;
            let start = block.vectors.len();
            block.vectors.extend_from_slice(values);
            block.vectors[start..].chunks_exact_mut(dim.max(1)).for_each(normalize);
        }
        if block.vectors.is_empty() { Ok(()) } else { take(block) }
    }
}

/// Shows `visit` the cosines of all rows of one set with all of another. `start` makes the state of a panel of rows (their first
/// place, how many), which is shown all of its tiles, in the order of the columns. Gives the states in the order of the rows.
///
/// States depend on the sets alone, not on the number of threads.
pub(crate) fn compare<S: Send>(
    context: &Context,
    rows: &Set<'_>,
    columns: &Set<'_>,
    start: impl Fn(usize, usize) -> S,
    visit: impl Fn(&mut S, &Tile<'_>) + Send + Sync,
) -> Result<Vec<S>, StageError> {
    let workers = Workers::new(context.threads).map_err(|error| StageError::new(error.to_string()))?;
    // A small set of columns is read once.
    let mut kept: Option<Block> = None;
    let mut states = Vec::new();
    rows.blocks(|panel_rows| {
        let panels: Vec<_> = panel_rows.vectors.chunks(PANEL * panel_rows.dim.max(1)).collect();
        let first = |panel: usize| panel_rows.first + panel * PANEL;
        let of_block: Vec<_> = panels
            .iter()
            .enumerate()
            .map(|(i, panel)| Mutex::new(start(first(i), panel.len() / panel_rows.dim.max(1))))
            .collect();
        let against = |block: &Block| {
            if block.dim != panel_rows.dim {
                let (one, other) = (panel_rows.dim, block.dim);
                return Err(StageError::new(format!("embeddings of {one} components against some of {other}")));
            }
            let stopped = workers.map(panels.len(), |i| -> Result<(), StageError> {
                let mut state = of_block[i].lock().unwrap_or_else(PoisonError::into_inner);
                let height = panels[i].len() / block.dim.max(1);
                let mut cosines = vec![0.0; height * (COLUMNS + 1)];
                let mut at = 0;
                while at < block.len() {
                    context.check()?;
                    // A single column would be computed in another way, with other last bits: it joins those before it.
                    let left = block.len() - at;
                    let width = if left == COLUMNS + 1 { left } else { left.min(COLUMNS) };
                    let cosines = &mut cosines[..height * width];
                    dot_products(panels[i], &block.vectors[at * block.dim..][..width * block.dim], block.dim, cosines);
                    visit(&mut state, &Tile { row: first(i), column: block.first + at, width, cosines });
                    at += width;
                }
                Ok(())
            });
            stopped.into_iter().collect::<Result<(), _>>()
        };
        match &kept {
            Some(block) => against(block)?,
            None => {
                let mut only = None;
                columns.blocks(|block| {
                    against(&block)?;
                    only = (block.first == 0).then_some(block);
                    Ok(())
                })?;
                kept = only;
            }
        }
        states.extend(of_block.into_iter().map(|state| state.into_inner().unwrap_or_else(PoisonError::into_inner)));
        Ok(())
    })?;
    Ok(states)
}

/// The best of many columns for one row: by cosine, equals by place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nearest {
    /// Best first.
    pub(crate) found: Vec<(f32, usize)>,
}

impl Nearest {
    /// Takes a row of a tile whose first column has that place; keeps the best `most`. Columns that are not `wanted` are passed over.
    pub(crate) fn push(&mut self, most: usize, first: usize, cosines: &[f32], wanted: impl Fn(usize) -> bool) {
        const LANES: usize = 16;
        for (i, lanes) in cosines.chunks(LANES).enumerate() {
            // Most columns are not among the best: whole lanes are passed over at once.
            let worst = self.worst(most);
            if !lanes.iter().fold(false, |any, &cosine| any | (cosine > worst)) {
                continue;
            }
            for (place, &cosine) in (first + i * LANES..).zip(lanes) {
                if cosine > self.worst(most) && wanted(place) {
                    // Behind its equals, which come earlier.
                    let at = self.found.partition_point(|(other, _)| *other >= cosine);
                    self.found.truncate(most.saturating_sub(1));
                    self.found.insert(at.min(self.found.len()), (cosine, place));
                }
            }
        }
    }

    fn worst(&self, most: usize) -> f32 {
        if self.found.len() < most { f32::NEG_INFINITY } else { self.found.last().map_or(f32::INFINITY, |last| last.0) }
    }
}

#[cfg(test)]
mod tests {
    use runner_contract::{Batch, ColumnData, Digest};

    use super::*;
    use crate::testing::{Memory, context};

    fn set(n: usize, dim: usize, salt: usize) -> Batch {
        let values = (0..n * dim).map(|i| (((i + salt) * 7919 % 1013) as f32 - 500.0) / 100.0).collect();
        let ids = (0..n).map(|i| format!("r{i}")).collect();
        Batch::new(ids).with("embedding", ColumnData::Embeddings(values, dim, Digest::of(b"m"))).unwrap()
    }

    #[test]
    fn every_pair_is_seen_once_in_order_and_threads_change_nothing() {
        use runner_contract::Access as _;
        let (a, b) = (set(600, 6, 0), set(2049, 6, 5));
        let memory = Memory([("a".to_owned(), a.clone()), ("b".to_owned(), b.clone())].into());
        let (rows, columns) = (memory.rows("a").unwrap(), memory.rows("b").unwrap());
        let run = |threads| {
            let mut context = context(&[]);
            context.threads = threads;
            let (rows, columns) = (rows.as_ref(), columns.as_ref());
            let (rows, columns) = (Set { rows, column: "embedding" }, Set { rows: columns, column: "embedding" });
            let visit = |state: &mut Vec<Vec<f32>>, tile: &Tile<'_>| {
                let first = tile.row;
                tile.rows().for_each(|(row, cosines)| state[row - first].extend(cosines));
            };
            let states = compare(&context, &rows, &columns, |_, n| vec![Vec::new(); n], visit).unwrap();
            states.into_iter().flatten().collect::<Vec<_>>()
        };
        let all = run(1);
        assert_eq!(all, run(3));
        assert_eq!((all.len(), all.iter().map(Vec::len).sum::<usize>()), (600, 600 * 2049));
        let unit = |batch: &Batch, row: usize| {
            let mut vector = batch.vectors("embedding").unwrap().0[row * 6..][..6].to_vec();
            normalize(&mut vector);
            vector
        };
        for (i, j) in [(0, 0), (255, 1023), (256, 1024), (599, 2048)] {
            let expected: f32 = unit(&a, i).iter().zip(unit(&b, j)).map(|(x, y)| x * y).sum();
            assert!((all[i][j] - expected).abs() < 1e-6, "{i} {j}");
        }
    }

    #[test]
    fn the_nearest_are_the_first_of_a_stable_sort() {
        let cosines: Vec<f32> = (0..1000).map(|i| ((i * 37) % 50) as f32).collect();
        let mut sorted: Vec<_> = cosines.iter().copied().zip(100usize..).filter(|(_, place)| place % 3 > 0).collect();
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
        for most in [1, 5, 10, 2000] {
            let mut nearest = Nearest::default();
            for (i, part) in cosines.chunks(77).enumerate() {
                nearest.push(most, 100 + i * 77, part, |place| place % 3 > 0);
            }
            assert_eq!(nearest.found, sorted[..most.min(sorted.len())]);
        }
    }
}
