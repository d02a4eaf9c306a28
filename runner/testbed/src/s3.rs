//! An S3 server in the test process: the real protocol with real signatures over a bucket in memory, and scripted faults.

mod faults;
mod memory;
mod serve;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tokio::{net::TcpListener, sync::watch};

pub use self::faults::{Fault, Faults, On, Request};
use self::{
    memory::{Memory, Stored},
    serve::Server,
};
use crate::{Proxy, RUNTIME, wait};

const BUCKET: &str = "pictures";
const ACCESS_KEY: &str = "AKIATESTBED";
const SECRET: &str = "secret/of+the+testbed";
const REGION: &str = "eu-test-1";

/// A server with one empty bucket. It ends with this handle.
#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    memory: Memory,
    faults: Arc<Faults>,
    /// The server ends when this is dropped.
    _open: watch::Sender<()>,
}

impl S3 {
    /// A server on a free port.
    ///
    /// # Panics
    /// If there is none.
    pub fn start() -> Self {
        let memory = Memory::new(BUCKET);
        let faults = Arc::new(Faults::default());
        let mut service = S3ServiceBuilder::new(memory.clone());
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET));
        let server = Server { service: service.build(), memory: memory.clone(), faults: faults.clone() };
        let listener = wait(async { TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await });
        let listener = listener.unwrap_or_else(|error| panic!("no free port: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("{error}"));
        let open = watch::Sender::new(());
        RUNTIME.spawn(server.run(listener, open.subscribe()));
        Self { address, memory, faults, _open: open }
    }

    /// The faults that it is to show.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// `s3://…`: the bucket, with a prefix.
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/team/runner")
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &'static str {
        BUCKET
    }

    /// The server's own URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The region that it says it is in.
    pub fn region(&self) -> &'static str {
        REGION
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The id of the key that it accepts.
    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    /// The secret, which should be found nowhere.
    pub fn secret(&self) -> &'static str {
        SECRET
    }

    /// Endpoint, region and credentials, as environment variables.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        Self::environment_at(self.address)
    }

    /// The same by way of a proxy.
    pub fn environment_through(&self, proxy: &Proxy) -> Vec<(&'static str, String)> {
        Self::environment_at(proxy.address())
    }

    /// A proxy in front of the server.
    pub fn proxy(&self) -> Proxy {
        Proxy::start(self.address)
    }

    fn environment_at(address: SocketAddr) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{address}")),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", REGION.into()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
        ]
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<String> {
        self.memory.state().objects.keys().cloned().collect()
    }

    /// An object's content.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.memory.state().objects.get(key).map(|object| object.content.clone())
    }

    /// Puts an object there, or another content into one, behind the client's back.
    pub fn set_object(&self, key: &str, content: impl Into<Bytes>) {
        self.memory.state().objects.insert(key.to_owned(), Stored::new(content.into()));
    }

    /// Removes all objects, behind the client's back.
    pub fn clear(&self) {
        self.memory.state().objects.clear();
    }

    /// How many multipart uploads are unfinished.
    pub fn uploads(&self) -> usize {
        self.memory.state().uploads.len()
    }

    /// Makes the unfinished uploads so much older.
    pub fn age_uploads(&self, by: Duration) {
        for upload in self.memory.state().uploads.values_mut() {
            upload.began = upload.began.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH);
        }
    }
}
