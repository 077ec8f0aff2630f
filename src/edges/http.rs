//! HTTP/1.1 with browsers and with QEMU: the one module that knows hyper.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::backends::Stream;
use super::tls::{FromClient, ToBackend, ToProxy};
use crate::rules::forwarded::Forwarded;
use crate::rules::request::{self, BadRequest};

/// The most bytes that a request's head may have; hyper answers 431 beyond.
const LARGEST_HEAD: usize = 32 << 10;
/// How long a client may take no byte of an answer. On a slow line the kernel has much of it to send before it takes more.
const STALLED: Duration = Duration::from_secs(60);
/// The most bytes of a refusal's words that are read.
const LARGEST_REFUSAL: usize = 4 << 10;

/// A connection from a browser, whatever it runs over.
#[derive(Debug)]
pub enum Client {
    /// Plain, by hand or on the way to a redirect.
    Plain(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// As it should be.
    Tls(Box<FromClient>),
    /// In tests with a paused clock, which real sockets would disturb.
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

/// A connection to a display, to its own websocket for one.
#[derive(Debug)]
pub enum Native {
    /// Plain, on loopback.
    Plain(Stream),
    /// With `vnc_tls=1`, or on SPICE's TLS port.
    Tls(Box<ToBackend>),
}

macro_rules! delegate {
    ($type:ty, $($variant:ident),+) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(stream) => Pin::new(stream).poll_read(cx, buf)),+ }
            }
        }
        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(stream) => Pin::new(stream).poll_write(cx, bytes)),+ }
            }
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(stream) => Pin::new(stream).poll_flush(cx)),+ }
            }
            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(stream) => Pin::new(stream).poll_shutdown(cx)),+ }
            }
        }
    };
}
#[cfg(not(test))]
delegate!(Client, Plain, Unix, Tls);
#[cfg(test)]
delegate!(Client, Plain, Unix, Tls, Memory);
delegate!(Native, Plain, Tls);

/// Closes towards a client so that it hears the last words: whoever closes a socket with bytes unread
/// resets the connection, and a client that is still sending then sees the reset first. So what it
/// still sends is read, for a moment.
pub async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let reading = async {
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), reading).await;
}

/// A client's connection while hyper has it. Dropped, it comes back.
#[derive(Debug)]
struct Lent {
    client: Option<Client>,
    back: Arc<Mutex<Option<Client>>>,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Lent {
    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut Client>> {
        self.get_mut().client.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// A client that takes no byte of an answer for too long has lost its connection: nobody has shown a right yet,
    /// and there is room for a few connections only.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.back.lock().unwrap_or_else(PoisonError::into_inner) = self.client.take();
    }
}

impl AsyncRead for Lent {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.as_mut().stream()?.poll_write(cx, bytes);
        self.in_time(cx, written)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.as_mut().stream()?.poll_flush(cx);
        self.in_time(cx, flushed)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.as_mut().stream()?.poll_shutdown(cx);
        self.in_time(cx, shut)
    }
}

/// A request, without its body: nothing here reads one.
#[derive(Debug)]
pub struct Asked {
    /// HTTP/1.1, not 1.0: websockets need it (RFC 6455, 4.2.1).
    pub is_http_1_1: bool,
    /// `GET`, `POST`, ...
    pub method: String,
    /// The target's path, as sent.
    pub path: String,
    /// The target's query, as sent, without `?`.
    pub query: String,
    /// The Host: a name or an address, with or without a port. HTTP/1.0 may come without.
    pub host: Option<String>,
    /// What a reverse proxy says of the browser; nothing where none is believed.
    pub forwarded: Option<Forwarded>,
    headers: HeaderMap,
    upgrade: Option<OnUpgrade>,
}

impl Asked {
    /// All values of a header, as they came: text or not.
    pub fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.headers.get_all(name).into_iter().map(HeaderValue::as_bytes)
    }

    /// The value of a header that may stand once; two are refused.
    pub fn once(&self, name: &str) -> Result<Option<&[u8]>, BadRequest> {
        request::once(self.headers(name))
    }

    /// The right to the connection after a 101.
    pub fn take_upgrade(&mut self) -> Option<Upgrade> {
        self.upgrade.take().map(Upgrade)
    }
}

/// An answer.
#[derive(Debug, Default, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Header names are constants of ours.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// The connection after a 101.
#[derive(Debug)]
pub struct Upgrade(OnUpgrade);

impl Upgrade {
    /// Waits until the 101 has gone out; the bytes are what the client sent early.
    pub async fn finish(self) -> io::Result<(Client, Bytes)> {
        let upgraded = self.0.await.map_err(io::Error::other)?;
        let parts =
            upgraded.downcast::<TokioIo<Lent>>().map_err(|_| io::Error::other("the connection is of another kind"))?;
        let client = parts.io.into_inner().client.take().ok_or(io::ErrorKind::NotConnected)?;
        Ok((client, parts.read_buf))
    }
}

/// Serves one connection until it ends or is upgraded. `patience` is for each request's head. After `last` no further
/// request is taken; the answer that is under way goes out.
pub async fn serve<F, A>(
    client: Client,
    patience: Duration,
    last: impl Future<Output = ()>,
    handler: F,
) -> Result<(), hyper::Error>
where
    F: Fn(Asked) -> A,
    A: Future<Output = Reply>,
{
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let answering = asked(request).map(&handler);
        async {
            Ok::<_, Infallible>(response(match answering {
                Ok(answering) => answering.await,
                Err(why) => bad_request(&why),
            }))
        }
    });
    let back = Arc::new(Mutex::new(None));
    let lent = Lent { client: Some(client), back: back.clone(), stalled: None };
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(lent), service)
        .with_upgrades();
    let served = {
        let mut serving = pin!(serving);
        tokio::select! {
            served = &mut serving => served,
            () = last => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    };
    let unused = back.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut client) = unused {
        linger(&mut client).await;
    }
    served
}

/// What hyper leaves to us of RFC 9112 is judged here, for every listener: who is asked (3.2), and a body in pieces,
/// which nothing here takes. Beside a Content-Length one proxy of a chain may read another request than the next
/// (6.3); hyper has dropped that header by now.
fn asked(mut request: hyper::Request<Incoming>) -> Result<Asked, BadRequest> {
    let upgrade = request.headers().contains_key(hyper::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, _body) = request.into_parts();
    if parts.headers.contains_key(hyper::header::TRANSFER_ENCODING) {
        return Err(BadRequest(
            "no body in pieces (Transfer-Encoding) is taken here: send none, or its Content-Length",
        ));
    }
    let is_http_1_1 = parts.version == hyper::Version::HTTP_11;
    let hosts = parts.headers.get_all(hyper::header::HOST).into_iter().map(HeaderValue::as_bytes);
    let host = request::host(hosts, parts.uri.authority().map(Authority::as_str), is_http_1_1)?.map(str::to_owned);
    Ok(Asked {
        is_http_1_1,
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        host,
        forwarded: None,
        headers: parts.headers,
        upgrade,
    })
}

/// Where the next request would begin is not certain: the connection ends.
fn bad_request(why: &BadRequest) -> Reply {
    let headers = [
        ("connection", "close"),
        ("content-type", "text/plain; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ];
    Reply {
        status: 400,
        headers: headers.map(|(name, value)| (name, value.to_owned())).into(),
        body: format!("{why}\n").into(),
    }
}

fn response(reply: Reply) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::new(reply.body));
    *response.status_mut() =
        hyper::StatusCode::from_u16(reply.status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    response
}

/// Asks QEMU or spice-server for a websocket. Nothing of the client's request goes along; the
/// request is small enough for spice-server, which reads it in one go (FACTS: at most 4,095 bytes).
pub async fn upgrade_backend(native: Native, host: &str) -> io::Result<(Native, Bytes)> {
    match upgrade(native, host, "/", &[("Sec-WebSocket-Protocol", "binary")]).await {
        Ok(upgraded) => Ok(upgraded),
        Err(NoWebsocket::Failed(why)) => Err(why),
        Err(NoWebsocket::Refused { status, .. }) => {
            Err(io::Error::other(format!("the backend answered {status} instead of a websocket")))
        }
    }
}

/// Asks a guest's own port for one of its consoles.
pub async fn upgrade_console(
    proxy: ToProxy,
    port: u16,
    path: &str,
    token: &str,
) -> Result<(ToProxy, Bytes), NoWebsocket> {
    upgrade(proxy, &format!("localhost:{port}"), path, &[("Authorization", &format!("Bearer {token}"))]).await
}

/// Why there is no websocket.
#[derive(Debug)]
pub enum NoWebsocket {
    /// Another answer than 101.
    Refused {
        /// The status, as `409 Conflict`.
        status: String,
        /// The body, where it is short text.
        words: String,
    },
    /// No answer, or one that is wrong.
    Failed(io::Error),
}

impl From<io::Error> for NoWebsocket {
    fn from(why: io::Error) -> Self {
        Self::Failed(why)
    }
}

async fn upgrade<S>(stream: S, host: &str, path: &str, more: &[(&str, &str)]) -> Result<(S, Bytes), NoWebsocket>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
    let key = generate_key();
    let mut request = hyper::Request::builder()
        .uri(path)
        .header("Host", host)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", &key);
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::task::spawn_local(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    if response.status() != hyper::StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status().to_string();
        let body = Limited::new(response.into_body(), LARGEST_REFUSAL).collect().await;
        let words = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
        return Err(NoWebsocket::Refused { status, words });
    }
    let accept = response.headers().get("sec-websocket-accept").map(HeaderValue::as_bytes);
    if accept != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(io::Error::other("the backend's websocket answer has a wrong key").into());
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(io::Error::other)?;
    let parts = upgraded.downcast::<TokioIo<S>>().map_err(|_| io::Error::other("the connection is of another kind"))?;
    drop(connection);
    Ok((parts.io.into_inner(), parts.read_buf))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    const PATIENCE: Duration = Duration::from_secs(10);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    async fn large(_: Asked) -> Reply {
        Reply { status: 200, body: vec![b'x'; 10_000].into(), ..Reply::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_an_answer_is_cut() {
        let (client, mut browser) = tokio::io::duplex(1000);
        browser.write_all(REQUEST).await.unwrap();
        let start = Instant::now();
        assert!(serve(Client::Memory(client), PATIENCE, std::future::pending(), large).await.is_err());
        assert!((STALLED..STALLED + PATIENCE).contains(&start.elapsed()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_little_at_a_time_gets_all_of_it() {
        let (client, mut browser) = tokio::io::duplex(1000);
        browser.write_all(REQUEST).await.unwrap();
        let reading = async {
            let (mut got, mut some) = (0, [0; 100]);
            loop {
                sleep(STALLED * 9 / 10).await;
                match browser.read(&mut some).await {
                    Ok(0) | Err(_) => return got,
                    Ok(n) => got += n,
                }
            }
        };
        let (_, got) = tokio::join!(serve(Client::Memory(client), PATIENCE, std::future::pending(), large), reading);
        assert!(got > 10_000, "{got}");
    }
}
