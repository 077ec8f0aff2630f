#!/bin/bash
# Installs what building and testing take, on Debian 12 as root; quick when it is all there.
#   install-needs.sh [build|test|bench|web]
# build: what `make deb` and `make rpm` take; test (default): the rest as well; bench: building, and what is compared
# with; web: what the page is built with, which is looked for and not installed: Debian 12's own is too old
set -euo pipefail
what=${1:-test}

node_fits() {
	command -v npm >/dev/null &&
		node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null
}
if [ "$what" != bench ] && ! node_fits; then
	echo "install-needs: Node.js 20.19 or later with npm is needed to build the page: Debian 12 has an older one" >&2
	echo "install-needs: found: $(node --version 2>/dev/null || echo none)" >&2
	exit 1
fi
[ "$what" != web ] || exit 0

# Runs a command that installs packages so that none of their services starts, by the rules of invoke-rc.d(8). A
# machine with a policy of its own keeps that one.
without_starting() {
	local policy=/usr/sbin/policy-rc.d status=0
	[ ! -e "$policy" ] || { "$@"; return; }
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	"$@" || status=$?
	rm -f "$policy"
	return "$status"
}

packages='build-essential pkg-config libvirt-dev libpam0g-dev'
if [ "$what" = test ]; then
	# libvirt and QEMU with their defaults; what a scratch host and its guests take; what packages are checked with.
	packages+=' libvirt-daemon-system libvirt-clients qemu-system-x86 nftables systemd dbus util-linux iproute2 socat'
	packages+=' busybox-static cpio procps lintian rpm rpmlint valgrind openssh-server openssh-client libfaketime'
	# What stands in front of guests' proxies in a scratch host; nothing of it is to run on this machine.
	packages+=' nginx-light haproxy caddy'
	# The filter under docs/ is tried with fail2ban-regex, which reads the journal by python3-systemd; jq is in docs/audit.md.
	# Nothing of fail2ban is to run on this machine.
	packages+=' fail2ban python3-systemd jq'
	# Has a running proxy make system calls.
	packages+=' gdb'
	# What docs/tickets.md uses.
	packages+=' python3-cryptography'
	# A browser, and other people's clients; what building websocat takes.
	packages+=' chromium fonts-dejavu-core novnc spice-html5 python3-websockets curl openssl libssl-dev'
elif [ "$what" = bench ]; then
	# Peers and yardsticks; what building websocat takes, which Debian 12 has not; a guest with a screen.
	packages+=' websockify haproxy socat systemd openssl libssl-dev qemu-system-x86 busybox-static cpio'
fi
missing=''
for package in $packages; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=" $package"
done
if [ -n "$missing" ]; then
	[ "$(id -u)" = 0 ] || { echo "install-needs: these packages are missing, and installing them takes root:$missing" >&2; exit 1; }
	echo "install-needs: installing$missing" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# shellcheck disable=SC2086
	without_starting apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

if ! command -v cargo >/dev/null; then
	echo "install-needs: Rust 1.88 or later is needed (rustup brings it); Debian 12's own is too old" >&2
	exit 1
fi
target=${CARGO_TARGET_DIR:-$(dirname "$(readlink -f "$0")")/../../target}
# A client in the browser's tests, a peer in the benchmark, which Debian 12 has not. Built for speed, as its users have
# it; with newer dependencies than it was released with: those no longer build.
if [ "$what" != build ] && [ ! -x "$target/bench/tools/bin/websocat" ]; then
	echo "install-needs: building websocat (a minute, once)" >&2
	mkdir -p "$target/bench/tools"
	CARGO_TARGET_DIR=$target/bench/tools/build cargo install --quiet --version 1.14.0 --root "$target/bench/tools" websocat
	rm -rf "$target/bench/tools/build"
fi
[ "$what" != bench ] || exit 0
# A directory and what asks it (tests/host/ldap.sh). They would change who may log in on this machine, so they are
# fetched here and installed in scratch hosts alone.
if [ "$what" = test ] && [ ! -e "$target/ldap/complete" ]; then
	echo "install-needs: fetching slapd and SSSD for scratch hosts" >&2
	mkdir -p "$target/ldap/partial"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --download-only \
		-o Dir::Cache::archives="$(readlink -f "$target/ldap")" slapd ldap-utils sssd-ldap sssd-dbus libnss-sss libpam-sss >/dev/null
	touch "$target/ldap/complete"
fi
# Packaging tools: built for a short build, not for speed.
tool() { # NAME VERSION
	command -v "$1" >/dev/null && return
	echo "install-needs: building $1 (some minutes, once)" >&2
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
		CARGO_TARGET_DIR=$target/tools cargo install --quiet --locked --version "$2" "$1"
}
tool cargo-deb ^3.8
tool cargo-generate-rpm ^0.21
