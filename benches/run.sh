#!/bin/bash
# What `make bench` runs, with the programs built: run.sh PART TARGET DEB [OPTIONS of benches/bench]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
part=$1 target=$2 deb=$3
shift 3
bench=$(cargo bench --quiet --profile harness --bench bench --no-run --message-format=json |
	sed -n 's/.*"name":"bench".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$bench" ] || { echo "bench: cargo built no benchmark named bench" >&2; exit 1; }
mkdir -p "$target/bench"
measure() { "$bench" --release "$target/release" --folder "$target/bench" "$@"; }

one() { # PART [OPTIONS]
	case $1 in
	screen)
		tests/host/guest.sh
		measure --part "$@"
		;;
	guests)
		benches/host.sh guests "$deb" "$target/bench/guests.points"
		measure --part points --file "$target/bench/guests.points"
		;;
	unit)
		benches/host.sh unit "$deb" "$bench" "$target/bench/unit.values"
		measure --part values --file "$target/bench/unit.values"
		;;
	*) measure --part "$@" ;;
	esac
}
if [ "$part" = all ]; then
	for part in tools screen scheduling growth guests unit; do
		echo "bench: part $part" >&2
		one "$part" "$@"
	done
else
	one "$part" "$@"
fi
