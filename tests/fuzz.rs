//! The fuzz targets without a fuzzer: each over its corpus, and over mutations of it by a generator with a known seed, so
//! that what fails today fails tomorrow. `make fuzz TARGET=...` looks further.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(missing_docs, unreachable_pub)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[path = "../fuzz/bodies.rs"]
mod bodies;

/// Mutations for a target of which each takes microseconds; of the others there are fewer.
const ROUNDS: usize = 20_000;
/// What inputs are made longer up to.
const LONGEST: usize = 4096;

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }

    /// A place in an input, its end included.
    fn place(&mut self, input: &[u8]) -> usize {
        self.below(input.len() + 1)
    }

    /// A piece of it.
    fn piece(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let (a, b) = (self.place(input), self.below(17));
        a..(a + b).min(input.len())
    }

    fn mutate(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        const BYTES: &[u8] = b"\0\n\r\t\x01\x7f\x80\xff.,;:=&/\"'<>{}[]\\-+0 ";
        let at = self.place(input);
        match self.below(7) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = BYTES[self.below(BYTES.len())],
            2 => input.insert(at, BYTES[self.below(BYTES.len())]),
            3 => drop(input.drain(self.piece(input))),
            4 => {
                let piece = input[self.piece(input)].to_vec();
                drop(input.splice(at..at, piece));
            }
            5 => {
                let other = &corpus[self.below(corpus.len())];
                let piece = other[self.piece(other)].to_vec();
                drop(input.splice(at..at, piece));
            }
            _ => input.truncate(at),
        }
        input.truncate(LONGEST);
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("fuzz/corpus").join(target)];
    if target == "domain" {
        folders.extend([root.join("tests/xml"), root.join("tests/xml/settings")]);
    }
    let files = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display())));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[track_caller]
fn holds(name: &str, rounds: usize) {
    let (_, target) = bodies::TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    let (corpus, mut random) = (corpus(name), Random(0x9e37_79b9_7f4a_7c15));
    assert!(corpus.len() >= 3, "seeds of {name}");
    let run = |input: &[u8]| {
        // What it says stands above, by the panic itself.
        let done = catch_unwind(AssertUnwindSafe(|| target(input)));
        assert!(done.is_ok(), "{name} fails for {:?}", String::from_utf8_lossy(input));
    };
    run(b"");
    for input in &corpus {
        run(input);
    }
    for _ in 0..rounds {
        let mut input = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            random.mutate(&mut input, &corpus);
        }
        run(&input);
    }
}

#[test]
fn a_ticket_counts_as_it_was_signed_or_not_at_all() {
    holds("ticket", ROUNDS / 5);
}

#[test]
fn cookies_queries_and_origins_mean_one_thing_or_nothing() {
    holds("request", ROUNDS);
}

#[test]
fn frames_are_those_of_rfc_6455_however_the_stream_is_cut() {
    holds("frame", ROUNDS);
}

#[test]
fn the_brokers_lines_are_read_whole_and_strictly() {
    holds("broker", ROUNDS);
}

#[test]
fn the_auth_helpers_lines_are_read_strictly_and_show_no_password() {
    holds("auth", ROUNDS);
}

#[test]
fn what_a_view_only_client_sends_does_nothing_to_a_guest_however_it_is_cut() {
    holds("rfb", ROUNDS);
}

#[test]
fn any_text_is_a_domain_or_refused_and_wiring_it_can_be_taken_back() {
    holds("domain", ROUNDS / 5);
}

#[test]
fn each_target_has_its_program_and_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
    let tests = include_str!("fuzz.rs");
    for (name, _) in bodies::TARGETS {
        assert!(root.join(format!("fuzz/fuzz_targets/{name}.rs")).exists(), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")) && tests.contains(&format!("holds(\"{name}\",")));
    }
}
