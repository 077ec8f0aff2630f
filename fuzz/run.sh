#!/bin/bash
# Runs fuzz targets with libFuzzer, built by stable Rust: the passes that cargo-fuzz asks nightly for, by their own names.
#   run.sh SECONDS [TARGET...]   each for so long; all of them by default
# New inputs of interest go to fuzz/found (not committed), inputs that break something to fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
seconds=$1
shift
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(basename -s .rs fuzz_targets/*.rs)
target=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=$PWD/target
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
RUSTFLAGS=$(tr -s '\n\t' '  ' <<<"$RUSTFLAGS")
echo "fuzz: building (some minutes at first)" >&2
cargo build --quiet --release --target "$target" --bins
for name in "${targets[@]}"; do
	echo "fuzz: $name, $seconds s" >&2
	mkdir -p "found/$name" "artifacts/$name"
	"target/$target/release/$name" -max_total_time="$seconds" -max_len=4096 -use_value_profile=1 -print_final_stats=1 \
		-artifact_prefix="artifacts/$name/" "found/$name" "corpus/$name" 2>&1 | grep -vwE 'REDUCE|NEW|pulse|RELOAD'
done
