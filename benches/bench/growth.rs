//! `make bench PART=growth`: how our proxy grows with its clients, and the exponent of each curve: 1 is
//! proportional, 0 is constant.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::backend::{Backend, Script};
use crate::cases::{Value, percentile};
use crate::client::Client;
use crate::report::{Row, number, write_rows};
use crate::tools::{Started, Tool, Workshop};

const TIME: Duration = Duration::from_secs(3);
/// What each client of a display gets.
const EACH: u64 = 20_000_000;
/// Room for all of them.
const CONFIG: &str = "[proxy]\nmax-viewers = 300\nmax-connections = 400\n";

/// A curve: what grows, in what, and its points.
struct Curve {
    case: String,
    metric: String,
    points: Vec<(usize, f64)>,
}

/// What one point is measured by.
type Measure<const N: usize> = fn(&Workshop, usize) -> Result<[Value; N]>;

/// Measures the curves, prints them, and writes growth.json.
pub fn run(workshop: &mut Workshop, rounds: usize, folder: &Path) -> Result<()> {
    workshop.config = format!("{CONFIG}{}", workshop.config);
    let mut curves = growing(workshop, "serial-viewers", &[1, 2, 4, 8, 16, 32, 64, 128, 256], rounds, viewers)?;
    curves.extend(growing(workshop, "vnc-clients", &[1, 2, 4, 8, 16, 32, 64], rounds, displays)?);
    tell(&curves, &folder.join("growth.json"))
}

/// Reads points that were measured elsewhere, lines "CASE METRIC N VALUE"; prints the curves, and writes them as rows.
pub fn read(points: &Path) -> Result<()> {
    let text = fs::read_to_string(points).with_context(|| format!("cannot read {}", points.display()))?;
    let mut curves = Vec::<Curve>::new();
    for line in text.lines() {
        let [case, metric, n, value] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("{}: no point: {line}", points.display());
        };
        let point = (n.parse()?, value.parse()?);
        match curves.iter_mut().find(|curve| curve.case == case && curve.metric == metric) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { case: case.into(), metric: metric.into(), points: vec![point] }),
        }
    }
    tell(&curves, &points.with_extension("json"))
}

fn tell(curves: &[Curve], file: &Path) -> Result<()> {
    let mut rows = Vec::new();
    for curve in curves {
        let exponent = slope(&curve.points);
        // What does not depend on their number hides how it grows in the end.
        let upper = slope(&curve.points[curve.points.len() / 2..]);
        println!("{}, {}: exponent {exponent:.2}, of the upper half {upper:.2}", curve.case, curve.metric);
        for (n, value) in &curve.points {
            println!("{n:>8} {:>12}", number(*value));
            rows.push(Row::new(&curve.case, &n.to_string(), &curve.metric, *value));
        }
        rows.push(Row::new(&curve.case, "exponent", &curve.metric, exponent));
        rows.push(Row::new(&curve.case, "of the upper half", &curve.metric, upper));
    }
    write_rows(file, &rows)
}

/// The medians over the rounds at each size.
fn growing<const N: usize>(
    workshop: &Workshop,
    case: &str,
    sizes: &[usize],
    rounds: usize,
    measure: Measure<N>,
) -> Result<Vec<Curve>> {
    let mut curves = Vec::<Curve>::new();
    for n in sizes {
        eprintln!("bench: {case}: {n}");
        let measured: Vec<_> = (0..rounds).map(|_| measure(workshop, *n)).collect::<Result<_>>()?;
        for at in 0..N {
            let mut values: Vec<_> = measured.iter().map(|values| values[at].1).collect();
            let point = (*n, percentile(&mut values, 50));
            let metric = measured[0][at].0;
            match curves.iter_mut().find(|curve| curve.metric == metric) {
                Some(curve) => curve.points.push(point),
                None => curves.push(Curve { case: case.into(), metric: metric.into(), points: vec![point] }),
            }
        }
    }
    Ok(curves)
}

/// One serial port at one byte per byte time, with so many viewers.
fn viewers(workshop: &Workshop, n: usize) -> Result<[Value; 2]> {
    let backend = Backend::tcp(Script::Echoes(1))?;
    let started = workshop.start(Tool::ConsoleProxy, &backend.place)?;
    let mut clients = connect(workshop, &started, n, "serial/0")?;
    take(&mut clients, Instant::now() + TIME / 3, None)?;
    let (begun, cpu, before) = (Instant::now(), started.running.cpu()?, bytes(&clients));
    take(&mut clients, begun + TIME, None)?;
    let (cpu, seconds) = (started.running.cpu()? - cpu, begun.elapsed().as_secs_f64());
    let got = (bytes(&clients) - before) as f64 / seconds / n as f64;
    if got < 10_000.0 {
        bail!("a viewer got {got:.0} bytes a second of 11,520");
    }
    Ok([("cpu_percent", 100.0 * cpu / seconds), ("pss_kb", started.running.pss()? as f64)])
}

/// So many clients, each of which gets [`EACH`] bytes of a display of its own connection.
fn displays(workshop: &Workshop, n: usize) -> Result<[Value; 3]> {
    let backend = Backend::tcp(Script::Pours(EACH))?;
    let started = workshop.start(Tool::ConsoleProxy, &backend.place)?;
    let mut clients = connect(workshop, &started, n, "vnc")?;
    let (begun, cpu) = (Instant::now(), started.running.cpu()?);
    backend.go();
    take(&mut clients, begun + Duration::from_secs(120), Some(EACH))?;
    let (cpu, seconds) = (started.running.cpu()? - cpu, begun.elapsed().as_secs_f64());
    Ok([("cpu_ms", cpu * 1e3), ("seconds", seconds), ("pss_kb", started.running.pss()? as f64)])
}

fn connect(workshop: &Workshop, started: &Started, n: usize, console: &str) -> Result<Vec<Client>> {
    let one = |_| started.connect(workshop, &started.target(workshop, console)?);
    (0..n).map(one).collect::<Result<_>>().with_context(|| format!("{n} clients"))
}

fn bytes(clients: &[Client]) -> u64 {
    clients.iter().map(|client| client.count.bytes).sum()
}

/// Takes what comes to any of the clients, until then or until each has so much.
fn take(clients: &mut [Client], until: Instant, each: Option<u64>) -> Result<()> {
    let has_all = |client: &Client| each.is_some_and(|each| client.count.bytes >= each);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return if each.is_some() { bail!("not all came in time") } else { Ok(()) };
        }
        if clients.iter().all(has_all) {
            return Ok(());
        }
        let time = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        let mut polled: Vec<_> = clients.iter().map(|client| PollFd::new(client.socket(), PollFlags::IN)).collect();
        poll(&mut polled, Some(&time))?;
        let ready: Vec<_> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        for (client, is_ready) in clients.iter_mut().zip(ready) {
            if is_ready || client.has_more() {
                client.receive()?;
            }
        }
    }
}

/// The slope of the logarithms, by least squares.
fn slope(points: &[(usize, f64)]) -> f64 {
    let logs: Vec<_> = points.iter().map(|(n, value)| ((*n as f64).ln(), value.max(f64::MIN_POSITIVE).ln())).collect();
    let count = logs.len() as f64;
    let (x, y) = (logs.iter().map(|p| p.0).sum::<f64>() / count, logs.iter().map(|p| p.1).sum::<f64>() / count);
    let above: f64 = logs.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    above / logs.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}
