#!/bin/sh
# Runs every fuzz target of the project for the given time.
set -eu
for pkg in $(go list ./...); do
	for f in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "$pkg $f"
		go test -run '^$' -fuzz "^$f\$" -fuzztime "$1" "$pkg"
	done
done
