# After unpacking ($1: how many versions of the package are installed now). Keys and certificates are made by
# console-proxy-keys.service on the running host: images built from this package must not share them.
systemd-sysusers console-proxy.conf || :
systemd-tmpfiles --create console-proxy.conf || :
if [ "$1" -eq 1 ]; then
	systemctl --no-reload enable console-proxy.target console-proxy-sync.path console-proxy-sync.service \
		console-proxy-wire.path console-proxy-wire-notes.path console-proxy-wire.service console-proxy-broker.socket \
		console-proxy-guard.service console-proxy-state.service console-proxy-keys.timer console-proxy-ssh.socket console-proxy-auth.socket console-proxy-prune.timer >/dev/null 2>&1 || :
	echo "console-proxy: there is no SELinux policy for the hook yet, so it was not put where libvirt runs it."
	echo "console-proxy: where SELinux is off or permissive, enable it with"
	echo "    install -D -m 755 /usr/share/console-proxy/libvirt-hook /etc/libvirt/hooks/qemu.d/console-proxy"
	echo "    systemctl reload virtqemud    # or libvirtd, whichever runs"
fi
# An image build or a chroot ends here: no service manager, nothing running.
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload || :
systemctl start console-proxy-guard.service console-proxy-state.service console-proxy-keys.service || :
for daemon in libvirtd virtqemud; do
	if systemctl is-active --quiet "$daemon.service"; then systemctl reload "$daemon.service" || :; fi
done
systemctl start console-proxy.target console-proxy-broker.socket console-proxy-keys.timer console-proxy-ssh.socket console-proxy-auth.socket console-proxy-prune.timer || :
systemctl restart console-proxy-sync.path console-proxy-wire.path console-proxy-wire-notes.path || :
# Before the new broker: it opens nothing of a route that says not who serves it, as an earlier version's.
timeout 300 console-proxy publish --all || echo "console-proxy: some guests were not published; see: console-proxy doctor" >&2
systemctl try-restart console-proxy-broker.service || :
# An earlier version's broker looked there.
rm -rf /run/console-proxy/claims
# The broker's socket was of another kind once (type 0001, SOCK_STREAM), which no proxy of this version connects to.
if ! grep -q ' 0005 01 *[0-9]* /run/console-proxy/broker/socket$' /proc/net/unix; then
	systemctl stop console-proxy-broker.service || :
	systemctl restart console-proxy-broker.socket || :
fi
timeout 300 console-proxy wire --all --watch=0 || echo "console-proxy: some guests were not wired; see: console-proxy doctor" >&2
exit 0
