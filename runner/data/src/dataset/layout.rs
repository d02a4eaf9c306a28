//! Where shards and chunks end: a function of the rows' sizes alone.

use std::ops::Range;

/// Most rows of a shard.
pub(super) const SHARD_ROWS: usize = 1024;
/// Most bytes of a shard, unless one row is larger.
const SHARD_BYTES: u64 = 256 << 20;
/// Most rows of a chunk.
pub(super) const CHUNK_ROWS: usize = 64;
/// Most bytes of a chunk, unless one row is larger.
pub(super) const CHUNK_BYTES: u64 = 16 << 20;

/// Ends of shards and chunks, as row numbers. Every shard's end is a chunk's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    shards: Vec<usize>,
    chunks: Vec<usize>,
}

impl Layout {
    /// Cuts rows of these sizes (bytes), in order, whenever the next row would pass a bound.
    pub(super) fn new(sizes: impl IntoIterator<Item = u64>) -> Self {
        let mut layout = Self::default();
        let (mut shard, mut chunk, mut row) = ((0usize, 0u64), (0usize, 0u64), 0);
        for size in sizes {
            let over = |(rows, bytes): (usize, u64), most_rows: usize, most_bytes: u64| {
                rows > 0 && (rows >= most_rows || bytes.saturating_add(size) > most_bytes)
            };
            let ends_shard = over(shard, SHARD_ROWS, SHARD_BYTES);
            if ends_shard {
                layout.shards.push(row);
                shard = (0, 0);
            }
            if ends_shard || over(chunk, CHUNK_ROWS, CHUNK_BYTES) {
                layout.chunks.push(row);
                chunk = (0, 0);
            }
            for (rows, bytes) in [&mut shard, &mut chunk] {
                *rows += 1;
                *bytes = bytes.saturating_add(size);
            }
            row += 1;
        }
        if row > 0 {
            layout.shards.push(row);
            layout.chunks.push(row);
        }
        layout
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.shards.last().copied().unwrap_or(0)
    }

    /// The rows of each shard; with `limit`, of those that the first rows reach into.
    pub(super) fn shards(&self, limit: Option<usize>) -> impl Iterator<Item = Range<usize>> {
        let cut = limit.unwrap_or(usize::MAX).min(self.len());
        let starts = std::iter::once(0).chain(self.shards.iter().copied());
        let ranges = starts.zip(&self.shards).map(move |(start, &end)| start..end.min(cut));
        ranges.take_while(|rows| !rows.is_empty())
    }

    /// The chunks of a shard's rows.
    pub(super) fn chunks(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + Send + 'static {
        let inner = self.chunks.iter().copied().filter(|end| (rows.start + 1..rows.end).contains(end));
        let ends: Vec<usize> = inner.chain([rows.end]).collect();
        let mut start = rows.start;
        ends.into_iter().map(move |end| std::mem::replace(&mut start, end)..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_bytes_bound_shards_and_chunks() {
        let layout = Layout::new(std::iter::repeat_n(784, 2500));
        assert_eq!(layout.shards(None).collect::<Vec<_>>(), [0..1024, 1024..2048, 2048..2500]);
        assert_eq!(layout.shards(Some(1025)).collect::<Vec<_>>(), [0..1024, 1024..1025]);
        assert_eq!(layout.chunks(2048..2200).collect::<Vec<_>>(), [2048..2112, 2112..2176, 2176..2200]);
        assert_eq!(layout.shards(Some(0)).count(), 0);

        let large = Layout::new([10, CHUNK_BYTES, 10, SHARD_BYTES * 2, 1]);
        assert_eq!(large.shards(None).collect::<Vec<_>>(), [0..3, 3..4, 4..5]);
        assert_eq!(large.chunks(0..3).collect::<Vec<_>>(), [0..1, 1..2, 2..3]);
    }
}
