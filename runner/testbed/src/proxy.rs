//! A TCP proxy that does to connections what networks do.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{RUNTIME, wait};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// A proxy in front of a server. Without faults it passes everything on. Its connections end with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    faults: Mutex<Faults>,
    /// Every connection ends when this changes.
    cuts: watch::Sender<u64>,
}

/// What is to happen.
#[derive(Debug, Default)]
struct Faults {
    refuse: bool,
    delay: Duration,
    /// Pass so many more bytes this way, then cut.
    cut_after: Option<(Direction, u64)>,
    /// Nothing comes back any more.
    swallow: bool,
    /// Requests that hold these bytes: so many pass, then the reply to one is lost with its connection.
    lose_reply: Option<(Vec<u8>, u32)>,
    /// The server's next bytes on this connection are the reply to be lost.
    losing: Option<u64>,
    /// Replies that were lost, connections that were cut or refused.
    happened: u64,
}

/// What becomes of bytes that came in.
enum Fate {
    Pass,
    Swallow,
    /// Pass so many and cut the connection.
    Cut(usize),
}

impl Proxy {
    /// A proxy on a free port.
    ///
    /// # Panics
    /// If there is none.
    pub fn start(server: SocketAddr) -> Self {
        let shared = Arc::new(Shared { faults: Mutex::default(), cuts: watch::Sender::new(0) });
        let listener = wait(async { TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await });
        let listener = listener.unwrap_or_else(|error| panic!("no free port: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("{error}"));
        // Holds no handle, so that the listener goes with the proxy.
        let mut closed = shared.cuts.subscribe();
        let weak = Arc::downgrade(&shared);
        RUNTIME.spawn(async move {
            for connection in 0.. {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = gone(&mut closed) => return,
                };
                let (Ok((client, _)), Some(shared)) = (accepted, weak.upgrade()) else { continue };
                tokio::spawn(shared.serve(connection, client, server));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections now. New ones may come.
    pub fn cut(&self) {
        self.faults().happened += 1;
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends new connections at once, until [`Self::heal`].
    pub fn refuse(&self) {
        self.faults().refuse = true;
    }

    /// Holds everything back for so long, both ways.
    pub fn delay(&self, delay: Duration) {
        self.faults().delay = delay;
    }

    /// Passes so many more bytes in this direction, over all connections, and ends the one that exceeds them. Once.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.faults().cut_after = Some((direction, bytes));
    }

    /// From now on nothing comes back; what is asked still arrives.
    pub fn swallow(&self) {
        self.faults().swallow = true;
    }

    /// Lets `skip` requests with these bytes pass; the next arrives at the server, its reply is lost and the connection ends.
    /// Once.
    pub fn lose_reply(&self, request: &[u8], skip: u32) {
        self.faults().lose_reply = Some((request.to_vec(), skip));
    }

    /// How often a fault has struck.
    pub fn happened(&self) -> u64 {
        self.faults().happened
    }

    /// Passes everything on again.
    pub fn heal(&self) {
        let mut faults = self.faults();
        *faults = Faults { happened: faults.happened, ..Faults::default() };
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.shared.faults()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, connection: u64, client: TcpStream, server: SocketAddr) {
        let mut cuts = self.cuts.subscribe();
        let cut = *cuts.borrow_and_update();
        {
            let mut faults = self.faults();
            if faults.refuse {
                faults.happened += 1;
                return;
            }
        }
        let Ok(server) = TcpStream::connect(server).await else { return };
        drop((client.set_nodelay(true), server.set_nodelay(true)));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // Whichever ends first ends both.
        tokio::select! {
            () = self.pump(connection, cut, Direction::ToServer, from_client, to_server) => {}
            () = self.pump(connection, cut, Direction::ToClient, from_server, to_client) => {}
            _ = cuts.changed() => {}
        }
    }

    async fn pump(
        &self,
        connection: u64,
        cut: u64,
        direction: Direction,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let delay = self.faults().delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            // What was sent after a cut must not pass, even if this task has not been told of the cut yet.
            if *self.cuts.borrow() != cut {
                return;
            }
            let bytes = buffer.get(..read).unwrap_or_default();
            let fate = self.faults().fate(connection, direction, bytes);
            let (pass, end) = match fate {
                Fate::Pass => (read, false),
                Fate::Swallow => (0, false),
                Fate::Cut(pass) => (pass.min(read), true),
            };
            let sent = to.write_all(bytes.get(..pass).unwrap_or_default()).await;
            if end || sent.is_err() {
                return;
            }
        }
    }
}

impl Faults {
    fn fate(&mut self, connection: u64, direction: Direction, bytes: &[u8]) -> Fate {
        if direction == Direction::ToClient && self.losing == Some(connection) {
            self.losing = None;
            self.happened += 1;
            return Fate::Cut(0);
        }
        if direction == Direction::ToServer
            && let Some((request, skip)) = &mut self.lose_reply
            && bytes.windows(request.len().max(1)).any(|window| window == request.as_slice())
        {
            if *skip > 0 {
                *skip -= 1;
            } else {
                self.lose_reply = None;
                self.losing = Some(connection);
            }
        }
        if let Some((way, left)) = &mut self.cut_after
            && *way == direction
        {
            let length = bytes.len() as u64;
            if *left < length {
                let pass = usize::try_from(*left).unwrap_or(bytes.len());
                self.cut_after = None;
                self.happened += 1;
                return Fate::Cut(pass);
            }
            *left -= length;
        }
        if self.swallow && direction == Direction::ToClient { Fate::Swallow } else { Fate::Pass }
    }
}

/// Waits until the sender is dropped.
async fn gone(closed: &mut watch::Receiver<u64>) {
    while closed.changed().await.is_ok() {}
}
