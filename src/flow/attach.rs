//! A person's terminal, or a pipe, on a guest's text console: the other end of a session, by websocket as any
//! client. Both directions run beside each other: a large paste whose echo comes back meanwhile stops neither.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, watch};

use crate::edges::dial::{Arriving, Heard, Outgoing};
use crate::edges::tty::Typed;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edges::dial::dialled;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::time::Instant;

    const SILENCE: Duration = Duration::from_secs(2);

    struct Keyboard {
        typing: mpsc::Sender<Bytes>,
        leave: watch::Sender<bool>,
    }

    /// A person, their keyboard, and what they see.
    fn person() -> (Person, Keyboard, mpsc::Receiver<Bytes>) {
        let (typing, bytes) = mpsc::channel(8);
        let (leave, left) = watch::channel(false);
        let (shown, screen) = mpsc::channel(8);
        let typed = Some(Typed { bytes, left });
        (Person { typed, shown, view: false, silence: Some(SILENCE) }, Keyboard { typing, leave }, screen)
    }

    /// Both ends of a connection with room for so many bytes.
    async fn connected(room: usize) -> ((Outgoing<DuplexStream>, Arriving<DuplexStream>), DuplexStream) {
        let (ours, theirs) = duplex(room);
        (dialled(ours, &Bytes::new()).await, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_is_not_kept_by_a_proxy_that_takes_nothing() {
        let (websocket, _proxy) = connected(100).await;
        let (person, keyboard, _screen) = person();
        keyboard.typing.send(Bytes::from(vec![b'x'; 1000])).await.unwrap();
        let begun = Instant::now();
        let leaving = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            keyboard.leave.send(true).unwrap();
            std::future::pending::<i32>().await
        };
        let end = tokio::time::timeout(Duration::from_secs(3600), run(websocket, person, leaving)).await;
        assert_eq!(end, Ok(Left::Person));
        assert_eq!(begun.elapsed(), Duration::from_secs(60) + LAST_KEYS + FAREWELL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_that_takes_nothing_does_not_keep_a_signal_from_ending_it() {
        let (websocket, mut proxy) = connected(100).await;
        let (person, _keyboard, _screen) = person();
        let flood = async {
            loop {
                tokio::io::AsyncWriteExt::write_all(&mut proxy, b"\x82\x01x").await.unwrap();
            }
        };
        let signal = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            15
        };
        let end = tokio::select! {
            end = run(websocket, person, signal) => end,
            () = flood => unreachable!(),
        };
        assert_eq!(end, Left::Signal(15));
    }

    #[tokio::test(start_paused = true)]
    async fn the_silence_counts_from_when_the_proxy_has_taken_the_input_and_anew_with_each_word_of_the_guest() {
        let (websocket, mut proxy) = connected(1000).await;
        let (person, keyboard, mut screen) = person();
        keyboard.typing.send(Bytes::from_static(b"reboot\n")).await.unwrap();
        drop(keyboard);
        let begun = Instant::now();
        let script = async {
            // Header, mask and seven bytes; then a ping, which is answered late.
            proxy.read_exact(&mut [0; 6 + 7]).await.unwrap();
            let mut ping = [0; 6];
            proxy.read_exact(&mut ping).await.unwrap();
            assert_eq!(ping[0], 0x89);
            tokio::time::sleep(Duration::from_secs(60)).await;
            for frame in [&b"\x8a\x00"[..], b"\x82\x02ok"] {
                tokio::io::AsyncWriteExt::write_all(&mut proxy, frame).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1900)).await;
            }
            std::future::pending::<i32>().await
        };
        assert_eq!(run(websocket, person, script).await, Left::InputEnded);
        assert_eq!(begun.elapsed(), Duration::from_secs(60) + Duration::from_millis(1900) + SILENCE);
        assert_eq!(screen.recv().await.unwrap(), "ok");
    }
}
