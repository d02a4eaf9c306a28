//! What tests need of the world: a PostgreSQL server, an S3 server, and the faults that happen between them and a client.
//!
//! Nothing here has to be set up first, except that PostgreSQL is installed (`scripts/setup` does that); where it is not, a test
//! fails and says so. Servers listen on free ports of the loopback and go with the test process, however it ends.
//!
//! Everything may be called from a plain test as well as from an asynchronous one; what cannot be done panics, as an assertion
//! would.

mod postgres;
mod proxy;
mod s3;

use std::{future::Future, sync::LazyLock};

use tokio::runtime::{Builder, Runtime};

pub use postgres::Postgres;
pub use proxy::{Direction, Proxy};
pub use s3::{Fault, Faults, On, Request, S3};

/// The servers' own threads, so that they answer while a test blocks.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("testbed")
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("cannot start the testbed's threads: {error}"))
});

/// Runs `work` on the servers' threads and waits for it; also from within another runtime.
fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (done, result) = std::sync::mpsc::channel();
    RUNTIME.spawn(async move {
        // Nobody listens any more only if the waiting test has panicked.
        drop(done.send(work.await));
    });
    result.recv().unwrap_or_else(|_| panic!("the testbed's work panicked, see above"))
}
