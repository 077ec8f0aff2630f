//! Instructions of the way of the bytes, counted by callgrind: they do not depend on what else the machine
//! does, so they can be checked where times cannot. What is counted is `benches/relay.rs`, built as the
//! released programs are; what it should be is in `instructions.txt` beside this file.
#![cfg(target_arch = "x86_64")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How far a count may be from the recorded one, in percent.
const SLACK: u64 = 5;
/// The C library's copies in one form on all processors; callgrind counts `rep movsb` by the byte.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

#[test]
fn the_way_of_the_bytes_takes_the_instructions_that_were_recorded() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.txt");
    let recorded = std::fs::read_to_string(&file).unwrap();
    let (mut counted, mut wrong) = (String::new(), String::new());
    for line in recorded.lines() {
        let Some((scenario, before)) = line.split_once(' ').filter(|_| !line.starts_with('#')) else {
            writeln!(counted, "{line}").unwrap();
            continue;
        };
        let (before, now) = (before.trim().parse::<u64>().unwrap(), count(scenario));
        println!("{scenario}: {now}, recorded {before}");
        writeln!(counted, "{scenario} {now}").unwrap();
        if now.abs_diff(before) * 100 > before * SLACK {
            writeln!(wrong, "{scenario}: {now} instructions instead of {before}").unwrap();
        }
    }
    if std::env::var_os("RECORD").is_some_and(|value| !value.is_empty()) {
        std::fs::write(&file, counted).unwrap();
    } else {
        assert!(
            wrong.is_empty(),
            "more than {SLACK} % from what was recorded:\n{wrong}find out why (docs/benchmarks.md), or record what \
             is meant, also where it has become less: make callgrind RECORD=1"
        );
    }
}

fn count(scenario: &str) -> u64 {
    let relay = release().join("relay");
    assert!(relay.exists(), "there is no {}: make callgrind builds it", relay.display());
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=relay::counted*")
        .args([relay.as_os_str(), scenario.as_ref()])
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()
        .expect("valgrind runs: tests/host/install-needs.sh installs it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.filter(|count| *count > 0).unwrap_or_else(|| panic!("callgrind counted nothing:\n{said}"))
}

/// Where `cargo build --release` puts programs.
fn release() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    target.join("release")
}
