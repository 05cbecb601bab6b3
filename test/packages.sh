#!/bin/sh
# Installs what the tests use beside Go, when it may; otherwise says what is left
# out. Debian's names.
set -eu
want='user-mode-linux:linux kmod:modprobe dmsetup:dmsetup thin-provisioning-tools:thin_check
e2fsprogs:mkfs.ext4 xfsprogs:mkfs.xfs btrfs-progs:mkfs.btrfs qemu-utils:qemu-img fio:fio jq:jq
libnbd-bin:nbdinfo nbdkit:nbdkit nbd-client:nbd-client python3-libnbd:nbdsh nbdfuse:nbdfuse
fuse3:fusermount3 gnutls-bin:certtool iproute2:ip lvm2:lvm qemu-system-common:qemu-storage-daemon stress-ng:stress-ng'
PATH=$PATH:/usr/sbin:/sbin
missing=
for w in $want; do
	command -v "${w#*:}" >/dev/null 2>&1 || missing="$missing ${w%:*}"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "installing:$missing"
	apt-get update -q >/dev/null
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends $missing >/dev/null
else
	echo "left out, for want of the Debian packages:$missing (as root, make packages installs them)"
fi
