#!/bin/bash
# The end-to-end tests: boots a scratch host, installs the DEB in it with apt, runs the suite tests/e2e inside.
#   e2e.sh DEB [NAME...]   only tests whose names contain one of NAME
# Leaves the host's journal in target/e2e/journal.txt. E2E_KEEP=1 leaves the host up after a failure.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
repository=$(readlink -f "$here/../..")
deb=$(readlink -f "$1")
shift
dir=/run/console-proxy-e2e-$$
. "$here/installed.sh"
say() { echo "e2e: $*" >&2; }

say "building the suite"
suite=$(cd "$repository" && cargo test --quiet --features e2e --test e2e --no-run --message-format=json |
	sed -n 's/.*"name":"e2e".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$suite" ] || { say "cargo built no test named e2e"; exit 1; }

trap 'finish $? "$repository/target/e2e"' EXIT
trap 'exit 130' INT TERM
say "booting a scratch host"
boot
put_guest
host put "$suite" /root/e2e
say "installing the package in it"
install_package "$deb"
say "running the suite"
# One after the other: they share the host, its libvirtd and its clock.
host run /root/e2e --test-threads=1 "$@"
case " $* " in
'  ' | *' reboot '*)
	say "rebooting the host"
	host run /root/e2e --ignored --exact reboot::before
	host reboot
	host run /root/e2e --ignored --exact reboot::after
	;;
esac
case " $* " in
'  ' | *' ldap '*)
	say "giving the host a directory of users"
	put_directory
	host run /root/e2e --ignored --test-threads=1 ldap::
	;;
esac
