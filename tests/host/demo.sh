#!/bin/bash
# A host to try console-proxy on: boots a scratch host, installs the DEB, starts two tiny Linux guests, prints their
# URLs, and makes their ports reachable on this machine's loopback. Stays up until it is interrupted.
#   demo.sh DEB
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
deb=$(readlink -f "$1")
dir=/run/console-proxy-demo-$$
. "$here/installed.sh"
say() { echo "demo: $*"; }
forwards=''
leave() {
	for pid in $forwards; do kill "$pid" 2>/dev/null || true; done
	host down
}
trap leave EXIT
trap 'echo; exit 0' INT TERM

say "booting a scratch host"
host up --name demo --owner $$
say "installing the package in it"
# Browsers here reach it as localhost.
host run install -d /etc/console-proxy/console-proxy.toml.d
host run sh -c 'printf "[listen]\nhost = \"localhost\"\n" >/etc/console-proxy/console-proxy.toml.d/demo.toml'
install_package "$deb"
say "starting two guests: g1 has a serial port and its screen by VNC and SPICE, g2 a screen alone"
put_guest
host run define-guest g1 --pty --vnc --spice
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
for guest in g1 g2; do echo "$guest: $(host run console-proxy url --ttl 300s "$guest" 2>/dev/null || true)"; done
echo
say "open one in a browser on this machine within five minutes, and accept the certificate, whose fingerprint is above"
say "for a new link, and to look around in the host:"
echo "    $here/scratch-host.sh -d $dir run console-proxy url g1"
echo "    $here/scratch-host.sh -d $dir run bash"
say "Ctrl-C ends it all"
while :; do
	sleep 1 &
	wait $! || true
	host pid >/dev/null 2>&1 || { say "the host was switched off"; exit 0; }
done
