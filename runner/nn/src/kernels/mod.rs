//! Arithmetic on slices, forward and backward: no tensors, no allocation in loops, one thread.
//!
//! Matrices are row-major. Each kernel takes the [`Isa`](crate::Isa) to run with; levels agree to rounding.
//! Backward kernels *add* to gradients, because parameters are shared between shards and activations between paths.

/// Defines a kernel from its generic body: compiles the body for each instruction set and picks by [`Isa`](crate::Isa).
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? = $body:path;) => {
        $(#[$meta])*
        #[expect(unsafe_code, reason = "calls code compiled for instructions that the level proves to exist")]
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $type),*) $(-> $out)? {
            use $crate::{isa::Level, kernels::simd};
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $out)? {
                // SAFETY: this function is entered only where the machine has the instructions.
                $body(unsafe { simd::Avx2::new() }, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            fn avx512($($arg: $type),*) $(-> $out)? {
                // SAFETY: this function is entered only where the machine has the instructions.
                $body(unsafe { simd::Avx512::new() }, $($arg),*)
            }
            match isa.level() {
                Level::Scalar => $body(simd::Scalar, $($arg),*),
                // SAFETY: the level was detected on this machine.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: the level was detected on this machine.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(not(target_arch = "x86_64"))]
                Level::Avx2 | Level::Avx512 => $body(simd::Scalar, $($arg),*),
            }
        }
    };
}

mod activation;
mod adamw;
mod attention;
mod contrastive;
mod convolution;
mod convolution_backward;
mod embedding;
mod gradient;
mod group_norm;
mod losses;
mod norm;
mod packed;
mod panels;
mod simd;
#[cfg(test)]
mod tests;
mod tile;
mod windows;
mod winograd;

pub(crate) use activation::{activate, activate_backward, add, add_columns, add_to_rows, multiply};
pub(crate) use adamw::{Adam, adamw};
pub(crate) use attention::{Heads, Queries, attend, attention, attention_backward, attention_scratch};
pub(crate) use contrastive::{contrastive, contrastive_scratch};
pub(crate) use convolution::{Sweep, bounds, depthwise, finish, max_pool, mean_pool, window_rows};
pub(crate) use convolution_backward::{
    add_window_rows, cut_backward, depthwise_backward, max_pool_backward, mean_pool_backward, upsample,
    upsample_backward,
};
pub(crate) use embedding::{gather_rows, patch_rows, scatter_rows};
pub(crate) use gradient::{Pairing, Side, weight_gradient, weight_gradient_scratch};
pub(crate) use group_norm::{group_norm, group_norm_backward};
pub(crate) use losses::{add_scaled, cross_entropy, nearest, row_squares, scale, squares};
pub(crate) use norm::{l2_normalize, l2_normalize_backward, layer_norm, layer_norm_backward};
pub(crate) use packed::{Added, Finish, linear, linear_spread};
pub(crate) use panels::{Lines, Packed, Source};
pub(crate) use windows::{Left, Taps, Windows};
pub(crate) use winograd::{Tiles, Way, Winograd, winograd, winograd_gradient, winograd_gradient_scratch};
