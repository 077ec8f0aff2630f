//! Websocket with browsers for bridged consoles, and with proxies for people in a terminal: the one module that knows tungstenite's frames.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::http::{Client, linger};
use crate::rules::close::End;

pub use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The sending half.
#[derive(Debug)]
pub struct Sender(SplitSink<WebSocketStream<Client>, Message>);

/// The receiving half. It must be read for pings to be answered.
#[derive(Debug)]
pub struct Receiver(SplitStream<WebSocketStream<Client>>);

/// What comes from a client.
#[derive(Debug)]
pub enum Incoming {
    /// Bytes, from a text or a binary message alike.
    Data(Bytes),
    /// A ping or a pong: it lives.
    Alive,
}

/// Takes over an upgraded connection; `early` is what the client sent already.
pub async fn accept(client: Client, early: &Bytes, largest: usize) -> (Sender, Receiver) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest))
        .read_buffer_size(8 << 10)
        .write_buffer_size(0)
        // One message and a close frame: a sender waits for each.
        .max_write_buffer_size(1 << 20);
    let socket = WebSocketStream::from_partially_read(client, early.to_vec(), Role::Server, Some(config)).await;
    let (sink, stream) = socket.split();
    (Sender(sink), Receiver(stream))
}

impl Sender {
    /// Sends one binary message and waits until the kernel has it.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), End> {
        self.0.send(Message::Binary(bytes)).await.map_err(|why| end(&why))
    }

    /// Sends a ping without payload.
    pub async fn ping(&mut self) -> Result<(), End> {
        self.0.send(Message::Ping(Bytes::new())).await.map_err(|why| end(&why))
    }
}

/// Sends a close frame with the end's code and reason, and closes the connection when the client has
/// answered it, or after a moment.
pub async fn close(sender: Sender, receiver: Receiver, end: &End) {
    let (Sender(mut sink), Receiver(mut stream)) = (sender, receiver);
    let (code, reason) = end.frame();
    let frame = CloseFrame { code: code.into(), reason: reason.into() };
    let answered = async {
        let _ = sink.send(Message::Close(Some(frame))).await;
        let _ = sink.flush().await;
        while stream.next().await.is_some_and(|message| message.is_ok()) {}
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), answered).await;
    if let Ok(mut socket) = sink.reunite(stream) {
        linger(socket.get_mut()).await;
    }
}

impl Receiver {
    /// The next message, or how the connection ended.
    pub async fn next(&mut self) -> Result<Incoming, End> {
        match self.0.next().await {
            Some(Ok(Message::Binary(bytes))) => Ok(Incoming::Data(bytes)),
            Some(Ok(Message::Text(text))) => Ok(Incoming::Data(text.into())),
            Some(Ok(Message::Close(_))) => Err(End::Client),
            Some(Ok(_)) => Ok(Incoming::Alive),
            Some(Err(why)) => Err(end(&why)),
            None => Err(End::ClientGone),
        }
    }
}

/// The sending half of a websocket that we asked for ourselves: we are the client.
#[derive(Debug)]
pub struct Outgoing<S>(SplitSink<WebSocketStream<S>, Message>);

/// Its receiving half. It must be read for the proxy's pings to be answered.
#[derive(Debug)]
pub struct Arriving<S>(SplitStream<WebSocketStream<S>>);

/// What comes from a proxy.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Bytes of the console.
    Data(Bytes),
    /// The answer to our ping: what we sent before it has arrived.
    Pong,
    /// It closed, with a code and words.
    Closed(u16, String),
    /// The connection broke.
    Broken(String),
}

/// Takes over a connection that a proxy has upgraded; `early` is what came behind the 101.
pub async fn dialled<S>(stream: S, early: &Bytes) -> (Outgoing<S>, Arriving<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default().read_buffer_size(32 << 10).write_buffer_size(0);
    let socket = WebSocketStream::from_partially_read(stream, early.to_vec(), Role::Client, Some(config)).await;
    let (sink, stream) = socket.split();
    (Outgoing(sink), Arriving(stream))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Outgoing<S> {
    /// Sends one binary message and waits until the kernel has it. False where the connection has ended; why,
    /// the receiving half hears.
    pub async fn send(&mut self, bytes: Bytes) -> bool {
        self.0.send(Message::Binary(bytes)).await.is_ok()
    }

    /// Sends a ping, which is answered when all that was sent before has been taken.
    pub async fn ping(&mut self) -> bool {
        self.0.send(Message::Ping(Bytes::new())).await.is_ok()
    }

    /// Says that we leave.
    pub async fn close(&mut self) {
        let frame = CloseFrame { code: 1000.into(), reason: String::new().into() };
        let _ = self.0.send(Message::Close(Some(frame))).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Arriving<S> {
    /// What the proxy says next.
    pub async fn next(&mut self) -> Heard {
        loop {
            return match self.0.next().await {
                Some(Ok(Message::Binary(bytes))) => Heard::Data(bytes),
                Some(Ok(Message::Text(text))) => Heard::Data(text.into()),
                Some(Ok(Message::Pong(_))) => Heard::Pong,
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
                    let (code, words) = frame.unwrap_or((1005, String::new()));
                    Heard::Closed(code, words)
                }
                Some(Ok(_)) => continue,
                Some(Err(why)) => Heard::Broken(why.to_string()),
                None => Heard::Broken("the proxy is gone".to_owned()),
            };
        }
    }
}

fn end(why: &Error) -> End {
    match why {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => End::Protocol(1009, "the message is too large"),
        Error::Utf8(_) => End::Protocol(1007, "a text message is not UTF-8"),
        Error::Protocol(kind) => protocol(kind),
        _ => End::ClientGone,
    }
}

fn protocol(kind: &tokio_tungstenite::tungstenite::error::ProtocolError) -> End {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match kind {
        // The TCP connection broke without a close: nobody is there to be told.
        ProtocolError::ResetWithoutClosingHandshake => End::ClientGone,
        ProtocolError::UnmaskedFrameFromClient => End::Protocol(1002, "frames from a client must be masked"),
        _ => End::Protocol(1002, "the client broke the websocket protocol"),
    }
}
