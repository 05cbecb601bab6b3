#!/bin/sh
# Prints the folder of libblkio and its header, which are fetched once into the user's cache from
# Debian 13 (the release before has none; the library needs no more than that one's libc). They
# are not installed.
set -eu
out=${XDG_CACHE_HOME:-$HOME/.cache}/udm/libblkio
if [ ! -d "$out" ]; then
	mkdir -p "$(dirname "$out")"
	work=$(mktemp -d "$out.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	mkdir -p state/lists/partial cache/archives/partial
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" >sources.list
	cat >apt.conf <<-END
		Dir::State "$work/state";
		Dir::State::status "/var/lib/dpkg/status";
		Dir::Cache "$work/cache";
		Dir::Etc::SourceList "$work/sources.list";
		Dir::Etc::SourceParts "/dev/null";
	END
	export APT_CONFIG="$work/apt.conf"
	apt-get update -q >&2
	apt-get download -q libblkio1 libblkio-dev >&2
	for package in *.deb; do dpkg-deb -x "$package" library; done
	mv library "$out"
fi
echo "$out"
