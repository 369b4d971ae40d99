#!/usr/bin/env bash
# fuzz.sh: runs every fuzz target of the repository in turn, FUZZTIME each.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go} time=${FUZZTIME:-60s} count=0
while IFS=: read -r file name; do
	printf 'fuzz %s %s %s\n' "$time" "$(dirname "$file")" "$name"
	"$go" test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10x "./$(dirname "$file")" | tail -n 1 # minimising would take a minute of a short run, hence 10x
	count=$((count + 1))
done < <(grep -rhoH --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' --exclude-dir=build . | sed 's|^\./||; s|func ||')
if [ "$count" -eq 0 ]; then
	echo "fuzz.sh: no fuzz target found" >&2
	exit 1
fi
echo "$count fuzz targets ran for $time each"
