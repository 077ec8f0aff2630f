# After removal ($1: how many versions stay). Keys and configuration stay, as RPM has no purge; the README says
# what to delete.
if [ "$1" -eq 0 ]; then
	rm -rf /run/systemd/system/console-proxy@*.d /run/console-proxy
fi
[ -d /run/systemd/system ] && systemctl daemon-reload
exit 0
