//! The way of the bytes, for counting its instructions: the proxy as it serves a unix socket by hand, a
//! client and a backend, all on one thread, doing exactly the same each time. `make callgrind` runs it
//! under valgrind, which counts inside [`counted`] alone.
//!
//! Without TLS: its instructions are those of `ring`'s assembly, which depends on the processor and is
//! not ours; what it costs in time is what `make bench` measures.

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use console_proxy::edges::paths::Paths;
use console_proxy::edges::websocket::derive_accept_key;
use console_proxy::flow::guest::{Guest, Opener};
use console_proxy::flow::server::{self, Listener};
use console_proxy::rules::config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::LocalSet;
use tokio::time::sleep;

/// What passes in the scenarios that move much.
const BULK: usize = 4 << 20;
const PIECE: usize = 16 << 10;
/// How often small things happen.
const TIMES: usize = 100;
/// Longer than the serial path waits for anything, so that nothing depends on how fast this machine is.
const QUIET: Duration = Duration::from_millis(30);

/// What can be counted.
const SCENARIOS: [&str; 7] =
    ["display-down", "display-up", "forward-down", "forward-up", "serial-bursts", "serial-flow", "serial-keys"];

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let Some(scenario) = SCENARIOS.iter().find(|scenario| **scenario == wanted) else {
        eprintln!("relay: one of {}", SCENARIOS.join(", "));
        return ExitCode::FAILURE;
    };
    let folder = std::env::temp_dir().join(format!("console-proxy-relay-{}", std::process::id()));
    let result = run(scenario, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("relay: {scenario}: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(scenario: &str, folder: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let (client, backend) = local.block_on(&runtime, open(scenario, folder))?;
    counted(&runtime, &local, scenario, client, backend)
}

/// Everything that is counted: proxy, client and backend, from the opened console to the last byte.
#[inline(never)]
fn counted(
    runtime: &tokio::runtime::Runtime,
    local: &LocalSet,
    scenario: &str,
    client: UnixStream,
    backend: UnixStream,
) -> Result<()> {
    local.block_on(runtime, play(scenario, &mut End::new(client), &mut End::new(backend)))
}

async fn play(scenario: &str, client: &mut End, backend: &mut End) -> Result<()> {
    match scenario {
        "display-down" => pass(backend, &vec![b'd'; PIECE], client).await,
        "display-up" | "forward-up" => pass(client, &from_client(&vec![b'u'; PIECE]), backend).await,
        "forward-down" => pass(backend, &from_server(&vec![b'd'; PIECE]), client).await,
        // Some output out of silence: shown at once, and then the port is found silent.
        "serial-bursts" => {
            for _ in 0..TIMES {
                backend.stream.write_all(&[b's'; 80]).await?;
                client.read(82).await?;
                sleep(QUIET).await;
            }
            Ok(())
        }
        // Output that does not end: all but the first is gathered.
        "serial-flow" => {
            for _ in 0..TIMES {
                backend.stream.write_all(&[b's'; 92]).await?;
                client.read(94).await?;
            }
            Ok(())
        }
        "serial-keys" => {
            for _ in 0..TIMES {
                client.stream.write_all(&from_client(b"k")).await?;
                backend.read(1).await?;
                backend.stream.write_all(b"k").await?;
                client.read(3).await?;
                sleep(QUIET).await;
            }
            Ok(())
        }
        other => bail!("no scenario {other}"),
    }
}

/// One end of what is counted: it costs a few instructions a call.
struct End {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl End {
    fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: vec![0; 64 << 10] }
    }

    /// Reads at least so many bytes.
    async fn read(&mut self, bytes: usize) -> Result<()> {
        let mut got = 0;
        while got < bytes {
            match self.stream.read(&mut self.buffer).await? {
                0 => bail!("the end came after {got} bytes of {bytes}"),
                n => got += n,
            }
        }
        Ok(())
    }
}

/// Writes pieces on one side until so much of them has come out on the other that the rest is headers.
async fn pass(from: &mut End, piece: &[u8], to: &mut End) -> Result<()> {
    let writing = async {
        for _ in 0..BULK / PIECE {
            from.stream.write_all(piece).await?;
        }
        Ok(())
    };
    tokio::try_join!(writing, to.read(BULK)).map(drop)
}

/// A proxy that runs on this thread, and both ends of an open console.
async fn open(scenario: &str, folder: &Path) -> Result<(UnixStream, UnixStream)> {
    let (console, side) = match scenario.split_once('-').context("no scenario")?.0 {
        "display" => ("vnc", "raw"),
        "forward" => ("vnc", "websocket"),
        _ => ("serial/0", "raw"),
    };
    let (public, place, route) = (folder.join("public"), folder.join("backend"), folder.join("route.toml"));
    std::fs::create_dir_all(folder.join("state"))?;
    let text = format!(
        "version = 1\nuuid = \"b50bdc9f-490b-4b9b-8641-7573c0eba77c\"\nname = \"relay\"\nport = 23000\nauth = \"none\"\n\
         [[consoles]]\nconsole = \"{console}\"\n{side} = \"unix:{}\"\n",
        place.display()
    );
    std::fs::write(&route, text)?;
    let backends = UnixListener::bind(&place)?;
    let listener = UnixListener::bind(&public)?;
    let guest = Rc::new(Guest::new(Paths::new(folder), route, Config::default(), None, Opener::Direct));
    tokio::task::spawn_local(server::run(guest, vec![Listener::Unix(listener)], false, std::future::pending()));

    let mut client = UnixStream::connect(&public).await?;
    let request = format!(
        "GET /{console} HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await?;
    let (mut backend, _) = backends.accept().await?;
    if side == "websocket" {
        let head = read_head(&mut backend).await?;
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
        });
        let accept = derive_accept_key(key.context("the proxy sent no key")?.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-accept: {accept}\r\n\r\n"
        );
        backend.write_all(answer.as_bytes()).await?;
    }
    let head = read_head(&mut client).await?;
    if !head.starts_with("HTTP/1.1 101") {
        bail!("the proxy answers {head}");
    }
    // Whatever a session does at its beginning is over.
    sleep(QUIET).await;
    Ok((client, backend))
}

async fn read_head(from: &mut UnixStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}

fn from_client(payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = header(payload.len(), 0x80);
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn from_server(payload: &[u8]) -> Vec<u8> {
    [header(payload.len(), 0), payload.to_vec()].concat()
}

fn header(len: usize, mask: u8) -> Vec<u8> {
    match len {
        0..126 => vec![0x82, mask | len as u8],
        _ => [&[0x82, mask | 0x7e], &(len as u16).to_be_bytes()[..]].concat(),
    }
}
