//! Matrix products by the crate `gemm`, one thread.

#![expect(unsafe_code, reason = "the library takes pointers; the views prove that they are in bounds")]

use rayon::prelude::*;

/// A matrix in a slice, by its strides.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix of `values.len() / columns` rows.
    pub(crate) fn new(values: &'a [f32], columns: usize) -> Self {
        let rows = values.len() / columns.max(1);
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The same values with rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `out = a·b`, or `out += a·b`; `out` is row-major with the width of `b`.
pub(crate) fn product(a: View<'_>, b: View<'_>, out: &mut [f32], add: bool) {
    assert!(a.rows * b.columns <= out.len(), "room for a matrix product");
    // SAFETY: `out` has room for the whole product.
    unsafe { part(a, b, 0, b.columns, Target(out.as_mut_ptr()), add) }
}

/// As [`product`] without adding, on all threads of the pool it is called in: each computes `columns` columns at a time.
pub(crate) fn product_spread(a: View<'_>, b: View<'_>, out: &mut [f32], columns: usize) {
    assert!(a.rows * b.columns <= out.len(), "room for a matrix product");
    let target = Target(out.as_mut_ptr());
    let columns = columns.max(2);
    // The library computes the product with a single vector in another way, with other last bits: a column left alone at the
    // end joins those before it.
    let parts = b.columns.div_ceil(columns) - usize::from(b.columns > 1 && b.columns % columns == 1);
    (0..parts).into_par_iter().for_each(|i| {
        let first = i * columns;
        let end = if i + 1 == parts { b.columns } else { first + columns };
        // SAFETY: `out` has room for the whole product, and no two parts share a column.
        unsafe { part(a, b, first, end - first, target, false) }
    });
}

/// The start of a product.
#[derive(Clone, Copy)]
struct Target(*mut f32);

// SAFETY: threads write to different columns, see `product_spread`.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// `columns` columns of a product, from `first` on.
///
/// # Safety
/// `out` has room for the whole product, and nobody else uses those columns.
unsafe fn part(a: View<'_>, b: View<'_>, first: usize, columns: usize, out: Target, add: bool) {
    assert_eq!(a.columns, b.rows, "inner dimensions of a matrix product");
    if a.rows == 0 || columns == 0 {
        return;
    }
    // SAFETY: a view's rows · columns values lie within its slice; `out` as the caller promises.
    unsafe {
        gemm::gemm(
            a.rows,
            columns,
            a.columns,
            out.0.add(first),
            1,
            b.columns as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr().add(if b.rows == 0 { 0 } else { first * b.column_stride }),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
