//! `make bench PART=scheduling`: what settings of a unit's scheduling do to our proxy, on an idle core and
//! on one that something else uses whole, as a guest's processor does.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cases::{Case, Value, percentile};
use crate::docs;
use crate::report::{Row, write_rows};
use crate::tools::{Tool, Workshop};

/// A setting as units name it, the command that does the same by hand, and the timer slack in nanoseconds.
const SETTINGS: [(&str, &str, Option<u64>); 8] = [
    ("(as it is)", "", None),
    ("TimerSlackNSec=1ns", "", Some(1)),
    ("TimerSlackNSec=1ms", "", Some(1_000_000)),
    ("TimerSlackNSec=4ms", "", Some(4_000_000)),
    ("Nice=-5", "nice -n -5", None),
    ("Nice=5", "nice -n 5", None),
    ("CPUSchedulingPolicy=batch", "chrt --batch 0", None),
    ("CPUSchedulingPolicy=rr", "chrt --rr 1", None),
];
const CASES: [Case; 3] = [Case::Serial1, Case::Echo, Case::EchoUnderFlood];

/// Measures all settings, prints a table, and writes scheduling.json.
pub fn run(workshop: &mut Workshop, rounds: usize, folder: &Path) -> Result<()> {
    let mut lines = Vec::new();
    for competes in [false, true] {
        let mut measured = vec![Vec::<(String, Vec<f64>)>::new(); SETTINGS.len()];
        for round in 1..=rounds {
            for (at, (name, wrapper, slack)) in SETTINGS.iter().enumerate() {
                eprintln!("bench: round {round} of {rounds}: {name}");
                workshop.wrapper = wrapper.split_whitespace().map(str::to_owned).collect();
                workshop.timer_slack = *slack;
                let _competitor = competes.then(|| compete(workshop)).transpose()?;
                for case in CASES {
                    for value in case.measure(Tool::ConsoleProxy, workshop).context(*name)? {
                        add(&mut measured[at], case, value);
                    }
                }
            }
        }
        for ((name, ..), values) in SETTINGS.iter().zip(measured) {
            lines.push((competes, *name, values));
        }
    }
    let mut rows = Vec::new();
    for (competes, name, values) in &mut lines {
        let core = if *competes { "a core that is used" } else { "an idle core" };
        for (head, values) in values {
            rows.push(Row::new(&format!("{core}, {name}"), head, "", percentile(values, 50)));
        }
    }
    println!("{}", docs::table(&rows));
    write_rows(&folder.join("scheduling.json"), &rows)
}

fn add(measured: &mut Vec<(String, Vec<f64>)>, case: Case, (metric, value): Value) {
    if metric == "achieved_percent" || metric == "frames_per_second" {
        return;
    }
    let head = format!("{} {metric}", case.name());
    match measured.iter_mut().find(|(known, _)| *known == head) {
        Some((_, values)) => values.push(value),
        None => measured.push((head, vec![value])),
    }
}

/// Somebody who wants all of the tool's core.
fn compete(workshop: &Workshop) -> Result<crate::machine::Running> {
    let mut command = Command::new("sh");
    workshop.cores.start(command.args(["-c", "while :; do :; done"]), &workshop.file("competitor.log"))
}
