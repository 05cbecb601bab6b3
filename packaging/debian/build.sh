#!/bin/bash
# Builds udm_VERSION_ARCH.deb in the directory $3 from what "make install" has put into the
# directory $1. Needs dpkg-deb, and no root.
set -euo pipefail
tree=$1 version=$2 out=$3
here=$(dirname "$0")
arch=$(dpkg --print-architecture)
umask 022
install -D -m 644 "$here/default" "$tree/etc/default/udm"
install -D -m 644 "$here/service.conf" "$tree/usr/lib/systemd/system/udm.service.d/user.conf"
for socket in udm-control udm-nbd; do
	install -D -m 644 "$here/socket.conf" "$tree/usr/lib/systemd/system/$socket.socket.d/user.conf"
done
find "$tree/usr/share/man" -name '*.1' -exec gzip -9n {} +
install -d "$tree/DEBIAN"
install -m 755 "$here/postinst" "$here/prerm" "$here/postrm" "$tree/DEBIAN"
echo /etc/default/udm >"$tree/DEBIAN/conffiles"
cat >"$tree/DEBIAN/control" <<CONTROL
Package: udm
Version: $version
Architecture: $arch
Maintainer: The maintainers of udm <udm@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)
Depends: passwd
Recommends: fuse3
Section: admin
Priority: optional
Description: Linux device mapper as an ordinary program
 The same tables, status lines, messages and on-disk formats as the kernel's device
 mapper, without root and without a kernel module. The devices are served over NBD, as
 files and to virtual machines.
CONTROL
(cd "$tree" && find etc usr -type f -exec md5sum {} + >DEBIAN/md5sums)
mkdir -p "$out"
dpkg-deb --build --root-owner-group "$tree" "$out/udm_${version}_$arch.deb"
