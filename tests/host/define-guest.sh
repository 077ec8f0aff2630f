#!/bin/bash
# Defines a tiny test guest. Runs inside a scratch host, where the guest's kernel and initrd are in /var/lib/libvirt/boot.
#   define-guest.sh NAME [--vnc] [--vnc-websocket] [--vnc-listen ADDRESS] [--vnc-none] [--vnc-socket] [--spice] [--spice-secure]
#       [--spice-none] [--spice-socket] [--pty]... [--tcp [ADDRESS:]PORT]...
#       [--password WORD (of the displays behind it)] [--unix PATH]... [--virtio-console] [--log FILE (of the serial ports behind it)] [--uuid UUID] [--autostart] [--blank] [--print]
# Without an option that names a console the guest has none. --blank: little memory and nothing to boot. --print prints its XML instead.
set -euo pipefail
name=$1
shift
devices='' password='' serials=0 log='' uuid='' autostart='' print='' listen=127.0.0.1 vnc='' console=tty0 blank=''

serial() { # TYPE, and what is in the element
	devices+="<serial type='$1'>$2$log<target port='$serials'/></serial>"
	serials=$((serials + 1))
	console='tty0 console=ttyS0'
}

while [ $# -gt 0 ]; do
	case $1 in
	--vnc) vnc="autoport='yes'" ;;
	--vnc-websocket) vnc="autoport='yes' websocket='-1'" ;;
	--vnc-listen) listen=$2; shift ;;
	--password) password=" passwd='$2'"; shift ;;
	--spice) devices+="<graphics type='spice' autoport='yes'$password><listen type='address' address='127.0.0.1'/></graphics>" ;;
	# Without a port: nowhere, or at a unix socket that libvirt names.
	--vnc-none | --vnc-socket | --spice-none | --spice-socket)
		type=${1#--} place=${1##*-}
		devices+="<graphics type='${type%-*}'$password><listen type='$place'/></graphics>"
		;;
	--spice-secure) devices+="<graphics type='spice' autoport='yes' defaultMode='secure'><listen type='address' address='127.0.0.1'/></graphics>" ;;
	--pty) serial pty '' ;;
	--tcp)
		case $2 in *:*) place=${2%:*} ;; *) place=127.0.0.1 ;; esac
		serial tcp "<source mode='bind' host='$place' service='${2##*:}' tls='no'/><protocol type='raw'/>"
		shift
		;;
	--unix) serial unix "<source mode='bind' path='$2'/>"; shift ;;
	--virtio-console) devices+="<console type='pty'><target type='virtio' port='0'/></console>"; console='tty0 console=hvc0' ;;
	--log) log="<log file='$2' append='on'/>"; shift ;;
	--uuid) uuid="<uuid>$2</uuid>"; shift ;;
	--autostart) autostart=yes ;;
	--blank) blank=yes ;;
	--print) print=yes ;;
	*) echo "define-guest.sh: no option $1" >&2; exit 2 ;;
	esac
	shift
done
if [ -n "$vnc" ]; then
	devices="<graphics type='vnc' port='-1' $vnc listen='$listen'$password><listen type='address' address='$listen'/></graphics>$devices"
fi
case $devices in *graphics*) devices+="<video><model type='vga'/></video>" ;; esac

plain=$(tr -cd 'A-Za-z0-9-' <<<"$name")
memory=128 boot="<kernel>/var/lib/libvirt/boot/test-guest-vmlinuz</kernel>
    <initrd>/var/lib/libvirt/boot/test-guest-initrd</initrd>
    <cmdline>console=$console panic=1 quiet guest=$plain</cmdline>"
[ -z "$blank" ] || memory=32 boot="<boot dev='hd'/>"
escaped=$(sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g' <<<"$name")
xml="<domain type='qemu'>
  <name>$escaped</name>$uuid
  <memory unit='MiB'>$memory</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    $boot
  </os>
  <features><acpi/></features>
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    $devices
    <memballoon model='none'/>
  </devices>
</domain>"
if [ -n "$print" ]; then
	printf '%s\n' "$xml"
	exit 0
fi
virsh --quiet define /dev/stdin <<<"$xml"
[ -z "$autostart" ] || virsh --quiet autostart -- "$name"
