//! Moving rows: embedding tables, selected tokens, the patches of images.

use super::add;
use crate::{Isa, Patches};

/// Row `ids[i]` of a table of `width` columns becomes row i of `out`. Ids are in range.
pub(crate) fn gather_rows(table: &[f32], width: usize, ids: &[u32], out: &mut [f32]) {
    for (out, id) in out.chunks_exact_mut(width.max(1)).zip(ids) {
        out.copy_from_slice(&table[*id as usize * width..][..width]);
    }
}

/// Adds row i of `dout` to row `ids[i]` of `dtable`, in the order of i.
pub(crate) fn scatter_rows(isa: Isa, dtable: &mut [f32], width: usize, ids: &[u32], dout: &[f32]) {
    for (dout, id) in dout.chunks_exact(width.max(1)).zip(ids) {
        add(isa, &mut dtable[*id as usize * width..][..width], dout);
    }
}

/// The patches of `[images, channels, height, width]` pixels as rows of `patches.patch_len()` values.
pub(crate) fn patch_rows(pixels: &[f32], patches: Patches, out: &mut [f32]) {
    let Patches { channels, height, width, size } = patches;
    let across = width / size;
    let mut rows = out.chunks_exact_mut(patches.patch_len());
    for image in pixels.chunks_exact(patches.image_len()) {
        for patch in 0..patches.count() {
            let corner = (patch / across) * size * width + (patch % across) * size;
            let Some(row) = rows.next() else { return };
            for (line, out) in row.chunks_exact_mut(size).enumerate() {
                let (channel, y) = (line / size, line % size);
                debug_assert!(channel < channels);
                out.copy_from_slice(&image[channel * height * width + y * width + corner..][..size]);
            }
        }
    }
}
