//! What is measured: each case is one tool in front of one backend, once. Docs: docs/benchmarks.md.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::backend::{BYTE_TIME, Backend, Script};
use crate::client::Client;
use crate::tools::{Started, Tool, Workshop};

/// A serial port is listened to for so long, after so long a start.
const SERIAL: Duration = Duration::from_secs(3);
const SETTLING: Duration = Duration::from_millis(500);
/// Keys of one echo measurement.
const KEYS: usize = 400;
/// How long an echo may take.
const ECHO: Duration = Duration::from_secs(2);
const FRAME: usize = 16 << 10;
const DOWN: u64 = 200_000_000;
const UP: u64 = 100_000_000;
/// Connections of one measurement.
const WARM: usize = 30;
const COLD: usize = 8;

/// A case. Those of [`Case::ALL`] after the first nine are for docs/benchmarks.md, not for results.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    /// One byte per byte time of 115,200 baud.
    Serial1,
    /// Eight bytes in one write per byte time: a guest that says much.
    Serial8,
    /// One key and its echo, at random times.
    Echo,
    /// The same while the backend says one byte per byte time.
    EchoUnderFlood,
    /// From the backend to the browser.
    BulkDown,
    /// From the browser to the backend, in frames of 16 KiB.
    BulkUp,
    /// After 16 MB both ways.
    Memory,
    /// Connect to first byte, with the tool running.
    FirstByteWarm,
    /// The same with whoever connects starting it.
    FirstByteCold,
    /// As echo-under-flood, while the backend speaks as fast as it is listened to.
    EchoUnderFullFlood,
    /// From the browser in frames of 64 KiB.
    BulkUp64k,
    /// Frames of six bytes, each a TLS record: pointer events.
    Pointer,
    /// As memory, of a serial port that spoke for a second at eight bytes per byte time.
    MemorySerial,
    /// As first-byte-warm, with the backend on a unix socket.
    FirstByteWarmUnix,
    /// As first-byte-cold, with the backend on a unix socket.
    FirstByteColdUnix,
}

/// A measured value: its metric, and how much.
pub type Value = (&'static str, f64);

impl Case {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 15] = [
        Self::Serial1,
        Self::Serial8,
        Self::Echo,
        Self::EchoUnderFlood,
        Self::BulkDown,
        Self::BulkUp,
        Self::Memory,
        Self::FirstByteWarm,
        Self::FirstByteCold,
        Self::EchoUnderFullFlood,
        Self::BulkUp64k,
        Self::Pointer,
        Self::MemorySerial,
        Self::FirstByteWarmUnix,
        Self::FirstByteColdUnix,
    ];

    /// As the command line and the results have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial1 => "serial-1",
            Self::Serial8 => "serial-8",
            Self::Echo => "echo",
            Self::EchoUnderFlood => "echo-under-flood",
            Self::BulkDown => "bulk-down",
            Self::BulkUp => "bulk-up",
            Self::Memory => "memory",
            Self::FirstByteWarm => "first-byte-warm",
            Self::FirstByteCold => "first-byte-cold",
            Self::EchoUnderFullFlood => "echo-under-full-flood",
            Self::BulkUp64k => "bulk-up-64k",
            Self::Pointer => "pointer",
            Self::MemorySerial => "memory-serial",
            Self::FirstByteWarmUnix => "first-byte-warm-unix",
            Self::FirstByteColdUnix => "first-byte-cold-unix",
        }
    }

    /// Whether it stands in results.json.
    pub fn is_main(self) -> bool {
        Self::ALL.iter().position(|case| *case == self).is_some_and(|at| at < 9)
    }

    /// Whether it makes sense for a tool.
    pub fn fits(self, tool: Tool) -> bool {
        tool != Tool::Forwarding || matches!(self, Self::BulkDown | Self::BulkUp | Self::BulkUp64k | Self::Pointer)
    }

    /// Measures it once.
    pub fn measure(self, tool: Tool, workshop: &Workshop) -> Result<Vec<Value>> {
        let measured = match self {
            Self::Serial1 => serial(tool, workshop, 1),
            Self::Serial8 => serial(tool, workshop, 8),
            Self::Echo => echo(tool, workshop, Script::Echoes(0)),
            Self::EchoUnderFlood => echo(tool, workshop, Script::Echoes(1)),
            Self::EchoUnderFullFlood => echo(tool, workshop, Script::EchoesInFlood),
            Self::BulkDown => bulk_down(tool, workshop),
            Self::BulkUp => bulk_up(tool, workshop, FRAME, UP),
            Self::BulkUp64k => bulk_up(tool, workshop, 4 * FRAME, UP),
            Self::Pointer => pointer(tool, workshop),
            Self::Memory => memory(tool, workshop),
            Self::MemorySerial => memory_serial(tool, workshop),
            Self::FirstByteWarm => first_byte_warm(tool, workshop, Backend::tcp(Script::Greets)?),
            Self::FirstByteWarmUnix => first_byte_warm(tool, workshop, unix_backend(workshop)?),
            Self::FirstByteCold => first_byte_cold(tool, workshop, &Backend::tcp(Script::Greets)?),
            Self::FirstByteColdUnix => first_byte_cold(tool, workshop, &unix_backend(workshop)?),
        };
        measured.with_context(|| format!("{} of {tool}", self.name()))
    }
}

fn unix_backend(workshop: &Workshop) -> Result<Backend> {
    Backend::unix(Script::Greets, &workshop.file("backend.sock"))
}

/// A tool in front of a backend, and a client that is through.
fn through(tool: Tool, workshop: &Workshop, backend: &Backend, console: &str) -> Result<(Started, Client)> {
    let started = workshop.start(tool, &backend.place)?;
    let client = started.connect(workshop, &started.target(workshop, console)?)?;
    Ok((started, client))
}

fn serial(tool: Tool, workshop: &Workshop, bytes: usize) -> Result<Vec<Value>> {
    let backend = Backend::tcp(Script::Echoes(bytes))?;
    let (started, mut client) = through(tool, workshop, &backend, "serial/0")?;
    listen(&mut client, Instant::now() + SETTLING)?;
    let (begun, cpu, count, said) = (Instant::now(), started.running.cpu()?, client.count, backend.said());
    listen(&mut client, begun + SERIAL)?;
    let (cpu, seconds) = (started.running.cpu()? - cpu, begun.elapsed().as_secs_f64());
    let rate = (backend.said() - said) as f64 / seconds;
    let lost = (backend.said() - said).abs_diff(client.count.bytes - count.bytes);
    if lost > (said / 4).max(4096) {
        bail!("{lost} bytes of what the backend said did not come");
    }
    let mut values = vec![
        ("cpu_percent", 100.0 * cpu / seconds),
        ("achieved_percent", 100.0 * rate * BYTE_TIME.as_secs_f64() / bytes as f64),
    ];
    if tool.speech() == crate::client::Speech::Wss {
        values.insert(1, ("frames_per_second", (client.count.frames - count.frames) as f64 / seconds));
    }
    Ok(values)
}

/// Takes all that comes until then.
fn listen(client: &mut Client, until: Instant) -> Result<()> {
    while Instant::now() < until {
        if client.wait(until) {
            client.receive()?;
        }
    }
    Ok(())
}

fn echo(tool: Tool, workshop: &Workshop, script: Script) -> Result<Vec<Value>> {
    let backend = Backend::tcp(script)?;
    let (_started, mut client) = through(tool, workshop, &backend, "serial/0")?;
    client.keeps = true;
    listen(&mut client, Instant::now() + SETTLING)?;
    let (mut times, mut lost, mut dice) = (Vec::with_capacity(KEYS), 0, Dice(0x2545_f491_4f6c_dd1d));
    // Keys that no flood and no notice contains; each is another than the last ones, so that late echoes are known.
    for key in (0x80..=0xff).cycle().take(KEYS) {
        listen(&mut client, Instant::now() + dice.between(2.0, 20.0))?;
        let begun = Instant::now();
        client.say(&[key])?;
        if until_seen(&mut client, key, begun + ECHO)? {
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        } else {
            lost += 1;
        }
    }
    // In a flood that the client is too slow for, echoes may be among what is dropped.
    if times.len() < KEYS / 2 || (lost > 0 && !matches!(script, Script::EchoesInFlood)) {
        bail!("{lost} of {KEYS} keys were not echoed within {ECHO:?}");
    }
    let mut values = vec![("p50_us", percentile(&mut times, 50)), ("p99_us", percentile(&mut times, 99))];
    if matches!(script, Script::EchoesInFlood) {
        values.push(("lost_percent", 100.0 * f64::from(lost) / KEYS as f64));
    }
    Ok(values)
}

fn until_seen(client: &mut Client, key: u8, until: Instant) -> Result<bool> {
    while client.wait(until) {
        client.receive()?;
        if client.payload.contains(&key) {
            return Ok(true);
        }
        if Instant::now() > until {
            break;
        }
    }
    Ok(false)
}

fn bulk_down(tool: Tool, workshop: &Workshop) -> Result<Vec<Value>> {
    // A screen's worth in frames as QEMU makes them.
    let script = if tool == Tool::Forwarding { Script::PoursFrames(DOWN, 32 << 10) } else { Script::Pours(DOWN) };
    let backend = Backend::tcp(script)?;
    let (started, mut client) = through(tool, workshop, &backend, "vnc")?;
    let (begun, cpu) = (Instant::now(), started.running.cpu()?);
    backend.go();
    client.receive_until(DOWN - DOWN / 1000)?;
    let (cpu, seconds) = (started.running.cpu()? - cpu, begun.elapsed().as_secs_f64());
    let megabytes = client.count.bytes as f64 / 1e6;
    Ok(vec![("cpu_ms_per_mb", cpu * 1e3 / megabytes), ("mb_per_second", megabytes / seconds)])
}

fn bulk_up(tool: Tool, workshop: &Workshop, size: usize, total: u64) -> Result<Vec<Value>> {
    let (cpu, seconds, frames) = send(tool, workshop, size, total)?;
    let megabytes = frames as f64 * size as f64 / 1e6;
    Ok(vec![("cpu_ms_per_mb", cpu * 1e3 / megabytes), ("mb_per_second", megabytes / seconds)])
}

fn pointer(tool: Tool, workshop: &Workshop) -> Result<Vec<Value>> {
    let (cpu, _, frames) = send(tool, workshop, 6, 300_000)?;
    Ok(vec![("cpu_us_per_frame", cpu * 1e6 / frames as f64)])
}

/// Sends so many bytes in frames of one size; CPU seconds, seconds, and frames.
fn send(tool: Tool, workshop: &Workshop, size: usize, total: u64) -> Result<(f64, f64, u64)> {
    let frames = total.div_ceil(size as u64);
    let header = if size < 126 {
        6
    } else if size < 1 << 16 {
        8
    } else {
        14
    };
    let script = match tool {
        Tool::Forwarding => Script::SwallowsFrames(frames * (size as u64 + header)),
        _ => Script::Swallows(frames * size as u64),
    };
    let backend = Backend::tcp(script)?;
    let (started, mut client) = through(tool, workshop, &backend, "vnc")?;
    let frame = client.framed(&vec![b'u'; size]);
    let (begun, cpu) = (Instant::now(), started.running.cpu()?);
    for _ in 0..frames {
        client.put(&frame)?;
    }
    client.receive_until(1)?;
    Ok((started.running.cpu()? - cpu, begun.elapsed().as_secs_f64(), frames))
}

fn memory(tool: Tool, workshop: &Workshop) -> Result<Vec<Value>> {
    let backend = Backend::tcp(Script::Echoes(0))?;
    let (started, mut client) = through(tool, workshop, &backend, "vnc")?;
    for part in 1..=1000 {
        client.say(&[b'm'; FRAME])?;
        client.receive_until(part * FRAME as u64)?;
    }
    Ok(vec![("pss_kb", started.running.pss()? as f64)])
}

fn memory_serial(tool: Tool, workshop: &Workshop) -> Result<Vec<Value>> {
    let backend = Backend::tcp(Script::Echoes(8))?;
    let (started, mut client) = through(tool, workshop, &backend, "serial/0")?;
    listen(&mut client, Instant::now() + Duration::from_secs(1))?;
    Ok(vec![("pss_kb", started.running.pss()? as f64)])
}

fn first_byte_warm(tool: Tool, workshop: &Workshop, backend: Backend) -> Result<Vec<Value>> {
    let started = workshop.start(tool, &backend.place)?;
    let mut times = Vec::with_capacity(WARM);
    // The first one warms it.
    for _ in 0..=WARM {
        times.push(first_byte(&started, workshop)?);
        std::thread::sleep(Duration::from_millis(5));
    }
    times.remove(0);
    drop(backend);
    Ok(vec![("ms", percentile(&mut times, 50))])
}

fn first_byte_cold(tool: Tool, workshop: &Workshop, backend: &Backend) -> Result<Vec<Value>> {
    let mut times = Vec::with_capacity(COLD);
    for _ in 0..COLD {
        let started = workshop.activated(tool, &backend.place)?;
        // The port is listened on a moment before it is waited at.
        std::thread::sleep(Duration::from_millis(20));
        times.push(first_byte(&started, workshop)?);
    }
    Ok(vec![("ms", percentile(&mut times, 50))])
}

/// From before the connection to after the backend's first byte, in milliseconds.
fn first_byte(started: &Started, workshop: &Workshop) -> Result<f64> {
    let target = started.target(workshop, "vnc")?;
    let begun = Instant::now();
    let mut client = started.connect(workshop, &target)?;
    client.receive_until(1)?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// The value that so many of a hundred do not exceed.
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent).div_ceil(100).max(1) - 1]
}

/// Random numbers, the same ones in every run (xorshift64).
struct Dice(u64);

impl Dice {
    /// A time between so many milliseconds.
    fn between(&mut self, least: f64, most: f64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let part = (self.0 >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64((least + (most - least) * part) / 1e3)
    }
}
