//! A new migration must rebuild the crate: the macro that embeds them sees only the files that it knew.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations/sqlite");
}
