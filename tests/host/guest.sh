#!/bin/bash
# Builds the tiny guest of the tests: a kernel and a busybox from Debian's packages, a shell on every console, a boot
# of about three seconds under software emulation.
#   guest.sh [DIR]   leaves DIR/vmlinuz and DIR/initrd (default target/guest); does nothing when they are there
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
dir=$(realpath -m "${1:-$here/../../target/guest}")
# What decides whether the cached one is still this one.
stamp=$(sha256sum "$0" "$here/guest-init" /bin/busybox | sha256sum)
[ "$(cat "$dir/stamp" 2>/dev/null)" = "$stamp" ] && [ -s "$dir/vmlinuz" ] && exit 0
[ "$(uname -m)" = x86_64 ] || { echo "guest.sh: the test guest is made for x86_64 alone" >&2; exit 1; }

echo "guest.sh: building the test guest's kernel and initrd in $dir" >&2
mkdir -p "$dir"
work=$(mktemp -d "$dir/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
if [ ! -s "$dir/vmlinuz" ]; then
	package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/ *Depends: \(linux-image-.*-cloud-amd64\)$/\1/p' | tail -1)
	[ -n "$package" ] || { echo "guest.sh: apt knows no linux-image-cloud-amd64 (apt-get update?)" >&2; exit 1; }
	(cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package")
	dpkg-deb --fsys-tarfile "$work"/linux-image-*.deb | tar -x -C "$work" --wildcards './boot/vmlinuz-*'
	mv "$work"/boot/vmlinuz-* "$dir/vmlinuz"
fi
mkdir -p "$work/root/"{bin,dev,proc,sys,tmp,etc}
cp /bin/busybox "$work/root/bin/"
install -m 755 "$here/guest-init" "$work/root/init"
(cd "$work/root" && find . -print0 | cpio --null --quiet -o -H newc | gzip -9) >"$work/initrd"
mv "$work/initrd" "$dir/initrd"
chmod 644 "$dir/vmlinuz" "$dir/initrd"
echo "$stamp" >"$dir/stamp"
