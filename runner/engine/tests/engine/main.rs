//! The engine over a real store, with toy kinds.

mod cache;
mod failures;
mod killed;
mod random;
mod shapes;
#[expect(clippy::unwrap_used, reason = "what the tests are made of")]
mod toys;
