//! `console-proxy replay`: plays a recording in this terminal, at the speed at which it was made or another.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::edges::recordings::{Line, lines};
use crate::edges::tty;
use crate::rules::asciicast::{Event, read_event, read_header};
use crate::rules::config::parse_span;
use crate::rules::escape::Escape;
use crate::rules::guest::printable;
use crate::rules::tame::Tame;

/// Events that are read ahead.
const AHEAD: usize = 64;
/// How long the last output may take to be written.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// What to play, and how fast.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The recording (asciicast v2); - for standard input.
    file: PathBuf,
    /// How many times as fast as it was.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = speed)]
    speed: f64,
    /// Silences last at most this long; 0s: nothing is waited for.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    idle_limit: Option<Duration>,
    /// To a terminal, too, every byte as the guest said it. Otherwise a terminal gets text and colours alone.
    #[arg(long)]
    raw: bool,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| (0.001..=1000.0).contains(speed));
    speed.ok_or_else(|| format!("{text:?} is no factor from 0.001 to 1000"))
}

/// The verb. In a terminal the space bar pauses, q and ^C leave.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let is_stdin = arguments.file == Path::new("-");
    let name = if is_stdin { "standard input".to_owned() } else { arguments.file.display().to_string() };
    let source: Box<dyn Read + Send> = if is_stdin {
        Box::new(std::io::stdin())
    } else {
        let file = File::open(&arguments.file).with_context(|| format!("cannot open {name}"))?;
        // A folder opens, and fails at the first read with words that name nothing.
        Box::new(file)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let ended = runtime.block_on(play(arguments, source, !is_stdin && tty::is_input_a_terminal()));
    // A thread may wait for input: it ends with the process.
    runtime.shutdown_background();
    match ended? {
        Ended::Over | Ended::Left => Ok(ExitCode::SUCCESS),
        Ended::Signal(number) => Ok(ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))),
        Ended::Cut(line) => {
            let cut = "the recording ends in the middle of a line: it is still being written, or was cut";
            let _ = writeln!(std::io::stderr(), "console-proxy: {name}: line {line}: {cut}");
            Ok(ExitCode::SUCCESS)
        }
        Ended::Bad(line, why) => Err(anyhow!("{}: line {line}: {}", printable(&name), printable(&why))),
    }
}

/// How it ended.
enum Ended {
    /// All was played.
    Over,
    /// It ends in the middle of that line.
    Cut(usize),
    /// That line is not one of a recording.
    Bad(usize, String),
    /// The person has seen enough, or nobody looks on.
    Left,
    /// A signal asked for it.
    Signal(i32),
}

async fn play(arguments: &Arguments, source: Box<dyn Read + Send>, in_terminal: bool) -> Result<Ended> {
    let mut signals = tty::Signals::catch().context("cannot wait for signals")?;
    let (shown, is_shown) = tty::write_output().context("cannot start a thread")?;
    let _tidy = (!in_terminal).then(|| tty::Tidy);
    let raw = in_terminal.then(|| tty::Raw::enter(std::io::stdin())).transpose();
    let raw = raw.context("cannot make the terminal raw")?;
    let keys = in_terminal.then(|| tty::read_input(Escape::NONE)).transpose().context("cannot start a thread")?;
    let mut player = Player {
        events: read(source)?,
        shown,
        keys: keys.map(|typed| typed.bytes),
        speed: arguments.speed,
        idle_limit: arguments.idle_limit.unwrap_or(Duration::MAX),
        tame: (!arguments.raw && tty::is_output_a_terminal()).then(Tame::default),
    };
    let ended = tokio::select! {
        ended = player.play() => ended,
        number = signals.ended(raw.as_ref()) => Ended::Signal(number),
    };
    drop(player);
    if !matches!(ended, Ended::Signal(_) | Ended::Left) {
        let _ = tokio::time::timeout(LAST_OUTPUT, is_shown).await;
    }
    Ok(ended)
}

/// Reads and checks lines in a thread: standard input may keep us waiting.
fn read(source: Box<dyn Read + Send>) -> Result<mpsc::Receiver<Result<Event, Ended>>> {
    let (sender, events) = mpsc::channel(AHEAD);
    let reading = move || {
        let mut number = 0;
        for line in lines(source) {
            number += 1;
            let read = match line {
                Ok(Line::Whole(text) | Line::Last(text)) if number == 1 => read_header(&text).map(|_| None),
                Ok(Line::Whole(text)) => read_event(&text).map(Some),
                // The end of a file: all of an event, or the begin of one.
                Ok(Line::Last(text)) => match read_event(&text) {
                    Ok(event) => Ok(Some(event)),
                    Err(_) => return drop(sender.blocking_send(Err(Ended::Cut(number)))),
                },
                Err(why) => Err(format!("it cannot be read: {why}")),
            };
            let sent = match read {
                Ok(None) => Ok(()),
                Ok(Some(event)) => sender.blocking_send(Ok(event)),
                Err(why) => sender.blocking_send(Err(Ended::Bad(number, why))),
            };
            if sent.is_err() {
                return;
            }
        }
        if number == 0 {
            let _ = sender.blocking_send(Err(Ended::Bad(1, "it is empty".to_owned())));
        }
    };
    std::thread::Builder::new().name("recording".to_owned()).spawn(reading).context("cannot start a thread")?;
    Ok(events)
}

struct Player {
    events: mpsc::Receiver<Result<Event, Ended>>,
    shown: mpsc::Sender<bytes::Bytes>,
    keys: Option<mpsc::Receiver<bytes::Bytes>>,
    speed: f64,
    idle_limit: Duration,
    tame: Option<Tame>,
}

impl Player {
    async fn play(&mut self) -> Ended {
        let mut due = Instant::now();
        let mut last = Duration::ZERO;
        loop {
            let event = match self.events.recv().await {
                Some(Ok(event)) => event,
                Some(Err(ended)) => return ended,
                None => return Ended::Over,
            };
            // A clock that went back in somebody else's recording.
            let span = event.at.saturating_sub(last).min(self.idle_limit);
            last = event.at;
            // Years of silence are more than a clock can count.
            due += span.div_f64(self.speed).min(Duration::from_secs(86_400 * 365));
            if !self.wait(&mut due).await {
                return Ended::Left;
            }
            if let Some(output) = event.output {
                let shown = self.showable(output);
                if self.shown.send(shown).await.is_err() {
                    return Ended::Left;
                }
            }
        }
    }

    fn showable(&mut self, output: String) -> bytes::Bytes {
        let Some(tame) = &mut self.tame else { return output.into() };
        let mut shown = Vec::with_capacity(output.len());
        tame.pass(output.as_bytes(), &mut shown);
        shown.into()
    }

    /// Waits until the next event is due, which a pause puts off. False where the person leaves.
    async fn wait(&mut self, due: &mut Instant) -> bool {
        let mut paused: Option<Instant> = None;
        loop {
            let key = tokio::select! {
                biased;
                keys = next_key(&mut self.keys) => keys,
                () = tokio::time::sleep_until(*due), if paused.is_none() => return true,
            };
            for key in key {
                match (key, paused.take()) {
                    (b'q' | b'Q' | 0x03 | 0x04 | 0x1d, _) => return false,
                    (b' ', None) => paused = Some(Instant::now()),
                    (b' ', Some(since)) => *due += since.elapsed(),
                    (_, unchanged) => paused = unchanged,
                }
            }
        }
    }
}

async fn next_key(keys: &mut Option<mpsc::Receiver<bytes::Bytes>>) -> bytes::Bytes {
    if let Some(receiver) = keys {
        if let Some(bytes) = receiver.recv().await {
            return bytes;
        }
        *keys = None;
    }
    std::future::pending().await
}
