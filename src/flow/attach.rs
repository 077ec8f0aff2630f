//! A person's terminal, or a pipe, on a guest's text console: the other end of a session, by websocket as any
//! client. Both directions run beside each other: a large paste whose echo comes back meanwhile stops neither.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, watch};

use crate::edges::tty::Typed;
use crate::edges::websocket_client::{Arriving, Heard, Outgoing};

/// How long what was typed before the key that leaves may take to go out.
const LAST_KEYS: Duration = Duration::from_millis(300);
/// How long a close frame may take to go out.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a person's side consists of.
#[derive(Debug)]
pub struct Person {
    /// What they type; `None` where they only look on, without a terminal.
    pub typed: Option<Typed>,
    /// What they see.
    pub shown: mpsc::Sender<Bytes>,
    /// Nothing of what is typed is sent, but for the key that leaves.
    pub view: bool,
    /// After the end of the input: how long the guest must be silent before the session ends; `None`: until the
    /// guest ends it.
    pub silence: Option<Duration>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// The person typed the key that leaves.
    Person,
    /// The input has ended, and the guest has said what it had to say.
    InputEnded,
    /// Nobody reads the output any more.
    NobodyReads,
    /// A signal asked for it.
    Signal(i32),
    /// The proxy closed, with a code and words.
    Closed(u16, String),
    /// The connection to the proxy broke.
    Broken(String),
}

/// Runs until either side ends. `signal` returns the one that is to end it.
pub async fn run<S>(
    (mut outgoing, arriving): (Outgoing<S>, Arriving<S>),
    person: Person,
    signal: impl Future<Output = i32>,
) -> Left
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Person { typed, shown, view, silence } = person;
    let heard = Sounds::default();
    let (mut bytes, left) = match typed {
        Some(typed) => (Some(typed.bytes), Some(typed.left)),
        None => (None, None),
    };
    let input = async {
        if let Some(bytes) = &mut bytes {
            send(bytes, &mut outgoing, view).await;
        }
        let by_key = left.as_ref().is_some_and(|left| *left.borrow());
        let silence = if by_key { Some(Duration::ZERO) } else { silence };
        wait_for_silence(&mut outgoing, &heard, silence).await;
        if by_key { Left::Person } else { Left::InputEnded }
    };
    let end = tokio::select! {
        end = show(arriving, shown, &heard) => end,
        end = input => end,
        () = leave(left.clone()) => Left::Person,
        number = signal => Left::Signal(number),
    };
    if !matches!(end, Left::Closed(..) | Left::Broken(_)) {
        let _ = tokio::time::timeout(FAREWELL, outgoing.close()).await;
    }
    end
}

/// What has been heard of the guest.
#[derive(Debug, Default)]
struct Sounds {
    output: Notify,
    pong: Notify,
}

async fn show<S: AsyncRead + AsyncWrite + Unpin>(
    mut arriving: Arriving<S>,
    shown: mpsc::Sender<Bytes>,
    heard: &Sounds,
) -> Left {
    loop {
        match arriving.next().await {
            Heard::Data(bytes) => {
                heard.output.notify_one();
                if shown.send(bytes).await.is_err() {
                    return Left::NobodyReads;
                }
            }
            Heard::Pong => heard.pong.notify_one(),
            Heard::Closed(code, words) => return Left::Closed(code, words),
            Heard::Broken(why) => return Left::Broken(why),
        }
    }
}

/// Sends what is typed until the input ends. Where the connection does, the other direction says so.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    bytes: &mut mpsc::Receiver<Bytes>,
    outgoing: &mut Outgoing<S>,
    view: bool,
) {
    while let Some(typed) = bytes.recv().await {
        if !view && !typed.is_empty() && !outgoing.send(typed).await {
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until the proxy has taken the input and the guest has said nothing for that long.
async fn wait_for_silence<S: AsyncRead + AsyncWrite + Unpin>(
    outgoing: &mut Outgoing<S>,
    heard: &Sounds,
    silence: Option<Duration>,
) {
    let Some(silence) = silence else { return std::future::pending().await };
    if !outgoing.ping().await {
        return std::future::pending().await;
    }
    heard.pong.notified().await;
    if silence.is_zero() {
        return;
    }
    while tokio::time::timeout(silence, heard.output.notified()).await.is_ok() {}
}

/// Returns when the key that leaves was typed, after a moment in which what stands before it goes out.
async fn leave(left: Option<watch::Receiver<bool>>) {
    let Some(mut left) = left else { return std::future::pending().await };
    if left.wait_for(|left| *left).await.is_err() {
        return std::future::pending().await;
    }
    tokio::time::sleep(LAST_KEYS).await;
}
