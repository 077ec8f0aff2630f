//! Websocket with browsers for bridged consoles: frames written from the buffer that their payload was
//! read into, and payload handed on as it comes, message or part of one. For a console they are all one
//! stream of bytes, so nothing is put together and nothing is copied.

use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};

use super::http::{Client, linger};
use crate::rules::close::End;
use crate::rules::frame::{
    From, HEAD, Kind, PING, Piece, Scanner, Utf8, binary_header, close_code, close_frame, pong_frame, text_frame,
};

pub use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The bytes of one read at first, which are enough for keys and pointers, and once a read has filled them.
const READ: [usize; 2] = [2 << 10, 32 << 10];

/// The sending half.
#[derive(Debug)]
pub struct Sender {
    client: WriteHalf<Client>,
    pong: Pong,
}

/// The receiving half. It must be read for pings to be answered.
#[derive(Debug)]
pub struct Receiver {
    client: ReadHalf<Client>,
    buffer: Vec<u8>,
    unread: Range<usize>,
    frames: Scanner,
    control: Vec<u8>,
    text: Utf8,
    pong: Pong,
    /// What came behind the data that was handed on last.
    next: Option<Result<Found, End>>,
}

/// The answer to the last ping, until it has gone out; of several pings the last one counts (RFC 6455, 5.5.3).
type Pong = Rc<RefCell<Option<Vec<u8>>>>;

/// What comes from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Bytes, from text or binary messages alike.
    Data(&'a [u8]),
    /// A pong: it lives.
    Alive,
    /// A ping: it lives, and [`Sender::answer`] answers, if not the next frame does.
    Asks,
}

#[derive(Debug)]
enum Found {
    Data(Range<usize>),
    Alive,
    Asks,
}

/// A frame that is being filled: its payload stands behind room for its header.
#[derive(Debug)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// An empty one, with room for so many bytes.
    #[must_use]
    pub fn with_capacity(payload: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEAD + payload);
        bytes.resize(HEAD, 0);
        Self(bytes)
    }

    /// Adds bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Makes room for a payload of that many bytes.
    pub fn resize(&mut self, payload: usize) {
        self.0.resize(HEAD + payload, 0);
    }

    /// The payload's place.
    pub fn payload(&mut self) -> &mut [u8] {
        &mut self.0[HEAD..]
    }

    /// How many bytes the payload has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() - HEAD
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes over an upgraded connection; `early` is what the client sent already, `largest` the most that
/// one frame may carry.
#[must_use]
pub fn accept(client: Client, early: &Bytes, largest: usize) -> (Sender, Receiver) {
    let (from_client, to_client) = tokio::io::split(client);
    let pong = Pong::default();
    let mut buffer = early.to_vec();
    buffer.resize(early.len().max(READ[0]), 0);
    let receiver = Receiver {
        client: from_client,
        buffer,
        unread: 0..early.len(),
        frames: Scanner::new(From::Client, largest as u64),
        control: Vec::new(),
        text: Utf8::default(),
        pong: pong.clone(),
        next: None,
    };
    (Sender { client: to_client, pong }, receiver)
}

impl Sender {
    /// Sends the first `length` bytes of a frame's payload as one binary message, and waits until the
    /// kernel has them.
    pub async fn send(&mut self, frame: &mut Frame, length: usize) -> Result<(), End> {
        self.answer().await?;
        let (head, _) = frame.0.split_first_chunk_mut().ok_or(End::ClientGone)?;
        let begins = binary_header(head, length);
        self.write(&frame.0[begins..HEAD + length]).await
    }

    /// Sends a text message.
    pub async fn say(&mut self, text: &str) -> Result<(), End> {
        self.answer().await?;
        self.write(&text_frame(text)).await
    }

    /// Sends a ping without payload.
    pub async fn ping(&mut self) -> Result<(), End> {
        self.answer().await?;
        self.write(&PING).await
    }

    /// Answers the last ping, if it was not yet.
    pub async fn answer(&mut self) -> Result<(), End> {
        let pong = self.pong.take();
        match pong {
            Some(pong) => self.write(&pong).await,
            None => Ok(()),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        let writing = async {
            self.client.write_all(bytes).await?;
            self.client.flush().await
        };
        writing.await.map_err(|_| End::ClientGone)
    }
}

/// Sends a close frame with the end's code and reason, and closes the connection when the client has
/// answered it, or after a moment.
pub async fn close(mut sender: Sender, mut receiver: Receiver, end: &End) {
    let answered = async {
        sender.write(&close_frame(end)).await?;
        if matches!(end, End::Client(_)) {
            return Ok::<(), End>(());
        }
        loop {
            receiver.next().await?;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), answered).await;
    linger(&mut receiver.client.unsplit(sender.client)).await;
}

impl Receiver {
    /// What comes next, or how the connection ended. Data is all that has come, up to the next control
    /// frame, from however many frames.
    pub async fn next(&mut self) -> Result<Incoming<'_>, End> {
        let found = match self.next.take() {
            Some(found) => found?,
            None => self.find().await?,
        };
        Ok(match found {
            Found::Data(range) => Incoming::Data(&self.buffer[range]),
            Found::Alive => Incoming::Alive,
            Found::Asks => Incoming::Asks,
        })
    }

    async fn find(&mut self) -> Result<Found, End> {
        let mut data = 0..0;
        while data.is_empty() {
            if self.unread.is_empty() {
                self.read().await?;
            }
            while !self.unread.is_empty() {
                match self.advance() {
                    Ok(None) => {}
                    Ok(Some(Found::Data(piece))) if data.is_empty() => data = piece,
                    Ok(Some(Found::Data(piece))) => {
                        let end = data.end + piece.len();
                        self.buffer.copy_within(piece, data.end);
                        data.end = end;
                    }
                    other if data.is_empty() => return other.transpose().unwrap_or(Ok(Found::Alive)),
                    other => {
                        self.next = other.transpose();
                        return Ok(Found::Data(data));
                    }
                }
            }
        }
        // A client that sends so much will send more.
        if self.unread.end == self.buffer.len() && self.buffer.len() < READ[1] {
            self.buffer.resize(READ[1], 0);
        }
        Ok(Found::Data(data))
    }

    /// Reads what is there: with TLS that comes a record at a time.
    async fn read(&mut self) -> Result<(), End> {
        let (client, buffer) = (&mut self.client, &mut self.buffer);
        let n = poll_fn(|cx| {
            let mut read = ReadBuf::new(buffer);
            let mut before = 0;
            loop {
                let result = Pin::new(&mut *client).poll_read(cx, &mut read);
                let n = read.filled().len();
                match result {
                    Poll::Ready(Ok(())) if n > before && read.remaining() > 0 => before = n,
                    // An end, or an error, comes again.
                    _ if n > 0 => return Poll::Ready(Ok(n)),
                    Poll::Ready(result) => return Poll::Ready(result.map(|()| 0)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        match n.await {
            Ok(0) | Err(_) => Err(End::ClientGone),
            Ok(n) => {
                self.unread = 0..n;
                Ok(())
            }
        }
    }

    /// Goes on to the end of the next piece of a frame.
    fn advance(&mut self) -> Result<Option<Found>, End> {
        let (taken, piece) = self.frames.next(&self.buffer[self.unread.clone()])?;
        let begins = self.unread.start + taken;
        let ends = begins + piece.map_or(0, |piece| piece.len);
        self.unread.start = ends;
        if let Some(piece) = piece {
            if piece.begins {
                self.frames.take_header();
            }
            self.frames.unmask(&piece, &mut self.buffer[begins..ends]);
        }
        match piece {
            Some(piece) if piece.kind == Kind::Data => {
                self.check_text(&piece, begins..ends)?;
                Ok((begins < ends).then_some(Found::Data(begins..ends)))
            }
            Some(piece) => self.control(&piece, begins..ends),
            None => Ok(None),
        }
    }

    fn check_text(&mut self, piece: &Piece, range: Range<usize>) -> Result<(), End> {
        let (is_text, goes_on) = self.frames.message();
        if is_text && !(self.text.takes(&self.buffer[range]) && (goes_on || !piece.ends || self.text.ends())) {
            return Err(End::Protocol(1007, "a text message is not UTF-8"));
        }
        Ok(())
    }

    fn control(&mut self, piece: &Piece, range: Range<usize>) -> Result<Option<Found>, End> {
        self.control.extend_from_slice(&self.buffer[range]);
        if !piece.ends {
            return Ok(None);
        }
        let payload = std::mem::take(&mut self.control);
        match piece.kind {
            Kind::Close => Err(End::Client(close_code(&payload)?)),
            Kind::Ping => {
                *self.pong.borrow_mut() = Some(pong_frame(&payload));
                Ok(Some(Found::Asks))
            }
            _ => Ok(Some(Found::Alive)),
        }
    }
}
