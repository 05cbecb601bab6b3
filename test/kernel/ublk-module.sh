#!/bin/bash
# Builds the ublk driver for Debian's user-mode kernel, which comes without it, from Debian's source of the same
# kernel, into the user's cache, once: some minutes, and 2 GB below $TMPDIR, which are removed again.
set -euo pipefail
version=$(basename "$(dirname /usr/lib/uml/modules/*/modules.dep)")
out=${XDG_CACHE_HOME:-$HOME/.cache}/udm/uml-$version/ublk_drv.ko
[ ! -e "$out" ] || exit 0
need() {
	for program in "$@"; do
		command -v "$program" >/dev/null || { echo "$program is missing (make packages installs it)" >&2; exit 1; }
	done
}
need gcc make flex bison bc xz
work=$(mktemp -d "${TMPDIR:-/var/tmp}/ublk-module.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
series=${version%.*}
package=$(apt-cache madison "linux-source-$series" | awk -v v="$version-" 'index($3, v) == 1 {print $3; exit}')
[ -n "$package" ] || { echo "no linux-source-$series of version $version among the package sources; apt-get update may help" >&2; exit 1; }
apt-get download "linux-source-$series=$package"
dpkg-deb -x linux-source-*.deb .
tar xf "usr/src/linux-source-$series.tar.xz" --exclude='*/drivers/gpu/*.[ch]' --exclude='*/drivers/net/*.[ch]' \
	--exclude='*/sound/*.[ch]' --exclude='*/tools/testing/*'
cd "linux-source-$series"
/usr/bin/linux --showconfig >.config
scripts/config -m BLK_DEV_UBLK
make -s ARCH=um olddefconfig
make -s ARCH=um -j"$(nproc)" modules_prepare
mkdir ../driver
cp drivers/block/ublk_drv.c ../driver
echo 'obj-m := ublk_drv.o' >../driver/Makefile
make -s ARCH=um M="$work/driver" KBUILD_MODPOST_WARN=1 modules # without the kernel's own symbols, which it warns of
mkdir -p "$(dirname "$out")"
mv "$work/driver/ublk_drv.ko" "$out"
