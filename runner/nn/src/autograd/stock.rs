//! dfdx's own operations, on any of its devices: the GPU, and the reference for our kernels' gradients.
