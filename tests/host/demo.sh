#!/bin/bash
# A host to try console-proxy on: boots a scratch host, installs the DEB, starts two tiny Linux guests, prints their
# URLs, and makes their ports reachable on this machine's loopback. Stays up until it is interrupted.
#   demo.sh DEB
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
repository=$(readlink -f "$here/../..")
deb=$(readlink -f "$1")
dir=/run/console-proxy-demo-$$
host() { "$here/scratch-host.sh" -d "$dir" "$@"; }
say() { echo "demo: $*"; }
forwards=''
finish() {
	for pid in $forwards; do kill "$pid" 2>/dev/null || true; done
	host down
}
trap finish EXIT
trap 'echo; exit 0' INT TERM

"$here/guest.sh"
say "booting a scratch host"
host up --name demo --owner $$
say "installing the package in it"
host put "$deb" /root/console-proxy.deb
# Browsers here reach it as localhost.
host run install -d /etc/console-proxy/console-proxy.toml.d
host run sh -c 'printf "[listen]\nhost = \"localhost\"\n" >/etc/console-proxy/console-proxy.toml.d/demo.toml'
host run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq /root/console-proxy.deb >"$dir/apt.log" 2>&1 ||
	{ cat "$dir/apt.log" >&2; exit 1; }
say "starting two guests: g1 has a screen and a serial port, g2 a screen alone"
host put "$repository/target/guest/vmlinuz" /var/lib/libvirt/boot/test-guest-vmlinuz
host put "$repository/target/guest/initrd" /var/lib/libvirt/boot/test-guest-initrd
host put "$here/define-guest.sh" /usr/local/bin/define-guest
host run define-guest g1 --pty --vnc
host run define-guest g2 --vnc
# Wiring comes within a second of the definition, and takes effect at the start.
sleep 3
for guest in g1 g2; do host run virsh --quiet start "$guest"; done
sleep 2

ports=$(host run ss -Hltn | sed -n 's/.*:\(23[0-9][0-9][0-9]\) .*/\1/p' | sort -u)
for port in $ports; do
	if [ -n "$(ss -Hltn "sport = :$port")" ]; then
		say "port $port is taken on this machine: that guest can be reached from inside the host alone"
		continue
	fi
	"$here/scratch-host.sh" -d "$dir" forward "$port" &
	forwards+=" $!"
done
echo
host run console-proxy list || true
echo
for guest in g1 g2; do host run console-proxy url "$guest" || true; done
echo
say "a ticket is good for a minute; for a new one, and to look around in the host:"
echo "    $here/scratch-host.sh -d $dir run console-proxy url g1"
echo "    $here/scratch-host.sh -d $dir run bash"
say "Ctrl-C ends it all"
while :; do
	sleep 1 &
	wait $! || true
	host pid >/dev/null 2>&1 || { say "the host was switched off"; exit 0; }
done
