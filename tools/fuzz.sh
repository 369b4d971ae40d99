#!/usr/bin/env bash
# fuzz.sh: runs every fuzz target of the repository, FUZZTIME each, LANES packages at a time (1 unless set; the processors are shared among
# them). A package is built once for all of its targets.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go} time=${FUZZTIME:-60s} lanes=${LANES:-1}

# fuzz DIR NAME: one target. Minimising would take a minute of a short run, hence 10x. A failing input is left in DIR/testdata.
fuzz() {
	(cd "$1" && "$work/test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$time" -test.fuzzminimizetime 10x -test.fuzzcachedir "$cache/$1" \
		-test.parallel "$workers" -test.timeout 0 -test.paniconexit0) >"$log" 2>&1
}

# lane DIR: all targets of a package.
lane() {
	local dir=$1 name last
	work=$(mktemp -d) log=$work/log
	trap 'rm -rf "$work"' EXIT
	"$go" test -c -fuzz . -o "$work/test" "./$dir"
	for name in $(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's|func ||' | sort); do
		printf 'fuzz %s %s %s\n' "$time" "$dir" "$name"
		if ! fuzz "$dir" "$name"; then
			# On a busy machine Go's fuzzing engine sometimes reports its own end of time as a failure: without a failing input, and with these
			# words alone. That is no finding; the target is run again, and must pass then.
			if grep -q 'Failing input' "$log" || ! grep -q 'context deadline exceeded' "$log" || ! { echo "again: the engine missed its own deadline" && fuzz "$dir" "$name"; }; then
				cat "$log"
				return 1
			fi
		fi
		last=$(grep '^fuzz: elapsed' "$log" | tail -n 1) || { cat "$log"; echo "fuzz.sh: $name in $dir did not run" >&2; return 1; }
		printf '%s %s\n' "$last" "$name" | tee -a "$ran"
	done
}

if [ "${1:-}" = lane ]; then
	lane "$2"
	exit
fi
# Inputs that reached new code are kept from one run to the next, where `go test -fuzz` keeps them too.
cache=$("$go" env GOCACHE)/fuzz/$("$go" list -m)
workers=$(($(nproc) / lanes)) ran=$(mktemp)
trap 'rm -f "$ran"' EXIT
[ "$workers" -gt 0 ] || workers=1
export cache workers ran
all=$(grep -roH --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' --exclude-dir=build . | sed 's|^\./||')
if [ -z "$all" ]; then
	echo "fuzz.sh: no fuzz target found" >&2
	exit 1
fi
# The packages with the most targets go first, so that the lanes end together. 255 makes xargs start no more after a failure.
sed 's|/[^/]*$||' <<<"$all" | sort | uniq -c | sort -k1,1nr -k2 | awk '{ print $2 }' |
	xargs -P "$lanes" -I DIR bash -c 'tools/fuzz.sh lane DIR || exit 255'
count=$(wc -l <"$ran")
if [ "$count" -ne "$(wc -l <<<"$all")" ]; then
	echo "fuzz.sh: $count targets ran of $(wc -l <<<"$all")" >&2
	exit 1
fi
echo "$count fuzz targets ran for $time each"
