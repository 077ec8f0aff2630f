//! The results as a picture: one panel for each case and metric, a bar for each tool.

use std::fmt::Write as _;

use crate::report::{Report, number};
use crate::tools::Tool;

const COLUMNS: usize = 3;
const WIDTH: usize = 380;
const NAMES: usize = 150;
const BARS: usize = 150;
const BAR: usize = 18;

/// An SVG of all main cases that were measured. Shorter bars are better; each panel has a scale of its own.
pub fn svg(report: &Report) -> String {
    let panels: Vec<_> = report
        .lines()
        .into_iter()
        .filter(|(case, metric)| case.is_main() && *metric != "achieved_percent" && *metric != "mb_per_second")
        .collect();
    let tools: Vec<_> = report.tools().into_iter().filter(|tool| *tool != Tool::Forwarding).collect();
    let height = 46 + tools.len() * BAR + 14;
    let rows = panels.len().div_ceil(COLUMNS);
    let (wide, high) = (COLUMNS * WIDTH + 20, rows * height + 50);
    let mut text = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{wide}' height='{high}' viewBox='0 0 {wide} {high}' \
         font-family='sans-serif' font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n\
         <text x='20' y='28' font-size='16'>Shorter is better. Each panel has a scale of its own; the yardsticks \
         in grey do less: no websocket, or no TLS.</text>\n"
    );
    for (at, (case, metric)) in panels.into_iter().enumerate() {
        let (left, top) = (20 + at % COLUMNS * WIDTH, 50 + at / COLUMNS * height);
        let values: Vec<_> = tools.iter().map(|tool| report.value(case, *tool, metric)).collect();
        let most = values.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
        let _ = writeln!(
            text,
            "<text x='{left}' y='{}' font-weight='bold'>{}: {}</text>",
            top + 20,
            case.name(),
            unit(metric)
        );
        for (line, (tool, value)) in tools.iter().zip(values).enumerate() {
            let y = top + 32 + line * BAR;
            let base = y + BAR - 6;
            let _ = write!(text, "<text x='{}' y='{base}' text-anchor='end'>{tool}</text>", left + NAMES - 6);
            let Some(value) = value else {
                let _ = writeln!(text, "<text x='{}' y='{base}' fill='#888'>-</text>", left + NAMES);
                continue;
            };
            let width = (value / most * BARS as f64).max(1.0);
            let _ = writeln!(
                text,
                "<rect x='{}' y='{}' width='{width:.1}' height='{}' fill='{}'/><text x='{:.1}' y='{base}'>{}</text>",
                left + NAMES,
                y + 1,
                BAR - 4,
                colour(*tool),
                (left + NAMES) as f64 + width + 5.0,
                number(value)
            );
        }
    }
    text.push_str("</svg>\n");
    text
}

fn unit(metric: &str) -> &str {
    match metric {
        "cpu_percent" => "CPU, % of a core",
        "frames_per_second" => "frames per second",
        "p50_us" => "median, µs",
        "p99_us" => "99th percentile, µs",
        "cpu_ms_per_mb" => "CPU, ms per MB",
        "pss_kb" => "memory (PSS), KiB",
        "ms" => "ms",
        other => other,
    }
}

fn colour(tool: Tool) -> &'static str {
    match tool {
        Tool::ConsoleProxy | Tool::Forwarding => "#1b6ca8",
        Tool::Websockify | Tool::Websocat => "#e08e45",
        Tool::SocketProxyd | Tool::Socat | Tool::Haproxy => "#b5b5b5",
    }
}
