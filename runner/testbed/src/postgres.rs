//! A throw-away PostgreSQL server, and a fresh database for each test.

mod server;

use std::{
    net::{SocketAddr, ToSocketAddrs},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use self::server::Server;
use crate::{Proxy, wait};

/// Where a server is that the tests shall use instead of one of their own.
const GIVEN: &str = "RUNNER_TEST_POSTGRES";

/// A fresh, empty database.
#[derive(Debug)]
pub struct Postgres {
    place: Place,
    /// The database's name.
    database: String,
}

#[derive(Clone, Debug)]
enum Place {
    /// Made by this process.
    Own(Arc<Server>),
    /// Named by the environment; a URL without path.
    Given { url: String, address: SocketAddr },
}

impl Postgres {
    /// A database on the server that the tests of this process share, or on the one that `RUNNER_TEST_POSTGRES` names.
    ///
    /// # Panics
    /// Where PostgreSQL is not installed or does not start.
    pub fn start() -> Self {
        static SHARED: OnceLock<Place> = OnceLock::new();
        let place = SHARED.get_or_init(|| match std::env::var(GIVEN) {
            Ok(url) => Place::given(&url),
            Err(_) => Place::Own(Arc::new(Server::start(false))),
        });
        Self::on(place.clone())
    }

    /// A database on a server of its own, which may be stopped and restarted without harm to other tests.
    ///
    /// # Panics
    /// Where PostgreSQL is not installed or does not start.
    pub fn alone() -> Self {
        Self::on(Place::Own(Arc::new(Server::start(false))))
    }

    /// Like [`Self::alone`], with a server that forces every commit to disk, as one in production does: for benchmarks.
    ///
    /// # Panics
    /// Where PostgreSQL is not installed or does not start.
    pub fn durable() -> Self {
        Self::on(Place::Own(Arc::new(Server::start(true))))
    }

    /// Another fresh database on the same server.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::on(self.place.clone())
    }

    fn on(place: Place) -> Self {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let database = format!("test_{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
        let made = Self { place, database };
        made.administer(format!("CREATE DATABASE {}", made.database));
        made
    }

    /// Its URL, with user and password.
    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// Its URL by way of a proxy.
    pub fn url_through(&self, proxy: &Proxy) -> String {
        self.url_at(proxy.address())
    }

    /// A proxy in front of the server.
    pub fn proxy(&self) -> Proxy {
        Proxy::start(self.address())
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        match &self.place {
            Place::Own(server) => server.address(),
            Place::Given { address, .. } => *address,
        }
    }

    /// The password, which should be found nowhere; `None` for a given server.
    pub fn password(&self) -> Option<&str> {
        match &self.place {
            Place::Own(server) => Some(server.password()),
            Place::Given { .. } => None,
        }
    }

    /// Runs a statement in the database, with all rights.
    ///
    /// # Panics
    /// If it fails.
    pub fn execute(&self, sql: &str) {
        run_statement(self.url(), sql.to_owned());
    }

    /// The first column of the first row of a query, as a number.
    ///
    /// # Panics
    /// If it fails or is something else.
    pub fn number(&self, sql: &str) -> i64 {
        let (url, sql) = (self.url(), sql.to_owned());
        wait(async move {
            let mut connection = connect(&url).await;
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql.as_str()))
                .fetch_one(&mut connection)
                .await
                .unwrap_or_else(|error| panic!("{sql}: {error}"))
        })
    }

    /// The server ends every connection to this database, as an administrator can.
    pub fn disconnect(&self) {
        self.administer(format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            self.database
        ));
    }

    /// Stops the server: connections end, what is committed stays.
    ///
    /// # Panics
    /// On a server that was not made here.
    pub fn stop(&self) {
        self.own().stop("INT");
    }

    /// Stops the server as a crash would; it recovers when it is started again.
    ///
    /// # Panics
    /// On a server that was not made here.
    pub fn crash(&self) {
        self.own().stop("QUIT");
    }

    /// Starts the server again, at the same address; stops it first if it runs.
    ///
    /// # Panics
    /// On a server that was not made here, or if it does not start.
    pub fn restart(&self) {
        self.own().restart();
    }

    fn own(&self) -> &Server {
        match &self.place {
            Place::Own(server) => server,
            Place::Given { .. } => panic!("only a server made by the test may be stopped: use Postgres::alone()"),
        }
    }

    fn url_at(&self, address: SocketAddr) -> String {
        let database = &self.database;
        match &self.place {
            Place::Own(server) => format!("postgres://postgres:{}@{address}/{database}", server.password()),
            Place::Given { url, address: given } => {
                let url = if address == *given { url.clone() } else { at(url, address) };
                format!("{url}/{database}")
            }
        }
    }

    fn administer(&self, sql: String) {
        let url = match &self.place {
            Place::Own(server) => format!("postgres://postgres:{}@{}/postgres", server.password(), server.address()),
            Place::Given { url, .. } => format!("{url}/postgres"),
        };
        run_statement(url, sql);
    }
}

impl Drop for Postgres {
    /// A server made here goes as a whole; a given one is left as it was found.
    fn drop(&mut self) {
        if let Place::Given { .. } = self.place
            && !std::thread::panicking()
        {
            self.administer(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database));
        }
    }
}

impl Place {
    fn given(url: &str) -> Self {
        let options: PgConnectOptions = url.parse().unwrap_or_else(|error| panic!("{GIVEN}: {error}"));
        let (host, port) = (options.get_host(), options.get_port());
        let address = (host, port).to_socket_addrs().ok().and_then(|mut found| found.next());
        let address = address.unwrap_or_else(|| panic!("{GIVEN}: no such host: {host}"));
        // Without database and options, which follow the host.
        let host_at = url.find("://").map_or(0, |at| at + 3);
        let end = url[host_at..].find('/').map_or(url.len(), |at| host_at + at);
        Self::Given { url: url[..end].to_owned(), address }
    }
}

/// The URL with another host and port.
fn at(url: &str, address: SocketAddr) -> String {
    match url.rsplit_once('@') {
        Some((user, _)) => format!("{user}@{address}"),
        None => format!("postgres://{address}"),
    }
}

fn run_statement(url: String, sql: String) {
    wait(async move {
        let mut connection = connect(&url).await;
        if let Err(error) = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.as_str())).execute(&mut connection).await {
            panic!("{sql}: {error}");
        }
        drop(connection.close().await);
    });
}

async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().unwrap_or_else(|error| panic!("not a PostgreSQL URL: {error}"));
    options.connect().await.unwrap_or_else(|error| panic!("cannot reach the PostgreSQL server of the tests: {error}"))
}
