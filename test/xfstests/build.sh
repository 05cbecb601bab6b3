#!/bin/sh
# Builds a copy of the source of xfstests in the folder $1 in the user's cache, and prints its
# folder. What was built from an older source is built again where it has changed.
set -eu
[ -f "$1/common/rc" ] || { echo "$1 is not the source of xfstests" >&2; exit 1; }
out=${XDG_CACHE_HOME:-$HOME/.cache}/udm/xfstests
mkdir -p "$out"
cp -ru "$1/." "$out"
make -s -C "$out" >"$out/build.log" 2>&1 || { tail -n 20 "$out/build.log" >&2; exit 1; }
echo "$out"
