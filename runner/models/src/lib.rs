//! Models written once over a backend, and their checkpoints.
