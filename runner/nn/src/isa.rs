//! The instruction sets that kernels are written for, detected when the program runs.

use std::sync::OnceLock;

/// A set of instructions that this machine has.
///
/// Values come only from detection, so that holding one proves that its instructions may be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Level);

/// Instruction sets, each a superset of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// One number at a time: what every machine has.
    Scalar,
    /// AVX2 with fused multiply-add, 8 numbers.
    Avx2,
    /// AVX-512F, 16 numbers.
    Avx512,
}

impl Isa {
    /// Every set that this machine has, the best last.
    pub fn supported() -> Vec<Isa> {
        let mut levels = vec![Isa(Level::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
            if avx2 {
                levels.push(Isa(Level::Avx2));
            }
            if avx2 && std::arch::is_x86_feature_detected!("avx512f") {
                levels.push(Isa(Level::Avx512));
            }
        }
        levels
    }

    /// The best set that this machine has and `RUNNER_ISA` (`scalar`, `avx2`, `avx512`) allows; read once.
    ///
    /// The switch is for measuring and for comparing levels.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let limit = std::env::var("RUNNER_ISA").unwrap_or_default();
            let allowed = |isa: &Isa| match limit.as_str() {
                "scalar" => isa.0 == Level::Scalar,
                "avx2" => isa.0 <= Level::Avx2,
                _ => true,
            };
            Isa::supported().into_iter().rfind(allowed).unwrap_or(Isa(Level::Scalar))
        })
    }

    /// `scalar`, `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    pub(crate) fn level(self) -> Level {
        self.0
    }
}
