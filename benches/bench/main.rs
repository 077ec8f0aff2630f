//! `make bench`: console-proxy beside the tools that people use for the same, in one run on one machine.
//! What is measured and how: docs/benchmarks.md.
#![allow(clippy::print_stdout, reason = "the table is for whoever runs it")]
#![allow(unreachable_pub, reason = "one program in several files")]
#![allow(clippy::cast_precision_loss, reason = "figures are shown with three digits")]

mod backend;
mod cases;
mod client;
mod docs;
mod growth;
mod machine;
mod picture;
mod report;
mod rfb;
mod scheduling;
mod screen;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;

use cases::{Case, percentile};
use client::{Client, Setting, Speech};
use machine::Cores;
use report::{Report, Row, write_rows};
use tools::{Tool, Workshop};

/// Measures console-proxy and the tools beside it.
#[derive(Parser, Debug)]
struct Arguments {
    /// What is done.
    #[arg(long, value_enum, default_value_t = Part::Tools)]
    part: Part,
    /// Names of cases, separated by blanks; none: all.
    #[arg(long, default_value = "")]
    cases: String,
    /// Names of tools, separated by blanks; none: all that are there.
    #[arg(long, default_value = "")]
    tools: String,
    /// How often each is measured; what counts is the median.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where console-proxy's programs are.
    #[arg(long, default_value = "target/release")]
    release: PathBuf,
    /// Where what is built to compare with is, and results go.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// A line for console-proxy's configuration, such as `serial.pause = "5ms"`.
    #[arg(long)]
    config: Vec<String>,
    /// A command in whose words the daemon is started, such as `nice -n -5`.
    #[arg(long, default_value = "")]
    wrapper: String,
    /// For `--part points`.
    #[arg(long)]
    file: Option<PathBuf>,
    /// For `--part connect`.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// For `--part connect`: path and query.
    #[arg(long, default_value = "/")]
    target: String,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Part {
    /// The tools beside each other.
    Tools,
    /// A guest's busy screen, forwarded and bridged.
    Screen,
    /// Settings of a unit's scheduling.
    Scheduling,
    /// Growth with the number of clients.
    Growth,
    /// Reads a file of points that were measured elsewhere: `--file`.
    Points,
    /// Reads a file of values that were measured elsewhere: `--file`.
    Values,
    /// Writes the results' tables into docs/benchmarks.md.
    Docs,
    /// Milliseconds from a connection to its first byte: `--port` and `--target`.
    Connect,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    match arguments.part {
        Part::Points => return growth::read(arguments.file.as_deref().context("--part points takes --file")?),
        Part::Values => return values(arguments.file.as_deref().context("--part values takes --file")?),
        Part::Docs => return docs::write(&arguments.folder, Path::new("docs/benchmarks.md")),
        Part::Connect => return connect(arguments.port, &arguments.target),
        _ => {}
    }
    let cores = Cores::find()?;
    cores.take_ours()?;
    if cores.tool == cores.ours {
        eprintln!("bench: there is one core only: the measuring side and the tool disturb each other");
    }
    // Two runs at once disturb each other's figures, but not each other's files.
    let work = arguments.folder.join(format!("work-{}", std::process::id()));
    let mut workshop = Workshop::new(&work, &arguments.release, &arguments.folder.join("tools"), cores)?;
    workshop.config = arguments.config.join("\n");
    workshop.wrapper = arguments.wrapper.split_whitespace().map(str::to_owned).collect();
    match arguments.part {
        Part::Scheduling => scheduling::run(&mut workshop, arguments.rounds, &arguments.folder),
        Part::Growth => growth::run(&mut workshop, arguments.rounds, &arguments.folder),
        Part::Screen => screen::run(&workshop, &arguments.folder.join("../guest"), arguments.rounds, &arguments.folder),
        _ => compare(arguments, &workshop),
    }
}

fn connect(port: u16, target: &str) -> Result<()> {
    let setting = Setting::new()?;
    let begun = Instant::now();
    Client::connect(&setting, port, Speech::Wss, target)?.receive_until(1)?;
    println!("{:.3}", begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Medians of lines "CASE METRIC VALUE" about the installed unit.
fn values(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut measured = Vec::<((&str, &str), Vec<f64>)>::new();
    for line in text.lines() {
        let [case, metric, value] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("{}: no value: {line}", file.display());
        };
        match measured.iter_mut().find(|(known, _)| *known == (case, metric)) {
            Some((_, values)) => values.push(value.parse()?),
            None => measured.push(((case, metric), vec![value.parse()?])),
        }
    }
    let one = |((case, metric), values): &mut ((&str, &str), Vec<f64>)| {
        Row::new(case, "console-proxy@.service", metric, percentile(values, 50))
    };
    let rows: Vec<_> = measured.iter_mut().map(one).collect();
    println!("{}", docs::table(&rows));
    write_rows(&file.with_extension("json"), &rows)
}

/// The tools beside each other.
fn compare(arguments: &Arguments, workshop: &Workshop) -> Result<()> {
    let cases = chosen(&arguments.cases, &Case::ALL, Case::name, "case")?;
    let tools = chosen(&arguments.tools, &Tool::ALL, Tool::name, "tool")?;
    let (begun, mut report) = (Instant::now(), Report::default());
    let mut failures = 0;
    for round in 1..=arguments.rounds {
        for case in &cases {
            eprintln!(
                "bench: {:4.0} s  round {round} of {}: {}",
                begun.elapsed().as_secs_f64(),
                arguments.rounds,
                case.name()
            );
            // Another one is first in each round.
            for at in 0..tools.len() {
                let tool = tools[(at + round) % tools.len()];
                if !case.fits(tool) {
                    continue;
                }
                match case.measure(tool, workshop) {
                    Ok(values) => values.into_iter().for_each(|(metric, value)| report.add(*case, tool, metric, value)),
                    Err(why) => {
                        eprintln!("bench: {why:#}");
                        failures += 1;
                    }
                }
            }
        }
    }
    println!("{}", report.table());
    report.write(&arguments.folder)?;
    let picture = arguments.folder.join("results.svg");
    std::fs::write(&picture, picture::svg(&report)).with_context(|| format!("cannot write {}", picture.display()))?;
    println!("written: results.json, more.json and results.svg in {}", arguments.folder.display());
    if failures > 0 {
        bail!("{failures} measurements failed, see above");
    }
    Ok(())
}

/// The things of these names.
fn chosen<T: Copy>(names: &str, all: &[T], name: impl Fn(T) -> &'static str, what: &str) -> Result<Vec<T>> {
    let one = |wanted: &str| {
        let found = all.iter().copied().find(|thing| name(*thing) == wanted);
        let known = || all.iter().map(|thing| name(*thing)).collect::<Vec<_>>().join(", ");
        found.with_context(|| format!("there is no {what} {wanted:?}; there are {}", known()))
    };
    let found: Vec<_> = names.split_whitespace().map(one).collect::<Result<_>>()?;
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    if found.is_empty() {
        bail!("no {what} is named");
    }
    Ok(found)
}
