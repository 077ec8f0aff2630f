//! Websocket with browsers for bridged consoles: the one module that knows tungstenite's frames.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
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
