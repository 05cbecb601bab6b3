#!/bin/sh
# Prints the folder of Debian's kernel for virtual machines of a release, such as trixie-backports, with its modules,
# which is fetched once into the user's cache: 35 to 40 MB, unpacked 130. It is not installed, and neither is the release's
# list of packages. That of bookworm-security is Linux 6.12.
set -eu
release=$1
case $release in
*-security) label=Debian-Security package=linux-image-6.12-cloud-amd64 ;;
*) label=Debian package=linux-image-cloud-amd64 ;;
esac
PATH=$PATH:/usr/sbin:/sbin
cache=${XDG_CACHE_HOME:-$HOME/.cache}/udm
link=$cache/kernel-$release
if [ ! -d "$link" ]; then
	mkdir -p "$cache"
	work=$(mktemp -d "$cache/kernel.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	mkdir -p lists/partial archives/partial kernel
	mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' | awk -v label=$label '$1 == label {print $2; exit}')
	[ -n "$mirror" ] || { echo "no $label among the package sources; apt-get update may help" >&2; exit 1; }
	echo "deb $mirror $release main" >sources.list
	for tool in get cache; do
		eval "$tool() { apt-$tool -o Dir::Etc::sourcelist=$work/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$work/lists -o Dir::Cache=$work \"\$@\"; }"
	done
	get update -q >&2
	image=$(cache depends $package | awk '/Depends: linux-image-[0-9]/ {print $2}')
	[ -n "$image" ] || { echo "no $package in $release" >&2; exit 1; }
	# Newer releases divide it in two.
	parts=$(cache depends "$image" | awk '/Depends: linux-(binary|modules)-/ {print $2}')
	# shellcheck disable=SC2086
	get download -q ${parts:-$image} >&2
	for deb in linux-*.deb; do dpkg-deb -x "$deb" kernel; done
	[ -d kernel/lib/modules ] || { mkdir -p kernel/lib && mv kernel/usr/lib/modules kernel/lib/; }
	[ -d kernel/boot ] || { mkdir kernel/boot && mv kernel/lib/modules/*/vmlinuz kernel/boot/vmlinuz-"$release"; }
	depmod -b "$work/kernel" "$(basename kernel/lib/modules/*)" 2>/dev/null
	mv kernel "$link"
fi
echo "$link"
