//! `make bench PART=docs`: what the last runs wrote, as tables in docs/benchmarks.md between two marks.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use time::OffsetDateTime;

use crate::report::{Row, number};

const BEGIN: &str = "<!-- results: written by make bench PART=docs -->\n";
const END: &str = "<!-- end of results -->\n";

/// Files of rows, and the head of each's table.
const TABLES: [(&str, &str); 7] = [
    ("results.json", "Beside other tools"),
    ("more.json", "Beside other tools: more"),
    ("unit.json", "First byte through the installed unit"),
    ("growth.json", "Growth with the number of clients"),
    ("guests.json", "Growth with the number of guests"),
    ("screen.json", "A guest's busy screen: bridged, and QEMU's own websocket forwarded"),
    ("scheduling.json", "Scheduling settings of the unit"),
];

/// Puts the results in `folder` into the document.
pub fn write(folder: &Path, document: &Path) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.with_context(|| format!("{} has not both marks of the results", document.display()))?;
    let mut results = format!("{}\n", machine());
    for (file, head) in TABLES {
        let path = folder.join(file);
        if !path.exists() {
            eprintln!("bench: there is no {file}: its table is left out");
            continue;
        }
        let rows = fs::read_to_string(&path)?;
        let rows: Vec<Row> =
            serde_json::from_str(&rows).with_context(|| format!("{} is not understood", path.display()))?;
        let _ = write!(results, "\n### {head}\n{}", table(&rows));
    }
    fs::write(document, [before, BEGIN, &results, END, after].concat())
        .with_context(|| format!("cannot write {}", document.display()))
}

/// A line for each case and metric, a column for each tool.
pub fn table(rows: &[Row]) -> String {
    let (mut lines, mut columns) = (Vec::new(), Vec::new());
    for row in rows {
        if !lines.contains(&(&row.case, &row.metric)) {
            lines.push((&row.case, &row.metric));
        }
        if !columns.contains(&&row.tool) {
            columns.push(&row.tool);
        }
    }
    let heads: Vec<_> = columns.iter().map(|column| format!(" {column} |")).collect();
    let mut text = format!("| case | metric |{}\n|---|---|{}", heads.concat(), "--:|".repeat(columns.len()));
    for (case, metric) in lines {
        let _ = write!(text, "\n| {case} | {metric} |");
        for column in &columns {
            let found = rows.iter().find(|row| (&row.case, &row.metric, &&row.tool) == (case, metric, column));
            let _ = write!(text, " {} |", found.map_or_else(String::new, |row| number(row.value)));
        }
    }
    text.push('\n');
    text
}

/// When, on what, against which versions.
fn machine() -> String {
    let today = OffsetDateTime::now_utc().date();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("of unknown kind");
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!(
        "{today}: {cores} cores ({}), Linux {}; websocat 1.14.0",
        model.trim_start_matches(['\t', ' ', ':']),
        kernel.trim().split('-').next().unwrap_or_default()
    );
    for package in ["websockify", "haproxy", "socat", "systemd", "qemu-system-x86"] {
        let asked = Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]).output();
        let version = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let _ = write!(text, ", {package} {}", if version.is_empty() { "unknown" } else { &version });
    }
    text.push('.');
    text
}
