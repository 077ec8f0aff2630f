#!/bin/bash
# What takes a host with systemd and libvirt: boots a scratch host, installs the DEB in it, measures there.
#   host.sh guests DEB POINTS       how the host grows with its guests: lines "CASE METRIC N VALUE" to the file POINTS
#   host.sh unit DEB BENCH VALUES   first byte through the installed unit, cold: lines "CASE METRIC VALUE" to VALUES;
#                                   BENCH is the program of benches/bench
# SIZES="1 10 100": other numbers of guests.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
tests=$here/../tests/host
what=$1 deb=$(readlink -f "$2")
shift 2
sizes=${SIZES:-1 2 5 10 20 50 100 200 350 500}
dir=/run/console-proxy-bench-$$
. "$tests/installed.sh"
say() { echo "bench: $*" >&2; }
trap 'host down' EXIT
trap 'exit 130' INT TERM

say "booting a scratch host and installing the package in it"
host up --name bench --owner $$
put_guest
install_package "$deb"

# Guests that are defined, wired and published; none of them runs, because 500 do not fit on one machine: the hook is
# called as libvirt calls it, with the XML that libvirt would give.
guests() {
	host run bash -s -- $sizes <<'INSIDE'
set -euo pipefail
uuid() { printf '00000000-0000-4000-8000-%012d' "$1"; }
now() { date +%s%N; }
xml() { # N: as libvirt shows it when it runs
	define-guest "many$1" --vnc --tcp $((30000 + $1)) --uuid "$(uuid "$1")" --blank --print |
		sed "s/port='-1' autoport='yes'/port='$((5900 + $1))' autoport='yes'/"
}
hook() { /etc/libvirt/hooks/qemu.d/console-proxy "many$1" started begin - <"/tmp/$1.xml"; }
listening() { ss -Hltn | grep -c ':23[0-9][0-9][0-9] ' || true; }
wait_for() { # NUMBER of listening ports
	for _ in $(seq 3000); do
		[ "$(listening)" -ge "$1" ] && return
		sleep 0.02
	done
	echo "only $(listening) of $1 guests' ports are listened on" >&2
	return 1
}
# Milliseconds of so many runs of a command, each.
timed() { # TIMES CMD...
	local times=$1 begun
	shift
	begun=$(now)
	for _ in $(seq "$times"); do "$@" >/dev/null; done
	echo $((($(now) - begun) / times)) | awk '{ print $1 / 1e6 }'
}
have=0
for size in "$@"; do
	echo "bench: $size guests" >&2
	for n in $(seq $((have + 1)) "$size"); do
		xml "$n" >"/tmp/$n.xml"
		echo "define /tmp/$n.xml"
	done >/tmp/defines
	virsh --quiet </tmp/defines >/dev/null
	# All but the last one at once; the last one is what is looked at.
	for n in $(seq $((have + 1)) $((size - 1))); do hook "$n"; done
	wait_for $((size - 1))
	while [ "$(systemctl is-active console-proxy-sync.service)" = activating ]; do sleep 0.05; done
	while [ "$(systemctl is-active console-proxy-wire.service)" = activating ]; do sleep 0.1; done
	begun=$(now)
	hook "$size"
	wait_for "$size"
	echo "guests publish_ms $size $((($(now) - begun) / 1000000))"
	have=$size
	while [ "$(systemctl is-active console-proxy-sync.service)" = activating ]; do sleep 0.05; done
	console-proxy wire --all >/dev/null
	echo "guests hook_ms $size $(timed 10 hook "$size")"
	while [ "$(systemctl is-active console-proxy-sync.service)" = activating ]; do sleep 0.05; done
	echo "guests sync_ms $size $(timed 3 console-proxy sync)"
	echo "guests wire_ms $size $(timed 3 console-proxy wire --all)"
	echo "guests list_ms $size $(timed 3 console-proxy list)"
	echo "guests pid1_pss_kb $size $(awk '/^Pss:/ { print $2 }' /proc/1/smaps_rollup)"
done
INSIDE
}

# A running guest's display through its socket, while neither its proxy nor the broker runs.
unit() {
	host put "$1" /root/bench
	host run bash -s <<'INSIDE'
set -euo pipefail
mkdir -p /etc/console-proxy/console-proxy.toml.d
printf '[proxy]\nidle-timeout = "10m"\n' >/etc/console-proxy/console-proxy.toml.d/bench.toml
define-guest g1 --vnc --blank
virsh --quiet start g1
for _ in $(seq 200); do
	port=$(ss -Hltn | sed -n 's/.*:\(23[0-9][0-9][0-9]\) .*/\1/p' | head -1)
	[ -n "$port" ] && break
	sleep 0.05
done
service=console-proxy@$(virsh domuuid g1 | head -1).service
first_byte() { /root/bench --part connect --port "$port" --target "/vnc?token=$(console-proxy ticket g1)"; }
first_byte >/dev/null
for _ in $(seq 10); do
	echo "first-byte-warm-unit ms $(first_byte)"
done
for _ in $(seq 10); do
	systemctl stop "$service" 2>/dev/null # It warns that a socket may start it again: that is what it is for.
	echo "first-byte-cold-unit-broker-runs ms $(first_byte)"
done
for _ in $(seq 10); do
	systemctl stop "$service" console-proxy-broker.service 2>/dev/null
	echo "first-byte-cold ms $(first_byte)"
done
INSIDE
}

case $what in
guests) guests >"$1" ;;
unit) unit "$1" >"$2" ;;
*) say "guests or unit"; exit 2 ;;
esac
