//! `make bench PART=screen`: a real guest's busy screen through QEMU's own websocket, forwarded, and
//! through its raw port, bridged; what it costs QEMU and what it costs the proxy.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cases::percentile;
use crate::docs;
use crate::machine::{Running, cpu_of_threads, free_port, start};
use crate::report::{Row, write_rows};
use crate::rfb::{Encoding, Viewer};
use crate::tools::Workshop;

/// How long one way is watched in one round, after so long a start.
const TIME: Duration = Duration::from_secs(6);
const SETTLING: Duration = Duration::from_secs(1);
/// A screenful of new text, twenty times a second.
const BUSY: &str = "while :; do head -c 1200 /dev/urandom | base64; usleep 50000; done >/dev/tty1 2>/dev/null &\n";

/// One way through which the screen was watched, in one encoding.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// CPU of QEMU's threads but the emulated processor, and of the proxy; ms a second.
    qemu: f64,
    proxy: f64,
    megabytes: f64,
    updates: f64,
    frames: f64,
}

/// Watches it by both ways in all encodings, prints a table, and writes screen.json.
pub fn run(workshop: &Workshop, guest: &Path, rounds: usize, folder: &Path) -> Result<()> {
    let (vnc, websocket, serial) = (free_port()?, free_port()?, free_port()?);
    let mut qemu = start_guest(workshop, guest, [vnc, websocket, serial])?;
    for port in [vnc, websocket, serial] {
        qemu.wait_for(port)?;
    }
    make_busy(serial)?;
    let ways = [("bridged", "raw", vnc), ("forwarded", "websocket", websocket)];
    let mut all = vec![Vec::new(); Encoding::ALL.len() * ways.len()];
    for round in 1..=rounds {
        for (at, encoding) in Encoding::ALL.into_iter().enumerate() {
            eprintln!("bench: round {round} of {rounds}: {}", encoding.name());
            for (way, (_, side, port)) in ways.iter().enumerate() {
                let watched = watch(workshop, &qemu, side, *port, encoding)?;
                all[at * ways.len() + way].push(watched);
            }
        }
    }
    let mut rows = Vec::new();
    for (at, encoding) in Encoding::ALL.into_iter().enumerate() {
        for (metric, part) in METRICS {
            for (way, (name, ..)) in ways.iter().enumerate() {
                let mut values: Vec<_> = all[at * ways.len() + way].iter().map(part).collect();
                rows.push(Row::new(encoding.name(), name, metric, percentile(&mut values, 50)));
            }
        }
    }
    println!("{}", docs::table(&rows));
    write_rows(&folder.join("screen.json"), &rows)
}

type Part = fn(&Watched) -> f64;

const METRICS: [(&str, Part); 8] = [
    ("QEMU, ms per second", |watched| watched.qemu),
    ("proxy, ms per second", |watched| watched.proxy),
    ("both, ms per second", |watched| watched.qemu + watched.proxy),
    ("QEMU, ms per MB", |watched| watched.qemu / watched.megabytes),
    ("proxy, ms per MB", |watched| watched.proxy / watched.megabytes),
    ("MB per second", |watched| watched.megabytes),
    ("updates per second", |watched| watched.updates),
    ("frames per second", |watched| watched.frames),
];

/// The test guest with a screen, on the measuring side's core.
fn start_guest(workshop: &Workshop, guest: &Path, [vnc, websocket, serial]: [u16; 3]) -> Result<Running> {
    let (kernel, initrd) = (guest.join("vmlinuz"), guest.join("initrd"));
    if !kernel.exists() || !initrd.exists() {
        bail!("there is no test guest in {}: tests/host/guest.sh builds it", guest.display());
    }
    let display = vnc.checked_sub(5900).context("the free port is no display's")?;
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-name", "bench,debug-threads=on", "-machine", "pc,accel=tcg", "-m", "128", "-nic", "none"])
        .args(["-vga", "std", "-append", "console=tty0 console=ttyS0 panic=1 quiet guest=bench"])
        .arg("-vnc")
        .arg(format!("127.0.0.1:{display},websocket={websocket},share=ignore"))
        .arg("-serial")
        .arg(format!("tcp:127.0.0.1:{serial},server=on,wait=off"))
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd);
    start(&mut command, &workshop.file("qemu.log"))
}

/// Waits for the guest's shell on its serial port, and has it write to its screen.
fn make_busy(serial: u16) -> Result<()> {
    let mut line = TcpStream::connect(("127.0.0.1", serial)).context("the guest's serial port")?;
    line.set_read_timeout(Some(Duration::from_secs(60)))?;
    let (mut said, mut buffer) = (Vec::<u8>::new(), [0; 4096]);
    while !said.windows(7).any(|part| part == b"ttyS0# ") {
        match line.read(&mut buffer).context("the guest's shell does not come")? {
            0 => bail!("the guest's serial port was closed"),
            n => said.extend(&buffer[..n]),
        }
    }
    line.write_all(BUSY.as_bytes())?;
    // Its output must be read or it stops; the shell is silent from now on.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

fn watch(workshop: &Workshop, qemu: &Running, side: &str, port: u16, encoding: Encoding) -> Result<Watched> {
    let started = workshop.start_ours(&[("vnc", side, &format!("tcp:127.0.0.1:{port}"))])?;
    let mut client = started.connect(workshop, &started.target(workshop, "vnc")?)?;
    let mut viewer = Viewer::open(&mut client, encoding)?;
    viewer.watch(Instant::now() + SETTLING)?;
    let of_qemu = || cpu_of_threads(qemu.pid(), |name| !name.starts_with("CPU "));
    let before = (of_qemu()?, started.running.cpu()?, viewer.bytes(), viewer.updates, viewer.frames());
    let begun = Instant::now();
    viewer.watch(begun + TIME)?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Watched {
        qemu: (of_qemu()? - before.0) * 1e3 / seconds,
        proxy: (started.running.cpu()? - before.1) * 1e3 / seconds,
        megabytes: (viewer.bytes() - before.2) as f64 / 1e6 / seconds,
        updates: (viewer.updates - before.3) as f64 / seconds,
        frames: (viewer.frames() - before.4) as f64 / seconds,
    })
}
