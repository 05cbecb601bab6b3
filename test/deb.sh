#!/bin/bash
# Installs, upgrades, removes and purges the package $1, and as its next version $2, in a
# copy of this system's root that is thrown away. Needs root and overlayfs.
set -euo pipefail
first=$(realpath "$1") second=$(realpath "$2")
work=$(mktemp -d)
root=$work/root
pid=
cleanup() {
	[ -z "$pid" ] || kill "$pid" 2>/dev/null || true
	umount -l "$root/proc" "$root" "$work" 2>/dev/null || true
	rmdir "$work" || true
}
trap cleanup EXIT
trap "exit 1" INT TERM
mount -t tmpfs none "$work"
mkdir "$work"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$root"
mount -t proc proc "$root/proc"
mkdir -p "$root/packages"
cp "$first" "$root/packages/first.deb"
cp "$second" "$root/packages/second.deb"
fail() { echo "test-deb: $*" >&2; exit 1; }
in_root() { chroot "$root" "$@"; }
as_udm() { chroot "$root" setpriv --reuid udm --regid udm --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "$@"; }
state=/var/lib/udm

in_root dpkg --no-triggers -i /packages/first.deb
in_root getent passwd udm | grep -q "$state:/usr/sbin/nologin" || fail "the user has another home or shell"
[ "$(in_root stat -c '%U %a' $state)" = "udm 700" ] || fail "$state is not the user's"
in_root zgrep -q udm /usr/share/man/man1/udm.1.gz

# The units are valid, and the service has few rights.
in_root systemd-analyze verify --man=no udm.service udm-control.socket udm-nbd.socket
in_root systemd-analyze security --offline=true --threshold=25 udm.service | tail -n 1

# The daemon works as that user without any capability, and keeps its devices.
daemon() {
	as_udm udm daemon --root $state &
	pid=$!
	for _ in $(seq 300); do
		if as_udm udm ls --root $state >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	fail "the daemon does not answer"
}
daemon
truncate -s 1M "$root$state/disk.img"
in_root chown udm $state/disk.img
as_udm env UDM_ROOT=$state udm dmsetup create disk --table "0 2048 linear $state/disk.img 0" || fail "no device"
echo 'UDM_OPTIONS=--verbose' >"$root/etc/default/udm"

# An upgrade keeps the configuration and the running daemon, which can then be replaced.
in_root dpkg --no-triggers -i --force-confold /packages/second.deb
grep -q verbose "$root/etc/default/udm" || fail "the configuration was replaced"
as_udm udm daemon --root $state --replace
wait "$pid" || fail "the old daemon ended with an error"
as_udm udm ls --root $state | grep -q disk || fail "the device is gone"
kill "$(cat "$root$state/lock")"
for _ in $(seq 300); do
	as_udm udm ls --root $state >/dev/null 2>&1 || break
	sleep 0.1
done

in_root dpkg --no-triggers -r udm
[ -e "$root$state/devices/0.json" ] && [ -e "$root/etc/default/udm" ] || fail "a removal took state or configuration"
[ ! -e "$root/usr/bin/udm" ] || fail "a removal left the program"
in_root dpkg --no-triggers -P udm
[ ! -e "$root$state/devices" ] && [ ! -e "$root/etc/default/udm" ] || fail "a purge left state or configuration"
[ -e "$root$state/disk.img" ] || fail "a purge took a disk"
echo "test-deb: ok"
