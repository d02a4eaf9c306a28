//! Kernels, and the backends over them.
