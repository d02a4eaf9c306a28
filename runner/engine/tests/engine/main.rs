//! The engine over a real store, with toy kinds.

mod cache;
mod failures;
mod shapes;
mod toys;
