#!/bin/bash
# The end-to-end tests: boots a scratch host, installs the DEB in it with apt, runs the suite tests/e2e inside.
#   e2e.sh DEB [NAME...]   only tests whose names contain one of NAME, on one host
# The whole suite runs on two hosts at a time, every other module on each: most of a test is waiting. The one host is
# rebooted afterwards, the other gets a directory of users.
# Leaves the hosts' journals in target/e2e. E2E_KEEP=1 leaves a host up after a failure.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
repository=$(readlink -f "$here/../..")
deb=$(readlink -f "$1")
shift
. "$here/installed.sh"
say() { echo "e2e: $*" >&2; }

say "building the suite"
suite=$(cd "$repository" && cargo test --quiet --features e2e --test e2e --no-run --message-format=json |
	sed -n 's/.*"name":"e2e".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$suite" ] || { say "cargo built no test named e2e"; exit 1; }

# On a host: one test after the other, because they share its libvirtd and its clock.
suite() { host run /root/e2e --test-threads=1 "$@"; }

reboot_tests() {
	say "rebooting the host"
	host run /root/e2e --ignored --exact reboot::before
	host reboot
	host run /root/e2e --ignored --exact reboot::after
}

directory_tests() {
	say "giving the host a directory of users"
	put_directory
	suite --ignored ldap::
}

# Runs the command with a host of its own, in a subshell.
with_host() ( # NAME CMD...
	dir=/run/console-proxy-e2e-$$-$1
	trap 'finish $? "$repository/target/e2e/$1"' EXIT
	trap 'exit 130' INT TERM
	say "booting scratch host $1"
	boot --name "$1"
	put_guest
	host put "$suite" /root/e2e
	say "installing the package in it"
	install_package "$deb"
	say "running the suite on $1"
	"${@:2}"
)

if [ $# -gt 0 ]; then
	some() {
		suite "$@"
		case " $* " in *' reboot '*) reboot_tests ;; esac
		case " $* " in *' ldap '*) directory_tests ;; esac
	}
	with_host scratch some "$@"
	exit
fi

mapfile -t all < <("$suite" --list --format terse | sed -n 's/: test$//p')
mapfile -t ignored < <("$suite" --list --format terse --ignored | sed -n 's/: test$//p')
# The tests that are not ignored, of every other module from the FIRST on: those of a module stay in their order.
every_other() { # FIRST
	local test module='' n=-1
	for test in "${all[@]}"; do
		case " ${ignored[*]} " in *" $test "*) continue ;; esac
		[ "${test%%::*}" = "$module" ] || { module=${test%%::*} && n=$((n + 1)); }
		[ $((n % 2)) != "$1" ] || echo "$test"
	done
}
first() {
	suite --exact $(every_other 0)
	reboot_tests
}
second() {
	suite --exact $(every_other 1)
	directory_tests
}
"$here/guest.sh" "${CARGO_TARGET_DIR:-$repository/target}/guest"
mkdir -p "$repository/target/e2e"
# In the background, both: errexit holds there, which it does not in a list with || behind it.
with_host second second >"$repository/target/e2e/second.txt" 2>&1 &
hosts=($!)
with_host first first &
hosts+=($!)
trap 'kill -TERM "${hosts[@]}" 2>/dev/null; wait; exit 130' INT TERM
status=0
for half in "${hosts[@]}"; do wait "$half" || status=$?; done
cat "$repository/target/e2e/second.txt"
exit $status
