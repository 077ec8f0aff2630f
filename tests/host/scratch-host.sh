#!/bin/bash
# A throw-away host: systemd as PID 1 over an overlay of this machine's root, in namespaces of its own (mount, pid,
# uts, ipc, cgroup, network). libvirtd, QEMU guests and nftables work in it; what happens in it stays in it.
#
#   scratch-host.sh [-d DIR] up [--name NAME] [--owner PID]
#                                          boots it, waits until it is up; it ends with process PID
#   scratch-host.sh [-d DIR] run CMD...    runs a command in it, with this terminal's input and output
#   scratch-host.sh [-d DIR] put FILE DEST copies a file into it
#   scratch-host.sh [-d DIR] forward PORT  the port on this machine's loopback leads into it; runs until it is ended
#   scratch-host.sh [-d DIR] reboot        boots it again, with what it has on disk, and waits until it is up
#   scratch-host.sh [-d DIR] pid           prints the process id of its systemd, for nsenter
#   scratch-host.sh [-d DIR] down          ends it and everything in it
#
# DIR is the host (default /run/console-proxy-scratch): another folder, another host. `systemctl reboot` and
# `systemctl poweroff` in it do what they say. The repository is visible in it, read-only, at its own
# path. Needs root, and Debian's systemd, dbus, util-linux and iproute2.
set -euo pipefail
self=$(readlink -f "$0")
repository=$(dirname "$(dirname "$(dirname "$self")")")

fail() {
	echo "scratch-host: $*" >&2
	exit 1
}

# The host's systemd, or nothing.
init() {
	local pid
	pid=$(cat "$dir/init" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = systemd ] && echo "$pid"
}

# Whether a process of this script's runs; one that has ended may wait for a slow PID 1 to take notice.
runs() { grep -qs -- "$2" "/proc/$1/cmdline"; }

inside() {
	local pid
	pid=$(init) || fail "no host is up in $dir"
	nsenter -t "$pid" -m -p -u -i -C -n -- env -i container=scratch TERM="${TERM:-dumb}" HOME=/root USER=root LOGNAME=root \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

up() {
	local name=scratch owner='' supervisor state
	while [ $# -gt 0 ]; do
		case $1 in
		--name) name=$2 ;;
		--owner) owner=$2 ;;
		*) fail "up: no option $1" ;;
		esac
		shift 2
	done
	[ "$(id -u)" = 0 ] || fail "root is needed for namespaces and mounts"
	if init >/dev/null; then fail "a host is up in $dir already (end it with: $0 -d $dir down)"; fi
	# Left by a host that was killed.
	rm -rf --one-file-system "$dir"
	mkdir -p "$dir"
	setsid unshare --mount --propagation private bash "$self" -d "$dir" supervise "$name" \
		</dev/null >"$dir/log" 2>&1 &
	supervisor=$!
	echo "$supervisor" >"$dir/supervisor"
	if [ -n "$owner" ]; then
		setsid bash -c 'tail --pid="$1" -f /dev/null; exec "$2" -d "$3" down' - "$owner" "$self" "$dir" \
			</dev/null >/dev/null 2>&1 &
		echo $! >"$dir/watcher"
	fi
	wait_until_up "$supervisor" && return
	down
	exit 1
}

# Waits until its units have started; tells of those that failed.
wait_until_up() {
	local supervisor=$1 state=''
	for _ in $(seq 600); do
		if init >/dev/null; then
			state=$(inside systemctl is-system-running 2>/dev/null) || true
			case $state in
			running) return 0 ;;
			degraded)
				echo "scratch-host: up, but these units failed:" >&2
				inside systemctl --failed --no-legend --plain >&2
				return 0
				;;
			esac
		fi
		kill -0 "$supervisor" 2>/dev/null || break
		sleep 0.1
	done
	echo "scratch-host: it did not come up (${state:-no systemd}); its log:" >&2
	tail -20 "$dir/log" >&2
	if init >/dev/null; then inside systemctl list-jobs >&2 || true; fi
	return 1
}

reboot() {
	local before
	before=$(init) || fail "no host is up in $dir"
	inside systemctl reboot
	for _ in $(seq 600); do
		[ "$(init)" != "$before" ] && break
		sleep 0.1
	done
	wait_until_up "$(cat "$dir/supervisor")"
}

# Runs as long as the host exists, over its reboots: the disk's upper layer is in this process's mount namespace.
supervise() {
	local name=$1 status=129 group
	mkdir -p "$dir/disk" "$dir/cgroup"
	mount -t tmpfs -o mode=0755 scratch-disk "$dir/disk"
	mkdir -p "$dir/disk/"{upper,work,root}
	# A cgroup tree of its own: two hosts under one root would take each other's services for their own.
	mount -t cgroup2 cgroup2 "$dir/cgroup"
	group=$dir/cgroup/scratch-host-$$
	mkdir "$group"
	while [ "$status" = 129 ]; do # killed by SIGHUP: that is how a reboot in a pid namespace ends
		unshare --mount --propagation private --pid --fork --kill-child=KILL --uts --ipc --net \
			bash "$self" -d "$dir" boot "$name" "$group" &
		child=$!
		# unshare's child is to become systemd.
		until pgrep -P "$child" >"$dir/init.new" || ! kill -0 "$child" 2>/dev/null; do sleep 0.02; done
		mv "$dir/init.new" "$dir/init"
		status=0
		wait "$child" || status=$?
		rm -f "$dir/init"
	done
	find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
}

# In the new namespaces, as PID 1, to become systemd.
boot() {
	local name=$1 group=$2 root=$dir/disk/root device
	echo 0 >"$group/cgroup.procs"
	mount -t overlay scratch-root -o "lowerdir=/,upperdir=$dir/disk/upper,workdir=$dir/disk/work" "$root"
	cd "$root"

	mount -t proc proc proc
	# The kernel is shared: what belongs to it and not to a namespace can be read here, not set.
	mount --bind proc/sys proc/sys
	mount -o remount,bind,ro proc/sys
	mount -t proc proc tmp
	mount --bind tmp/sys/net proc/sys/net
	umount -l tmp
	if [ -e proc/sysrq-trigger ]; then
		mount --bind proc/sysrq-trigger proc/sysrq-trigger
		mount -o remount,bind,ro proc/sysrq-trigger
	fi
	mount -t sysfs sysfs sys
	mount -t tmpfs -o mode=0755 tmpfs dev
	mkdir -p dev/{pts,shm,mqueue,net,hugepages}
	for device in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0' 'net/tun 10 200' 'fuse 10 229'; do
		set -- $device
		mknod -m 666 "dev/$1" c "$2" "$3"
	done
	mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts dev/pts
	ln -s pts/ptmx dev/ptmx
	ln -s /proc/self/fd dev/fd
	ln -s fd/0 dev/stdin
	ln -s fd/1 dev/stdout
	ln -s fd/2 dev/stderr
	mount -t tmpfs -o mode=1777 tmpfs dev/shm
	mount -t tmpfs -o mode=0755 tmpfs run
	mount -t tmpfs -o mode=1777 tmpfs tmp
	mkdir -p "./$repository"
	mount --bind "$repository" "./$repository"
	mount -o remount,bind,ro "./$repository"

	if [ ! -e etc/scratch-host ]; then first_boot "$name"; fi
	hostname "$name"
	ip link set lo up
	# Only now, and by a process in the group: its cgroup is to be the root of what the host sees.
	exec unshare --cgroup bash -euc '
		mount -t cgroup2 cgroup2 sys/fs/cgroup
		mkdir -p .outside
		pivot_root . .outside
		umount -l .outside
		rmdir .outside
		exec env -i container=scratch PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			/lib/systemd/systemd --unit=multi-user.target
	'
}

# The outer machine's disk as a new host's: nothing of its services starts here but libvirt, nothing that needs a
# network, nothing that sets up hardware.
first_boot() {
	local unit
	echo "$1" >etc/scratch-host
	printf '127.0.0.1 localhost %s\n::1 localhost\n' "$1" >etc/hosts
	rm -f etc/resolv.conf etc/hostname usr/sbin/policy-rc.d etc/fstab
	echo "$1" >etc/hostname
	: >etc/resolv.conf
	: >etc/fstab
	: >etc/machine-id
	rm -f var/lib/dbus/machine-id var/lib/man-db/auto-update
	rm -rf var/log/journal etc/rc?.d var/log/libvirt/qemu etc/libvirt/qemu/networks/autostart
	find etc/systemd/system -path '*.wants/*' ! -name 'libvirtd*' ! -name 'virt*' -delete
	mkdir -p etc/systemd/system
	for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-kernel.socket \
		systemd-udevd-control.socket systemd-sysctl.service systemd-binfmt.service systemd-modules-load.service \
		systemd-random-seed.service systemd-firstboot.service systemd-repart.service systemd-remount-fs.service \
		systemd-journald-audit.socket systemd-resolved.service systemd-networkd.service systemd-timesyncd.service \
		proc-sys-fs-binfmt_misc.automount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
		sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount getty.target getty-static.service \
		console-getty.service NetworkManager.service networking.service libvirt-guests.service \
		docker.service docker.socket containerd.service ssh.service ssh.socket cron.service; do
		ln -sfn /dev/null "etc/systemd/system/$unit"
	done
	mkdir -p etc/systemd/journald.conf.d
	# The outer machine's kernel log is none of this host's.
	printf '[Journal]\nStorage=persistent\nReadKMsg=no\nRateLimitIntervalSec=0\nSystemMaxUse=200M\n' \
		>etc/systemd/journald.conf.d/scratch.conf
}

forward() {
	local port=$1 pid
	pid=$(init) || fail "no host is up in $dir"
	exec socat "TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr" "EXEC:nsenter -t $pid -n socat - TCP\:127.0.0.1\:$port"
}

down() {
	local pid supervisor watcher
	if pid=$(init); then kill -KILL "$pid" 2>/dev/null || true; fi
	if supervisor=$(cat "$dir/supervisor" 2>/dev/null); then
		# It notices, and tidies up after it.
		for _ in $(seq 100); do
			runs "$supervisor" supervise || break
			sleep 0.05
		done
		if runs "$supervisor" supervise; then kill -KILL "$supervisor" 2>/dev/null || true; fi
	fi
	watcher=$(cat "$dir/watcher" 2>/dev/null) || watcher=
	rm -rf --one-file-system "$dir"
	if [ -n "$watcher" ] && [ "$watcher" != $$ ] && runs "$watcher" --pid=; then
		kill -- "-$watcher" 2>/dev/null || true
	fi
}

dir=/run/console-proxy-scratch
if [ "${1:-}" = -d ]; then
	dir=$2
	shift 2
fi
verb=${1:-}
[ $# -eq 0 ] || shift
case $verb in
up) up "$@" ;;
run) inside "$@" ;;
put) inside sh -c 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"' - "$2" "$(stat -c %a "$1")" <"$1" ;;
forward) forward "$@" ;;
reboot) reboot ;;
pid) init || fail "no host is up in $dir" ;;
down) down ;;
supervise) supervise "$@" ;;
boot) boot "$@" ;;
*)
	sed -n '/^# /s/^# //p' "$self" | head -19 >&2
	exit 2
	;;
esac
