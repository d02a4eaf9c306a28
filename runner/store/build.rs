//! A new migration must rebuild the crate: the macro that embeds them sees only the files that it knew.

fn main() {
    #[expect(clippy::print_stdout, reason = "how a build script speaks to cargo")]
    {
        println!("cargo::rerun-if-changed=../../migrations/sqlite");
    }
}
