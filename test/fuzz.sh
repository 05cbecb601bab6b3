#!/bin/sh
# Runs every fuzz target of the project for the given time. Shrinking inputs that
# find new paths is cut short: it would take all of it where inputs are long.
set -eu
for pkg in $(go list ./...); do
	for f in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "$pkg $f"
		go test -run '^$' -fuzz "^$f\$" -fuzzminimizetime 100x -fuzztime "$1" "$pkg"
	done
done
