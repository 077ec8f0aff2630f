//! Made-up backends on loopback: what a guest's serial port or display would say, at an exact rate.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The time of one byte at 115,200 baud (8N1: ten bits).
pub const BYTE_TIME: Duration = Duration::from_nanos(86_806);
/// What a flood consists of; keys and their echoes are other bytes.
pub const FLOOD: u8 = b'.';
const BLOCK: usize = 64 << 10;
/// How long a backend waits at most before it looks whether it should stop.
const LOOK: Duration = Duration::from_millis(50);

/// What a backend does with whoever connects.
#[derive(Clone, Copy, Debug)]
pub enum Script {
    /// Says one byte at once.
    Greets,
    /// Gives back what it gets, at once; and every [`BYTE_TIME`] says so many bytes (none: 0) in one write.
    Echoes(usize),
    /// Gives back what it gets, and between speaks as fast as it is listened to.
    EchoesInFlood,
    /// Says so many bytes as fast as they are taken, when [`Backend::go`] was called.
    Pours(u64),
    /// Reads so many bytes, and says one when it has them all.
    Swallows(u64),
    /// As [`Script::Pours`], but it speaks websocket itself: QEMU's own, in frames of so many bytes.
    PoursFrames(u64, usize),
    /// As [`Script::Swallows`], as a websocket: so many bytes of frames with their headers and masks.
    SwallowsFrames(u64),
}

/// Where it listens.
#[derive(Clone, Debug)]
pub enum Place {
    /// A port on 127.0.0.1.
    Tcp(u16),
    /// A unix socket.
    Unix(PathBuf),
}

/// A listening backend; its threads end when it is dropped.
#[derive(Debug)]
pub struct Backend {
    /// Where.
    pub place: Place,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    go: AtomicBool,
    said: AtomicU64,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Backend {
    /// A backend on a TCP port.
    pub fn tcp(script: Script) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
        listener.set_nonblocking(true)?;
        let place = Place::Tcp(listener.local_addr()?.port());
        Ok(Self::start(Listener::Tcp(listener), place, script))
    }

    /// A backend on a unix socket.
    pub fn unix(script: Script, path: &Path) -> Result<Self> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Self::start(Listener::Unix(listener), Place::Unix(path.to_owned()), script))
    }

    fn start(listener: Listener, place: Place, script: Script) -> Self {
        let shared = Arc::<Shared>::default();
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || accept(&listener, script, &of_thread));
        Self { place, shared, thread: Some(thread) }
    }

    /// Those that wait for it may begin.
    pub fn go(&self) {
        self.shared.go.store(true, Relaxed);
    }

    /// Bytes written so far.
    pub fn said(&self) -> u64 {
        self.shared.said.load(Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &Listener, script: Script, shared: &Arc<Shared>) {
    let mut served = Vec::new();
    while !shared.stop.load(Relaxed) {
        let descriptor = match listener {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        };
        if !wait(descriptor, PollFlags::IN, LOOK).contains(PollFlags::IN) {
            continue;
        }
        let of_thread = Arc::clone(shared);
        match listener {
            Listener::Tcp(listener) => {
                let Ok((stream, _)) = listener.accept() else { continue };
                // A serial port's bytes go out one by one, as from a UART.
                let _ = stream.set_nodelay(true);
                served.push(std::thread::spawn(move || serve(&TcpEnd(stream), script, &of_thread)));
            }
            Listener::Unix(listener) => {
                let Ok((stream, _)) = listener.accept() else { continue };
                served.push(std::thread::spawn(move || serve(&UnixEnd(stream), script, &of_thread)));
            }
        }
    }
    for thread in served {
        let _ = thread.join();
    }
}

/// What both kinds of stream can do.
trait End {
    fn descriptor(&self) -> BorrowedFd<'_>;
    fn get(&self, bytes: &mut [u8]) -> io::Result<usize>;
    fn put(&self, bytes: &[u8]) -> io::Result<usize>;
    fn block(&self, block: bool) -> io::Result<()>;
}

struct TcpEnd(TcpStream);
struct UnixEnd(UnixStream);

macro_rules! end {
    ($type:ty) => {
        impl End for $type {
            fn descriptor(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
            fn get(&self, bytes: &mut [u8]) -> io::Result<usize> {
                (&self.0).read(bytes)
            }
            fn put(&self, bytes: &[u8]) -> io::Result<usize> {
                (&self.0).write(bytes)
            }
            fn block(&self, block: bool) -> io::Result<()> {
                self.0.set_nonblocking(!block)
            }
        }
    };
}
end!(TcpEnd);
end!(UnixEnd);

fn serve(end: &impl End, script: Script, shared: &Shared) {
    // An error is the other side's end: whoever measures notices.
    let _ = match script {
        Script::Greets => put_all(end, b"!", shared).and_then(|()| echo(end, 0, shared)),
        Script::Echoes(bytes) => echo(end, bytes, shared),
        Script::EchoesInFlood => echo_in_flood(end, shared),
        Script::Pours(total) => pour(end, total, &vec![FLOOD; BLOCK], shared),
        Script::Swallows(total) => swallow(end, total, b"!", shared),
        Script::PoursFrames(total, size) => {
            shake_hands(end, shared).and_then(|()| pour(end, total, &frame(&vec![FLOOD; size]), shared))
        }
        Script::SwallowsFrames(total) => {
            shake_hands(end, shared).and_then(|()| swallow(end, total, &frame(b"!"), shared))
        }
    };
}

fn wait(descriptor: BorrowedFd<'_>, flags: PollFlags, time: Duration) -> PollFlags {
    let time = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: i64::from(time.subsec_nanos()) };
    let mut polled = [PollFd::from_borrowed_fd(descriptor, flags)];
    let _ = poll(&mut polled, Some(&time));
    polled[0].revents()
}

fn put_all(end: &impl End, mut bytes: &[u8], shared: &Shared) -> io::Result<()> {
    while !bytes.is_empty() && !shared.stop.load(Relaxed) {
        match end.put(bytes) {
            Ok(n) => {
                shared.said.fetch_add(n as u64, Relaxed);
                bytes = &bytes[n..];
            }
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                wait(end.descriptor(), PollFlags::OUT, LOOK);
            }
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

/// One byte time after the other, by an absolute clock: what came late under noise is made up for, each
/// tick with a write of its own, so that rate and number of writes are right.
fn echo(end: &impl End, bytes: usize, shared: &Shared) -> io::Result<()> {
    end.block(false)?;
    let flood = vec![FLOOD; bytes];
    let (mut due, mut buffer) = (Instant::now(), [0; 4096]);
    while !shared.stop.load(Relaxed) {
        let now = Instant::now();
        if bytes > 0 && now >= due {
            put_all(end, &flood, shared)?;
            due += BYTE_TIME;
            continue;
        }
        let time = if bytes > 0 { due - now } else { LOOK };
        if wait(end.descriptor(), PollFlags::IN, time).is_empty() {
            continue;
        }
        match end.get(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => put_all(end, &buffer[..n], shared)?,
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

fn echo_in_flood(end: &impl End, shared: &Shared) -> io::Result<()> {
    end.block(false)?;
    let (flood, mut buffer) = ([FLOOD; 4096], [0; 4096]);
    while !shared.stop.load(Relaxed) {
        let ready = wait(end.descriptor(), PollFlags::IN | PollFlags::OUT, LOOK);
        if ready.contains(PollFlags::IN) {
            match end.get(&mut buffer)? {
                0 => return Ok(()),
                n => put_all(end, &buffer[..n], shared)?,
            }
        }
        if ready.contains(PollFlags::OUT) {
            match end.put(&flood) {
                Ok(n) => _ = shared.said.fetch_add(n as u64, Relaxed),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                Err(why) => return Err(why),
            }
        }
    }
    Ok(())
}

fn pour(end: &impl End, total: u64, block: &[u8], shared: &Shared) -> io::Result<()> {
    end.block(false)?;
    while !shared.go.load(Relaxed) && !shared.stop.load(Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut left = total.div_ceil(block.len() as u64);
    while left > 0 && !shared.stop.load(Relaxed) {
        put_all(end, block, shared)?;
        left -= 1;
    }
    echo(end, 0, shared)
}

fn swallow(end: &impl End, total: u64, thanks: &[u8], shared: &Shared) -> io::Result<()> {
    end.block(false)?;
    let (mut left, mut buffer) = (total, vec![0; BLOCK]);
    while left > 0 && !shared.stop.load(Relaxed) {
        if wait(end.descriptor(), PollFlags::IN, LOOK).is_empty() {
            continue;
        }
        match end.get(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => left = left.saturating_sub(n as u64),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why),
        }
    }
    put_all(end, thanks, shared)?;
    echo(end, 0, shared)
}

/// A server's frame.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x82];
    match payload.len() {
        n @ 0..=125 => bytes.push(n as u8),
        n @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend((n as u16).to_be_bytes());
        }
        n => {
            bytes.push(127);
            bytes.extend((n as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// Answers an upgrade request, as QEMU's own websocket does.
fn shake_hands(end: &impl End, shared: &Shared) -> io::Result<()> {
    end.block(true)?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if end.get(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    });
    let accept = console_proxy::edges::websocket::derive_accept_key(key.unwrap_or_default().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    put_all(end, answer.as_bytes(), shared)
}
