//! Products of matrices too small for the library: a register tile at a time, operands where they lie.

#![expect(unsafe_code, reason = "the inner loop reads by pointers whose bounds are checked once before it")]

use super::simd::Simd;

/// Rows of a register tile. With two vectors a row it fills the 16 registers of AVX2.
const ROWS: usize = 6;

/// The left operand of a small product: element (i, p) is `values[i·row + p·column]`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) row: usize,
    pub(super) column: usize,
}

/// The right operand or the result: element (p, j) is `values[p·row + j]`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) row: usize,
}

/// `c[i·c_row + j] = Σₚ a(i, p)·b(p, j)` for i < m, j < n, p < k, or added to what is there.
#[inline(always)]
pub(super) fn small_product<S: Simd>(
    s: S,
    (m, n, k): (usize, usize, usize),
    a: Left<'_>,
    b: Rows<'_>,
    c: &mut [f32],
    c_row: usize,
    add: bool,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!((m - 1) * a.row + (k - 1) * a.column < a.values.len(), "left operand in bounds");
    assert!((k - 1) * b.row + n <= b.values.len(), "right operand in bounds");
    assert!((m - 1) * c_row + n <= c.len(), "result in bounds");
    let mut i = 0;
    while i < m {
        let rows = ROWS.min(m - i);
        let strip = Strip {
            a: a.values.as_ptr().wrapping_add(i * a.row),
            a_row: a.row,
            a_column: a.column,
            b: b.values.as_ptr(),
            b_row: b.row,
            c: c.as_mut_ptr().wrapping_add(i * c_row),
            c_row,
            n,
            k,
            add,
        };
        // SAFETY: rows i..i + rows are below m, and the assertions above cover every element of the strip.
        unsafe {
            match rows {
                1 => strip.run::<S, 1>(s),
                2 => strip.run::<S, 2>(s),
                3 => strip.run::<S, 3>(s),
                4 => strip.run::<S, 4>(s),
                5 => strip.run::<S, 5>(s),
                _ => strip.run::<S, ROWS>(s),
            }
        }
        i += rows;
    }
}

/// Some rows of the result, all columns.
struct Strip {
    a: *const f32,
    a_row: usize,
    a_column: usize,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    n: usize,
    k: usize,
    add: bool,
}

impl Strip {
    /// # Safety
    /// `a` has M rows and k columns, `b` k rows and n columns, `c` M rows and n columns.
    #[inline(always)]
    unsafe fn run<S: Simd, const M: usize>(&self, s: S) {
        let mut j = 0;
        // SAFETY: as the caller promises; j + columns ≤ n.
        unsafe {
            while j + 2 * S::LANES <= self.n {
                self.tile::<S, M, 2, false>(s, j);
                j += 2 * S::LANES;
            }
            if j + S::LANES <= self.n {
                self.tile::<S, M, 1, false>(s, j);
                j += S::LANES;
            }
            if j < self.n {
                self.tile::<S, M, 1, true>(s, j);
            }
        }
    }

    /// Columns j.. of the strip: N vectors, or, with `REST`, what is left, which is less than one.
    ///
    /// # Safety
    /// As for [`Strip::run`], and those columns are below n.
    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const N: usize, const REST: bool>(&self, s: S, j: usize) {
        let length = if REST { self.n - j } else { S::LANES };
        let mut sums = [[s.splat(0.0); N]; M];
        for p in 0..self.k {
            let mut right = [s.splat(0.0); N];
            for (v, right) in right.iter_mut().enumerate() {
                // SAFETY: row p < k, columns below n.
                let row = unsafe { std::slice::from_raw_parts(self.b.add(p * self.b_row + j + v * S::LANES), length) };
                *right = if REST { s.load_part(row, 0.0) } else { s.load(row) };
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: row i < M, column p < k.
                let left = s.splat(unsafe { *self.a.add(i * self.a_row + p * self.a_column) });
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = s.fma(left, right, *sum);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                // SAFETY: row i < M, columns below n; nobody else holds the result.
                let out =
                    unsafe { std::slice::from_raw_parts_mut(self.c.add(i * self.c_row + j + v * S::LANES), length) };
                let sum = if self.add { s.add(s.at(out, 0, 0.0), sum) } else { sum };
                s.put(sum, out, 0);
            }
        }
    }
}
