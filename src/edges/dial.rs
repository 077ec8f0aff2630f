//! A websocket that we ask for ourselves, as a person's client: the one module that knows tungstenite's frames.
//! (`edges::websocket` is the other end.)

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

/// The sending half.
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
