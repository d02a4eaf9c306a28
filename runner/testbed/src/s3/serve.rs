//! Connections and requests, and what a fault makes of them.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Method, StatusCode,
    body::{Frame, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use s3s::{Body, HttpResponse, service::S3Service};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{
    faults::{Fault, Faults, Request},
    memory::{Memory, Stored},
};

/// What all connections share.
pub(super) struct Server {
    pub(super) service: S3Service,
    pub(super) memory: Memory,
    pub(super) faults: Arc<Faults>,
}

/// Bytes of a range from one byte to another.
fn length(range: &str) -> Option<u64> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
}

/// The connection ends without an answer.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection ends here")
    }
}

impl std::error::Error for Closed {}

impl Server {
    /// Serves until the other end of `open` is gone.
    pub(super) async fn run(self, listener: TcpListener, open: watch::Receiver<()>) {
        let server = Arc::new(self);
        let mut closed = open.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closed.changed() => return,
            };
            if let Ok((stream, _)) = accepted {
                tokio::spawn(server.clone().connection(stream, open.clone()));
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, mut open: watch::Receiver<()>) {
        drop(stream.set_nodelay(true));
        let answer = service_fn(|request| self.clone().answer(request));
        let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        tokio::select! {
            // An error is a fault that closed it, or a client that went away.
            _ = serving => {}
            _ = open.changed() => {}
        }
    }

    async fn answer(self: Arc<Self>, request: hyper::Request<Incoming>) -> Result<HttpResponse, Closed> {
        let path = request.uri().path().trim_start_matches('/');
        let key = path.split_once('/').map_or("", |(_, key)| key).to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let range = request.headers().get(header::RANGE).and_then(|range| length(range.to_str().ok()?));
        let seen = Request { method: request.method().clone(), key, query, range };
        let Some(fault) = self.faults.strike(seen.clone()) else { return self.perform(request).await };
        match fault {
            Fault::Refuse(status, code) => refuse(request, status, code, None).await,
            Fault::Redirect(region) => refuse(request, 301, "PermanentRedirect", Some(region)).await,
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                self.perform(request).await
            }
            Fault::Hang => std::future::pending().await,
            Fault::Close => Err(Closed),
            Fault::LoseReply => {
                whole(self.perform(request).await?).await?;
                Err(Closed)
            }
            Fault::Unsaid => {
                let head = request.method() == Method::HEAD;
                whole(self.perform(request).await?).await?;
                Ok(error(500, "InternalError", None, head))
            }
            Fault::HalfBody if request.method() == Method::HEAD => Err(Closed),
            Fault::HalfBody => half(self.perform(request).await?).await,
            Fault::WrongByte => {
                let (parts, content) = whole(self.perform(request).await?).await?;
                let mut content = content.to_vec();
                let middle = content.len() / 2;
                if let Some(byte) = content.get_mut(middle) {
                    *byte ^= 1;
                }
                Ok(HttpResponse::from_parts(parts, content.into()))
            }
            Fault::Lie => {
                let before = self.memory.state().objects.get(&seen.key).cloned();
                let (parts, content) = whole(self.perform(request).await?).await?;
                let mut state = self.memory.state();
                match before {
                    Some(object) => drop(state.objects.insert(seen.key, object)),
                    None => drop(state.objects.remove(&seen.key)),
                }
                Ok(HttpResponse::from_parts(parts, content.into()))
            }
            Fault::Truncate => {
                let (parts, content) = whole(self.perform(request).await?).await?;
                if let Some(object) = self.memory.state().objects.get_mut(&seen.key) {
                    *object = Stored::new(object.content.slice(..object.content.len() / 2));
                }
                Ok(HttpResponse::from_parts(parts, content.into()))
            }
        }
    }

    async fn perform(&self, request: hyper::Request<Incoming>) -> Result<HttpResponse, Closed> {
        self.service.call(request.map(Body::from)).await.map_err(|_| Closed)
    }
}

/// Reads the request, so that the client sees an answer and no broken connection.
async fn refuse(
    request: hyper::Request<Incoming>,
    status: u16,
    code: &str,
    region: Option<&str>,
) -> Result<HttpResponse, Closed> {
    let head = request.method() == Method::HEAD;
    BodyExt::collect(request.into_body()).await.map_err(|_| Closed)?;
    Ok(error(status, code, region, head))
}

/// An error as S3 writes it; the answer to `HEAD` has no body.
fn error(status: u16, code: &str, region: Option<&str>, head: bool) -> HttpResponse {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
    );
    let mut answer = HttpResponse::new(if head { Body::empty() } else { text.into() });
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(region) = region.and_then(|region| region.parse().ok()) {
        answer.headers_mut().insert("x-amz-bucket-region", region);
    }
    answer
}

async fn whole(answer: HttpResponse) -> Result<(hyper::http::response::Parts, Bytes), Closed> {
    let (parts, body) = answer.into_parts();
    Ok((parts, BodyExt::collect(body).await.map_err(|_| Closed)?.to_bytes()))
}

/// The right headers, half of the body, and then the end of the connection.
async fn half(answer: HttpResponse) -> Result<HttpResponse, Closed> {
    let (mut parts, content) = whole(answer).await?;
    parts.headers.insert(hyper::header::CONTENT_LENGTH, content.len().into());
    let first = content.slice(..content.len() / 2);
    let frames = futures_util::stream::once(async move { Ok::<_, std::io::Error>(Frame::data(first)) }).chain(
        futures_util::stream::once(async {
            // What was written before is on its way by now.
            tokio::time::sleep(Duration::from_millis(5)).await;
            Err(std::io::Error::other(Closed))
        }),
    );
    Ok(HttpResponse::from_parts(parts, Body::http_body_unsync(StreamBody::new(frames))))
}
