#!/bin/sh
# The list of installed files, [package.metadata.deb] assets in Cargo.toml, for those who cannot read it there:
#   files.sh list          MODE SOURCE DESTINATION, a file a line; a source that ends in * is the files of a folder
#   files.sh rpm           the same as TOML for cargo-generate-rpm's --metadata-overwrite=
#   files.sh install ROOT  copies them under ROOT; binaries from ${BIN_DIR:-target/release}
set -eu
cd "$(dirname "$0")/.."

entries() {
	awk -F'"' '
		/^\[/ { here = ($0 == "[package.metadata.deb]") }
		here && /^assets = \[/ { inside = 1; next }
		/^\]/ { inside = 0 }
		inside && NF == 7 { print $6, $2, $4; next }
		inside && NF { print "files.sh: not one entry a line: " $0 > "/dev/stderr"; exit 1 }
	' Cargo.toml
}

list() {
	entries=$(entries)
	echo "$entries" | while read -r mode source dest; do
		found=
		case $source in
		*\*)
			for file in $source; do
				[ -f "$file" ] || continue
				found=yes
				echo "$mode $file $dest${file##*/}"
			done
			[ "$found" ] || { echo "files.sh: there is no $source: make web builds the page" >&2; exit 1; }
			;;
		*) echo "$mode $source $dest" ;;
		esac
	done
}

verb=${1:?list, rpm or install}
files=$(list)
case $verb in
list) echo "$files" ;;
rpm)
	echo 'assets = ['
	echo "$files" | while read -r mode source dest; do
		extra=
		case $dest in
		# No SELinux policy lets libvirt run it yet: beside the other files, to be put there by hand.
		etc/libvirt/hooks/*) dest=usr/share/console-proxy/libvirt-hook ;;
		# Its own rules for all services have another name.
		etc/pam.d/console-proxy) source=packaging/pam/console-proxy.rpm extra=', config = "noreplace"' ;;
		etc/*) extra=', config = "noreplace"' ;;
		usr/share/doc/console-proxy/* | usr/share/man/*) extra=', doc = true' ;;
		esac
		echo "    { source = \"$source\", dest = \"/$dest\", mode = \"$mode\"$extra },"
	done
	echo ']'
	;;
install)
	echo "$files" | while read -r mode source dest; do
		case $source in target/release/*) source=${BIN_DIR:-target/release}/${source#target/release/} ;; esac
		install -D -m "$mode" "$source" "${2:?ROOT}/$dest"
	done
	;;
esac
