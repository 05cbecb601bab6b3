#!/bin/sh
# Installs the Debian packages of test/need/packages.txt, or of the list $1, that are
# missing, when it may; otherwise says which tests are skipped. A line is a package, and
# programs or files in it.
set -eu
PATH=$PATH:/usr/sbin:/sbin
list=${1:-$(dirname "$0")/need/packages.txt}
missing() {
	while read -r package programs; do
		for p in $programs; do
			command -v "$p" >/dev/null 2>&1 || [ -f "$p" ] || { printf ' %s' "$package"; break; }
		done
	done <"$list"
}
want=$(missing)
[ -n "$want" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "installing:$want"
	# shellcheck disable=SC2086
	if apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends $want >/dev/null; then
		exit 0
	fi
	want=$(missing)
fi
echo "Tests are skipped that need programs of these Debian packages:$want (make packages installs them as root; go test -v tells which tests)"
