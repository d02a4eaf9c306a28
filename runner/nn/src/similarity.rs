//! Dot products of sets of vectors: every row of one with every row of the other, as scoring and retrieval need them.
//!
//! Within a call a value depends on its two vectors alone, not on its place or on the number of threads: equal vectors have equal
//! products, to the last bit.

use rayon::prelude::*;

use crate::{
    Isa, Workers,
    kernels::{Finish, Left, Packed, linear, linear_spread},
};

/// `out[i·m + j] = a[i]·b[j]` for `a` `[n, dim]` and `b` `[m, dim]`, row-major, on the calling thread.
///
/// # Panics
/// If `out` is shorter than `n·m`.
pub fn dot_products(a: &[f32], b: &[f32], dim: usize, out: &mut [f32]) {
    if dim == 0 {
        return out.fill(0.0);
    }
    let map = Packed::new(Isa::best(), b.len() / dim, dim, b);
    linear(Left::Rows(a), &map, 0..map.panels(), Finish::NOTHING, out);
}

impl Workers {
    /// As [`dot_products`], on these threads.
    ///
    /// # Panics
    /// If `out` is shorter than `n·m`.
    pub fn dot_products(&self, a: &[f32], b: &[f32], dim: usize, out: &mut [f32]) {
        if dim == 0 {
            return out.fill(0.0);
        }
        self.run(|| {
            let map = Packed::new(self.isa(), b.len() / dim, dim, b);
            let parts = self.parts(a.len() / dim, map.panels());
            linear_spread(Left::Rows(a), &map, 0..map.panels(), Finish::NOTHING, parts, out);
        });
    }

    /// What `work` makes of each of `0..count`, in that order.
    pub fn map<T: Send>(&self, count: usize, work: impl Fn(usize) -> T + Send + Sync) -> Vec<T> {
        self.run(|| (0..count).into_par_iter().map(work).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(n: usize, dim: usize) -> Vec<f32> {
        (0..n * dim).map(|i| ((i * 7919 % 1009) as f32 - 500.0) / 313.0).collect()
    }

    #[test]
    fn products_are_those_of_each_pair_whatever_the_threads() {
        for (n, m, dim) in [(1, 1, 1), (3, 5, 7), (64, 300, 33), (65, 129, 512), (0, 3, 4), (3, 0, 4), (2, 2, 0)] {
            let (a, b) = (vectors(n, dim), vectors(m, dim));
            let (n, m) = if dim == 0 { (2, 2) } else { (n, m) };
            let mut one = vec![f32::NAN; n * m];
            dot_products(&a, &b, dim, &mut one);
            for threads in [1, 3] {
                let mut many = vec![f32::NAN; n * m];
                Workers::new(threads).unwrap().dot_products(&a, &b, dim, &mut many);
                assert!(one == many, "{n} {m} {dim}");
            }
            for (i, row) in one.chunks_exact(m.max(1)).enumerate() {
                for (j, &found) in row.iter().enumerate() {
                    let pairs = a[i * dim..][..dim].iter().zip(&b[j * dim..][..dim]);
                    let exact: f64 = pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                    assert!((f64::from(found) - exact).abs() < 1e-3, "{found} {exact}");
                }
            }
        }
    }

    #[test]
    fn equal_vectors_have_equal_products_wherever_they_stand() {
        let dim = 512;
        let (query, candidate) = (vectors(1, dim), &vectors(2, dim)[dim..]);
        for (n, m) in [(1, 1000), (7, 1000), (64, 257), (100, 129), (2, 2)] {
            let (a, b) = (query.repeat(n), candidate.repeat(m));
            let mut out = vec![0.0; n * m];
            Workers::new(2).unwrap().dot_products(&a, &b, dim, &mut out);
            assert!(out.iter().all(|&x| x == out[0]), "{n} × {m}");
        }
    }

    #[test]
    fn results_are_in_order() {
        assert_eq!(Workers::new(3).unwrap().map(100, |i| i), (0..100).collect::<Vec<_>>());
    }
}
