#!/bin/bash
# Prepares lvm2's own test suite, as of the installed lvm2's version, from Debian's source package in the user's
# cache, once; prints its folder. Nothing of it is changed: libraries get the names under which lvm2's Makefile
# would install them; the folder needs lvm2-testsuite in its name.
set -euo pipefail
version=$(dpkg-query -W -f '${Version}' lvm2)
version=${version%-*}
out=${UDM_LVM2_SUITE:-${XDG_CACHE_HOME:-$HOME/.cache}/udm/lvm2-testsuite-$version}
[ ! -e "$out/ready" ] || { echo "$out"; exit 0; }
for program in apt-get gcc tar xz; do
	command -v $program >/dev/null || { echo "$program is missing (make packages installs it)" >&2; exit 1; }
done
work=$(mktemp -d "${TMPDIR:-/var/tmp}/lvm2-suite.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
. /etc/os-release
key=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb-src [signed-by=$key] http://deb.debian.org/debian $VERSION_CODENAME main" >list
mkdir -p lists/partial
apt=(apt-get -q -o "Dir::Etc::SourceList=$work/list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::lists=$work/lists" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=")
"${apt[@]}" update >&2
"${apt[@]}" source --download-only "lvm2=$(dpkg-query -W -f '${source:Version}' lvm2)" >&2
tar xf lvm2_*.orig.tar.*
cd LVM2.*/
mkdir -p suite/lib
cp -r test/shell suite/
for f in test/lib/*.sh; do cp "$f" "suite/lib/$(basename "$f" .sh)"; done
chmod +x suite/lib/*
cp test/lib/mke2fs.conf conf/*.profile suite/lib/ 2>/dev/null || true
cp conf/*.profile.in suite/lib/ 2>/dev/null || true
gcc -O -o suite/lib/not test/lib/not.c 2>/dev/null
for name in should invalid fail; do ln -sf not suite/lib/$name; done
for name in lvm $(lvm help 2>&1 | awk '/^  (lv|pv|vg)/ {print $1}'); do ln -sf lvm-wrapper "suite/lib/$name"; done
cut -d' ' -f1 VERSION >suite/lib/version-expected
cut -d' ' -f1 VERSION_DM >suite/lib/dm-version-expected
cat >suite/lib/paths <<'EOF'
DM_UDEV_SYNCHRONISATION=0
LVMPOLLD_PIDFILE="/run/lvmpolld.pid"
DMEVENTD_PIDFILE="/run/dmeventd.pid"
LVM_TEST_THIN_CHECK_CMD=${LVM_TEST_THIN_CHECK_CMD-/usr/sbin/thin_check}
LVM_TEST_THIN_DUMP_CMD=${LVM_TEST_THIN_DUMP_CMD-/usr/sbin/thin_dump}
LVM_TEST_THIN_REPAIR_CMD=${LVM_TEST_THIN_REPAIR_CMD-/usr/sbin/thin_repair}
LVM_TEST_THIN_RESTORE_CMD=${LVM_TEST_THIN_RESTORE_CMD-/usr/sbin/thin_restore}
LVM_TEST_CACHE_CHECK_CMD=${LVM_TEST_CACHE_CHECK_CMD-/usr/sbin/cache_check}
LVM_TEST_CACHE_DUMP_CMD=${LVM_TEST_CACHE_DUMP_CMD-/usr/sbin/cache_dump}
LVM_TEST_CACHE_REPAIR_CMD=${LVM_TEST_CACHE_REPAIR_CMD-/usr/sbin/cache_repair}
LVM_TEST_CACHE_RESTORE_CMD=${LVM_TEST_CACHE_RESTORE_CMD-/usr/sbin/cache_restore}
export DM_UDEV_SYNCHRONISATION LVMPOLLD_PIDFILE DMEVENTD_PIDFILE
installed_testsuite=1
EOF
touch suite/ready
mkdir -p "$(dirname "$out")"
rm -rf "$out"
mv suite "$out"
echo "$out"
