//! What came out: medians over the rounds, a table, results.json.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cases::{Case, percentile};
use crate::tools::Tool;

/// The metrics of results.json; others are told beside them.
const METRICS: [&str; 7] = ["cpu_percent", "frames_per_second", "p50_us", "p99_us", "cpu_ms_per_mb", "pss_kb", "ms"];

/// One value of results.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub case: String,
    /// Of which tool.
    pub tool: String,
    /// In what.
    pub metric: String,
    /// The median over the rounds.
    pub value: f64,
}

impl Row {
    /// A row whose value has four digits after the point.
    pub fn new(case: &str, tool: &str, metric: &str, value: f64) -> Self {
        let value = (value * 1e4).round() / 1e4;
        Self { case: case.to_owned(), tool: tool.to_owned(), metric: metric.to_owned(), value }
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    measured: Vec<(Case, Tool, &'static str, Vec<f64>)>,
}

impl Report {
    /// Adds one round's value.
    pub fn add(&mut self, case: Case, tool: Tool, metric: &'static str, value: f64) {
        let known = self.measured.iter_mut().find(|(c, t, m, _)| (*c, *t, *m) == (case, tool, metric));
        match known {
            Some((.., values)) => values.push(value),
            None => self.measured.push((case, tool, metric, vec![value])),
        }
    }

    /// The median over the rounds.
    pub fn value(&self, case: Case, tool: Tool, metric: &str) -> Option<f64> {
        let found = self.measured.iter().find(|(c, t, m, _)| (*c, *t, *m) == (case, tool, metric));
        found.map(|(.., values)| percentile(&mut values.clone(), 50))
    }

    /// The measured cases with their metrics, in order.
    pub fn lines(&self) -> Vec<(Case, &'static str)> {
        let mut lines = Vec::new();
        for case in Case::ALL {
            for (c, _, metric, _) in &self.measured {
                if *c == case && !lines.contains(&(case, *metric)) {
                    lines.push((case, *metric));
                }
            }
        }
        lines
    }

    /// The measured tools, in order.
    pub fn tools(&self) -> Vec<Tool> {
        Tool::ALL.into_iter().filter(|tool| self.measured.iter().any(|(_, t, ..)| t == tool)).collect()
    }

    /// A table for people: a line for each metric, a column for each tool.
    pub fn table(&self) -> String {
        let tools = self.tools();
        let mut text = format!("{:<41}", "");
        for tool in &tools {
            let _ = write!(text, "{:>width$}", tool.name(), width = tool.name().len().max(10) + 2);
        }
        text.push('\n');
        for (case, metric) in self.lines() {
            let _ = write!(text, "{:<22} {metric:<18}", case.name());
            for tool in &tools {
                let shown = self.value(case, *tool, metric).map_or_else(|| "-".to_owned(), number);
                let _ = write!(text, "{shown:>width$}", width = tool.name().len().max(10) + 2);
            }
            text.push('\n');
        }
        text
    }

    /// Writes results.json, and what is beside the table of the issue to more.json.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let (mut main, mut more) = (Vec::new(), Vec::new());
        for (case, metric) in self.lines() {
            for tool in self.tools() {
                let Some(value) = self.value(case, tool, metric) else { continue };
                let is_main = case.is_main() && METRICS.contains(&metric) && tool != Tool::Forwarding;
                let rows = if is_main { &mut main } else { &mut more };
                rows.push(Row::new(case.name(), tool.name(), metric, value));
            }
        }
        write_rows(&folder.join("results.json"), &main)?;
        write_rows(&folder.join("more.json"), &more)
    }
}

/// Writes rows, one a line.
pub fn write_rows(path: &Path, rows: &[Row]) -> Result<()> {
    let lines: Vec<_> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    fs::write(path, format!("[\n{}\n]\n", lines.join(",\n")))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    rest.map_or(grouped.clone(), |rest| format!("{grouped}.{rest}"))
}
