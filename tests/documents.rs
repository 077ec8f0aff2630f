//! What the documents promise: each row of the threat model names a test, and there is one of that name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The files in which a test of that name would be; `daemon::login::a_name`, `rules::ticket::a_name`,
/// `browser/login: a title`.
fn places(test: &str) -> Option<(Vec<PathBuf>, String)> {
    if let Some((file, title)) = test.split_once(": ") {
        let file = file.strip_prefix("browser/")?;
        let title = title.replace('\'', "\\'");
        return Some((vec![root().join(format!("tests/browser/{file}.test.mjs"))], format!("test('{title}'")));
    }
    let parts: Vec<_> = test.split("::").collect();
    let (name, path) = parts.split_last()?;
    let files = match path {
        [layer @ ("rules" | "edges" | "flow" | "programs"), file] => {
            vec![root().join(format!("src/{layer}/{file}.rs")), root().join(format!("src/{layer}/{file}/tests.rs"))]
        }
        [suite @ ("daemon" | "e2e"), file] => vec![root().join(format!("tests/{suite}/{file}.rs"))],
        [suite] => vec![root().join(format!("tests/{suite}.rs"))],
        _ => return None,
    };
    Some((files, format!("fn {name}(")))
}

fn is_there(test: &str) -> bool {
    let Some((files, needle)) = places(test) else { return false };
    files.iter().any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&needle)))
}

/// Rows of the tables in a document whose last column is headed `tests`: line number, first cell, and what stands in
/// backticks in the last one.
fn rows(text: &str) -> Vec<(usize, String, Vec<String>)> {
    let mut rows = Vec::new();
    let mut is_of_tests = false;
    for (at, line) in text.lines().enumerate() {
        let Some(inside) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            is_of_tests = false;
            continue;
        };
        let cells: Vec<_> = inside.split('|').map(str::trim).collect();
        match cells.last() {
            Some(&"tests") => is_of_tests = true,
            Some(last) if is_of_tests && !last.starts_with("---") => {
                let named = last.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                rows.push((at + 1, cells[0].to_owned(), named));
            }
            _ => {}
        }
    }
    rows
}

#[test]
fn each_row_of_the_threat_model_names_tests_that_there_are() {
    let rows = rows(&fs::read_to_string(root().join("docs/threat-model.md")).unwrap());
    assert!(rows.len() > 50, "its tables are found: {}", rows.len());
    let mut wrong = Vec::new();
    for (line, what, tests) in rows {
        if tests.is_empty() {
            wrong.push(format!("line {line} ({what}) names no test"));
        }
        wrong.extend(tests.iter().filter(|test| !is_there(test)).map(|test| format!("line {line} ({what}): {test}")));
    }
    assert!(wrong.is_empty(), "no such tests:\n{}", wrong.join("\n"));
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    assert!(is_there("documents::a_test_that_is_not_there_is_noticed"));
    assert!(is_there("rules::rights::a_slip_in_a_rule_is_told_and_never_widens_it"));
    for test in ["documents::nothing", "rules::nothing::at_all", "browser/entry: nothing", "x", "daemon::login::a"] {
        assert!(!is_there(test), "{test}");
    }
    let table = "| a | tests |\n|---|---|\n| row | `x::y`, `z` |\n\n| b | other |\n|---|---|\n| no | `w` |\n";
    assert_eq!(rows(table), [(3, "row".to_owned(), vec!["x::y".to_owned(), "z".to_owned()])]);
}
