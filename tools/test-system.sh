#!/bin/bash
# test-system.sh: installs inferd on a Debian root under a real systemd as PID 1, in namespaces, and tries what must hold there (tools/systemtest).
# Where that cannot be done it says why, and is no failure. INFERD_LONG=1: more and longer; RUN=REGEXP: only those tests.
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
export INFERD_SYSTEM=$PWD/build/system
mkdir -p "$INFERD_SYSTEM"

echo "test-system: booting systemd; the first time its root is made, which takes two minutes ..."
if ! first=$("$GO" test -count=1 -v -timeout 10m -run '^TestMachine$' ./tools/systemtest 2>&1); then
	echo "$first"
	exit 1
fi
if grep -q -e '--- SKIP' <<<"$first"; then
	echo "test-system: NOT RUN, none of what is promised about the installed service was tried:"
	grep -e '_test.go' <<<"$first"
	exit 0
fi

make --no-print-directory deb DEB_OUT="$INFERD_SYSTEM/v1" # both before any test: it is these files that are installed
make --no-print-directory deb DEB_OUT="$INFERD_SYSTEM/v2" DEB_VERSION=999.0 DEB_PACKAGES=inferd
"$GO" test -count=1 -v -timeout 60m -parallel 3 ${RUN:+-run "$RUN"} ./tools/systemtest | { grep -a -E '^(---|===|ok|FAIL|panic)|^ +(---|[a-z_]*_test.go)|^        ' || true; }
