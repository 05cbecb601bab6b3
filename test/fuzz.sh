#!/bin/sh
# Runs every fuzz target of the project for the given time, and the targets whose
# names match the second argument if there is one. Targets are found in the sources,
# and each has to be in its package's test binary, so that none is left out.
# Shrinking inputs that find new paths is cut short: it would take all of the time
# where inputs are long.
set -eu
grep -rHoE --include='*_test.go' '^func Fuzz\w*' . | grep -E "${2:-}" | sort |
	while IFS=: read -r file func; do
		dir=$(dirname "$file") name=${func#func }
		echo "$dir $name"
		cd "$dir"
		go test -list "^$name\$" . | grep -qx "$name" || { echo "$name is not in the test binary of $dir" >&2; exit 1; }
		go test -run '^$' -fuzz "^$name\$" -fuzzminimizetime 100x -fuzztime "$1" .
		cd "$OLDPWD"
	done
