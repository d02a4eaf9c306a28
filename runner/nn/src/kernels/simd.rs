//! Vectors of f32 for each instruction set.

#![expect(unsafe_code, reason = "vector instructions; every use is behind a type that only detection hands out")]

/// A vector of `LANES` f32 values and its arithmetic.
///
/// The methods must be inlined into a function compiled for the instruction set, which [`kernel!`](super::kernel)
/// makes; a value of an implementing type exists only there.
pub(crate) trait Simd: Copy {
    /// The vector.
    type V: Copy;
    /// Values in a vector.
    const LANES: usize;

    fn splat(self, x: f32) -> Self::V;
    /// The first `LANES` values of a slice that has as many.
    fn load(self, x: &[f32]) -> Self::V;
    /// A slice of fewer than `LANES` values, filled up with `fill`.
    fn load_part(self, x: &[f32], fill: f32) -> Self::V;
    /// Writes the first `LANES` values of a slice that has as many.
    fn store(self, v: Self::V, out: &mut [f32]);
    /// Fills a slice of fewer than `LANES` values.
    fn store_part(self, v: Self::V, out: &mut [f32]);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a·b + c`, rounded once where the machine can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// The nearest integer.
    fn round(self, a: Self::V) -> Self::V;
    /// 2ⁿ for integers n in −126..=127.
    fn exp2i(self, n: Self::V) -> Self::V;
    /// `a` where `x` is negative, else `b`.
    fn where_negative(self, x: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all lanes, in a fixed order.
    fn sum(self, a: Self::V) -> f32;
    /// The largest lane.
    fn largest(self, a: Self::V) -> f32;

    /// Asks for the cache line of a place that is read soon, to be brought into the second cache. Any place will do.
    #[inline(always)]
    fn prefetch(self, _: *const f32) {}

    /// The vector that starts at `x[i]`, filled up with `fill` beyond the end of `x`.
    #[inline(always)]
    fn at(self, x: &[f32], i: usize, fill: f32) -> Self::V {
        let rest = &x[i..];
        if rest.len() >= Self::LANES { self.load(rest) } else { self.load_part(rest, fill) }
    }
    /// Writes what [`Simd::at`] reads.
    #[inline(always)]
    fn put(self, v: Self::V, out: &mut [f32], i: usize) {
        let rest = &mut out[i..];
        if rest.len() >= Self::LANES { self.store(v, rest) } else { self.store_part(v, rest) }
    }
}

/// One number at a time.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

impl Simd for Scalar {
    type V = f32;
    const LANES: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> f32 {
        x[0]
    }
    #[inline(always)]
    fn load_part(self, _: &[f32], fill: f32) -> f32 {
        fill
    }
    #[inline(always)]
    fn store(self, v: f32, out: &mut [f32]) {
        out[0] = v;
    }
    #[inline(always)]
    fn store_part(self, _: f32, _: &mut [f32]) {}
    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    #[inline(always)]
    fn max(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    #[inline(always)]
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
    #[inline(always)]
    fn sqrt(self, a: f32) -> f32 {
        a.sqrt()
    }
    #[inline(always)]
    fn round(self, a: f32) -> f32 {
        a.round_ties_even()
    }
    #[inline(always)]
    fn exp2i(self, n: f32) -> f32 {
        f32::from_bits(((n as i32 + 127) as u32) << 23)
    }
    #[inline(always)]
    fn where_negative(self, x: f32, a: f32, b: f32) -> f32 {
        if x < 0.0 { a } else { b }
    }
    #[inline(always)]
    fn sum(self, a: f32) -> f32 {
        a
    }
    #[inline(always)]
    fn largest(self, a: f32) -> f32 {
        a
    }
}

/// Implements [`Simd`] by the intrinsics of one vector type.
#[cfg(target_arch = "x86_64")]
macro_rules! x86 {
    ($name:ident, $vector:ident, $lanes:literal, $doc:literal,
     { $($method:ident($($arg:ident),*) = $intrinsic:ident;)* }
     load = $load:ident, store = $store:ident, splat = $splat:ident;
     $($rest:item)*) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub(crate) struct $name(());

        impl $name {
            /// # Safety
            /// The machine must have the instructions.
            #[inline(always)]
            pub(crate) unsafe fn new() -> Self {
                Self(())
            }
        }

        impl Simd for $name {
            type V = $vector;
            const LANES: usize = $lanes;

            $(
                #[inline(always)]
                fn $method(self, $($arg: $vector),*) -> $vector {
                    // SAFETY: `self` proves that the machine has the instruction.
                    unsafe { $intrinsic($($arg),*) }
                }
            )*
            #[inline(always)]
            fn splat(self, x: f32) -> $vector {
                // SAFETY: `self` proves that the machine has the instruction.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            fn load(self, x: &[f32]) -> $vector {
                let x = &x[..$lanes];
                // SAFETY: `self` proves that the machine has the instruction; the slice has as many values.
                unsafe { $load(x.as_ptr()) }
            }
            #[inline(always)]
            fn store(self, v: $vector, out: &mut [f32]) {
                let out = &mut out[..$lanes];
                // SAFETY: `self` proves that the machine has the instruction; the slice has as many values.
                unsafe { $store(out.as_mut_ptr(), v) }
            }
            #[inline(always)]
            fn prefetch(self, place: *const f32) {
                // SAFETY: `self` proves that the machine has the instruction, which does not fail on any address.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) }
            }
            $($rest)*
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::Simd;
    use std::arch::x86_64::*;

    x86! {
        Avx2, __m256, 8, "AVX2 with fused multiply-add.",
        {
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        max(a, b) = _mm256_max_ps;
        min(a, b) = _mm256_min_ps;
        fma(a, b, c) = _mm256_fmadd_ps;
        sqrt(a) = _mm256_sqrt_ps;
        }
        load = _mm256_loadu_ps, store = _mm256_storeu_ps, splat = _mm256_set1_ps;

        #[inline(always)]
        fn load_part(self, x: &[f32], fill: f32) -> __m256 {
            let mut whole = [fill; 8];
            whole[..x.len()].copy_from_slice(x);
            self.load(&whole)
        }
        #[inline(always)]
        fn store_part(self, v: __m256, out: &mut [f32]) {
            let mut whole = [0.0; 8];
            self.store(v, &mut whole);
            out.copy_from_slice(&whole[..out.len()]);
        }
        #[inline(always)]
        fn round(self, a: __m256) -> __m256 {
            // SAFETY: `self` proves that the machine has the instruction.
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        fn exp2i(self, n: __m256) -> __m256 {
            // SAFETY: `self` proves that the machine has the instructions.
            unsafe {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            }
        }
        #[inline(always)]
        fn where_negative(self, x: __m256, a: __m256, b: __m256) -> __m256 {
            // SAFETY: `self` proves that the machine has the instructions.
            unsafe { _mm256_blendv_ps(b, a, _mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_setzero_ps())) }
        }
        #[inline(always)]
        fn sum(self, a: __m256) -> f32 {
            let mut x = [0.0; 8];
            self.store(a, &mut x);
            ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7]))
        }
        #[inline(always)]
        fn largest(self, a: __m256) -> f32 {
            let mut x = [0.0; 8];
            self.store(a, &mut x);
            x.into_iter().fold(f32::NEG_INFINITY, f32::max)
        }
    }

    x86! {
        Avx512, __m512, 16, "AVX-512F.",
        {
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        max(a, b) = _mm512_max_ps;
        min(a, b) = _mm512_min_ps;
        fma(a, b, c) = _mm512_fmadd_ps;
        sqrt(a) = _mm512_sqrt_ps;
        }
        load = _mm512_loadu_ps, store = _mm512_storeu_ps, splat = _mm512_set1_ps;

        #[inline(always)]
        fn load_part(self, x: &[f32], fill: f32) -> __m512 {
            let (mask, fill) = (first(x.len()), self.splat(fill));
            // SAFETY: `self` proves that the machine has the instruction, which touches only the slice's values.
            unsafe { _mm512_mask_loadu_ps(fill, mask, x.as_ptr()) }
        }
        #[inline(always)]
        fn store_part(self, v: __m512, out: &mut [f32]) {
            let mask = first(out.len());
            // SAFETY: `self` proves that the machine has the instruction, which touches only the slice's values.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, v) }
        }
        #[inline(always)]
        fn round(self, a: __m512) -> __m512 {
            // SAFETY: `self` proves that the machine has the instruction.
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        fn exp2i(self, n: __m512) -> __m512 {
            // SAFETY: `self` proves that the machine has the instructions.
            unsafe {
                let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
            }
        }
        #[inline(always)]
        fn where_negative(self, x: __m512, a: __m512, b: __m512) -> __m512 {
            // SAFETY: `self` proves that the machine has the instructions.
            unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, _mm512_setzero_ps()), b, a) }
        }
        #[inline(always)]
        fn sum(self, a: __m512) -> f32 {
            // SAFETY: `self` proves that the machine has the instructions.
            unsafe { _mm512_reduce_add_ps(a) }
        }
        #[inline(always)]
        fn largest(self, a: __m512) -> f32 {
            // SAFETY: `self` proves that the machine has the instructions.
            unsafe { _mm512_reduce_max_ps(a) }
        }
    }

    /// A mask of the first `n < 16` lanes.
    #[inline(always)]
    fn first(n: usize) -> __mmask16 {
        debug_assert!(n < 16);
        ((1u32 << n) - 1) as __mmask16
    }
}
