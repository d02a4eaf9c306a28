//! The engine over a real store, with toy kinds.

mod cache;
mod devices;
mod failures;
mod faults;
mod killed;
mod random;
mod repeats;
mod secrets;
mod shapes;
mod together;
#[expect(clippy::unwrap_used, reason = "what the tests are made of")]
mod toys;
