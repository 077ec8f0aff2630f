#!/bin/bash
# The end-to-end tests: boots a scratch host, installs the DEB in it with apt, runs the suite tests/e2e inside.
#   e2e.sh DEB [NAME...]   only tests whose names contain one of NAME
# Leaves the host's journal in target/e2e/journal.txt. E2E_KEEP=1 leaves the host up after a failure.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
repository=$(readlink -f "$here/../..")
deb=$(readlink -f "$1")
shift
out=$repository/target/e2e
dir=/run/console-proxy-e2e-$$
host() { "$here/scratch-host.sh" -d "$dir" "$@"; }
say() { echo "e2e: $*" >&2; }

say "building the suite"
suite=$(cd "$repository" && cargo test --quiet --features e2e --test e2e --no-run --message-format=json |
	sed -n 's/.*"name":"e2e".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$suite" ] || { say "cargo built no test named e2e"; exit 1; }
"$here/guest.sh"

finish() {
	local status=$?
	mkdir -p "$out"
	host run journalctl --no-pager -o short-precise >"$out/journal.txt" 2>/dev/null || true
	if [ "$status" != 0 ] && [ -n "${E2E_KEEP:-}" ]; then
		say "the host is still up: $here/scratch-host.sh -d $dir run bash; ... down"
	else
		host down
	fi
	[ "$status" = 0 ] || say "the host's journal is in target/e2e/journal.txt"
}
trap finish EXIT
trap 'exit 130' INT TERM

say "booting a scratch host"
if [ -n "${E2E_KEEP:-}" ]; then host up; else host up --owner $$; fi
host put "$repository/target/guest/vmlinuz" /var/lib/libvirt/boot/test-guest-vmlinuz
host put "$repository/target/guest/initrd" /var/lib/libvirt/boot/test-guest-initrd
host put "$here/define-guest.sh" /usr/local/bin/define-guest
host put "$deb" /root/console-proxy.deb
host put "$suite" /root/e2e
say "installing the package in it"
host run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq /root/console-proxy.deb >"$dir/apt.log" 2>&1 ||
	{ cat "$dir/apt.log" >&2; exit 1; }
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
