#!/usr/bin/env bash
# fuzz.sh: runs every fuzz target of the repository in turn, FUZZTIME each. A package is built once for all of its targets.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go} time=${FUZZTIME:-60s} count=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log
# Inputs that reached new code are kept from one run to the next, where `go test -fuzz` keeps them too.
cache=$("$go" env GOCACHE)/fuzz/$("$go" list -m)

# fuzz DIR NAME: one target. Minimising would take a minute of a short run, hence 10x. A failing input is left in DIR/testdata.
fuzz() {
	(cd "$1" && "$work/test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$time" -test.fuzzminimizetime 10x -test.fuzzcachedir "$cache/$1" \
		-test.timeout 0 -test.paniconexit0) >"$log" 2>&1
}

built=
while IFS=: read -r file name; do
	dir=$(dirname "$file")
	if [ "$dir" != "$built" ]; then
		"$go" test -c -fuzz . -o "$work/test" "./$dir"
		built=$dir
	fi
	printf 'fuzz %s %s %s\n' "$time" "$dir" "$name"
	if ! fuzz "$dir" "$name"; then
		# On a busy machine Go's fuzzing engine sometimes reports its own end of time as a failure: without a failing input, and with these
		# words alone. That is no finding; the target is run again, and must pass then.
		if grep -q 'Failing input' "$log" || ! grep -q 'context deadline exceeded' "$log" || ! { echo "again: the engine missed its own deadline" && fuzz "$dir" "$name"; }; then
			cat "$log"
			exit 1
		fi
	fi
	grep '^fuzz: elapsed' "$log" | tail -n 1 || { cat "$log"; echo "fuzz.sh: $name in $dir did not run" >&2; exit 1; }
	count=$((count + 1))
done < <(grep -rhoH --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' --exclude-dir=build . | sed 's|^\./||; s|func ||' | sort)
if [ "$count" -eq 0 ]; then
	echo "fuzz.sh: no fuzz target found" >&2
	exit 1
fi
echo "$count fuzz targets ran for $time each"
