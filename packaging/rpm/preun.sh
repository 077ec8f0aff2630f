# Before removal ($1: how many versions stay). It never fails: a package that cannot be removed helps nobody.
[ "$1" -eq 0 ] || exit 0
if [ -d /run/systemd/system ]; then
	systemctl stop console-proxy-wire.path console-proxy-wire-notes.path console-proxy-wire.service \
		console-proxy-sync.path console-proxy-sync.timer console-proxy-sync.service || :
	# Which wire.service and sync start at their end.
	systemctl stop console-proxy-wire-again.service || :
	# It prints the guests that it had to leave, and the command that finishes them. Once: a package that is
	# installed again wires them again.
	timeout 300 console-proxy unwire --all --once || :
	systemctl stop console-proxy.target console-proxy-broker.socket console-proxy-broker.service console-proxy-keys.timer console-proxy-ssh.socket console-proxy-auth.socket console-proxy-prune.timer || :
	# A guest that runs with a port of ours on loopback keeps the guard in the kernel.
	timeout 60 console-proxy guard --remove-unless-needed || :
	systemctl stop console-proxy-guard.service console-proxy-state.service || :
	! mountpoint -q /run/console-proxy/state || umount --lazy /run/console-proxy/state || :
fi
systemctl --no-reload disable console-proxy.target console-proxy-sync.path console-proxy-sync.service \
	console-proxy-wire.path console-proxy-wire-notes.path console-proxy-wire.service console-proxy-broker.socket \
	console-proxy-guard.service console-proxy-state.service console-proxy-keys.timer console-proxy-ssh.socket console-proxy-auth.socket console-proxy-prune.timer >/dev/null 2>&1 || :
exit 0
