# Sourced by what needs a scratch host with the package in it, which sets `dir` (the host's folder) first.
host_scripts=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
host() { "$host_scripts/scratch-host.sh" -d "$dir" "$@"; }

# Boots it; further arguments as for `scratch-host.sh up`. It ends with this script where E2E_KEEP does not say otherwise.
boot() {
	if [ -n "${E2E_KEEP:-}" ]; then host up "$@"; else host up --owner $$ "$@"; fi
}

install_package() { # DEB
	host put "$1" /root/console-proxy.deb
	host run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq /root/console-proxy.deb >"$dir/apt.log" 2>&1 ||
		{ cat "$dir/apt.log" >&2; return 1; }
}

# A directory of users, by slapd and SSSD, and /root/ldap.sh to change who is in which group.
put_directory() {
	local target=${CARGO_TARGET_DIR:-$host_scripts/../../target}
	host run mkdir -p /root/ldap
	tar -C "$target/ldap" -cf - --exclude=partial . | host run tar -C /root/ldap -xf -
	host put "$host_scripts/ldap.sh" /root/ldap.sh
	host run /root/ldap.sh /root/ldap
}

# The tiny guest, and the command that defines one.
put_guest() {
	local target=${CARGO_TARGET_DIR:-$host_scripts/../../target}
	"$host_scripts/guest.sh" "$target/guest"
	host put "$target/guest/vmlinuz" /var/lib/libvirt/boot/test-guest-vmlinuz
	host put "$target/guest/initrd" /var/lib/libvirt/boot/test-guest-initrd
	host put "$host_scripts/define-guest.sh" /usr/local/bin/define-guest
}

# At a test run's end: keeps the journal in the folder OUT, and the host only after a failure with E2E_KEEP=1.
finish() { # STATUS OUT
	mkdir -p "$2"
	host run journalctl --no-pager -o short-precise >"$2/journal.txt" 2>/dev/null || true
	if [ "$1" != 0 ] && [ -n "${E2E_KEEP:-}" ]; then
		echo "the host is still up: $host_scripts/scratch-host.sh -d $dir run bash; ... down" >&2
	else
		host down
	fi
	[ "$1" = 0 ] || echo "the host's journal is in $2/journal.txt" >&2
}
