#!/bin/bash
# The browser's tests: boots a scratch host, installs the DEB in it, and drives Debian's Chromium in it.
#   browser.sh DEB [NAME...]   only files of tests/browser whose names contain one of NAME
# Leaves screenshots, measured figures and the host's journal in target/browser. E2E_KEEP=1 leaves the host up after a failure.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
repository=$(readlink -f "$here/../..")
deb=$(readlink -f "$1")
shift
dir=/run/console-proxy-browser-$$
. "$here/installed.sh"
say() { echo "browser: $*" >&2; }
tests=$repository/tests/browser
[ -d "$tests/node_modules" ] && [ "$tests/node_modules" -nt "$tests/package-lock.json" ] || {
	say "installing playwright-core"
	(cd "$tests" && npm ci --silent --no-audit --no-fund && touch node_modules)
}

out=$repository/target/browser
collect() {
	mkdir -p "$out"
	host run tar -C /root/browser -cf - . 2>/dev/null | tar -C "$out" -xf - 2>/dev/null || true
}
trap 'status=$?; collect; finish $status "$out"' EXIT
trap 'exit 130' INT TERM
rm -rf "$out"
say "booting a scratch host"
boot
put_guest
host put "${CARGO_TARGET_DIR:-$repository/target}/bench/tools/bin/websocat" /usr/local/bin/websocat
say "installing the package in it"
install_package "$deb"
say "running the tests"
files=()
for file in "$tests"/*.test.mjs; do
	[ "$(basename "$file")" != directory.test.mjs ] || continue
	[ $# -gt 0 ] || files+=("$file")
	for name in "$@"; do case $(basename "$file") in *$name*) files+=("$file") ;; esac; done
done
with_directory=
case " $* " in '  ' | *' directory '*) with_directory=yes ;; esac
[ ${#files[@]} -gt 0 ] || [ "$with_directory" ] || { say "no file of tests/browser has a name with one of: $*"; exit 1; }
host run mkdir -p /root/browser
# One file after the other: they share the host.
run_tests() { host run node --test --test-force-exit --test-concurrency=1 --test-timeout=180000 --test-reporter=spec "$@"; }
[ ${#files[@]} -eq 0 ] || run_tests "${files[@]}"
if [ "$with_directory" ]; then
	say "giving the host a directory of users"
	put_directory
	run_tests "$tests/directory.test.mjs"
fi
