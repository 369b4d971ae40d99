# runtimes.sh: a newer TensorFlow comes by an upgrade; the one before stays, and inferd is told each time. Run in a root of its own.
rm -f /var/lib/man-db/auto-update # the whole machine's pages would be read each time
fail() {
	echo "FAIL: $*"
	exit 1
}
install() { apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install "$@" </dev/null; }
runtimes() { ls /usr/lib/inferd/runtime | tr '\n' ' '; }
told() { grep -c 'trigproc inferd:' /var/log/dpkg.log || true; }

: >/var/log/dpkg.log
install /tmp/debs/old/inferd_*.deb /tmp/debs/old/inferd-runtime-cpu_*.deb /tmp/debs/old/inferd-runtime-cpu-"$NOW"_*.deb
[ "$(runtimes)" = "$NOW " ] || fail "runtimes: $(runtimes)"
inferd doctor | grep -q "/usr/lib/inferd/runtime/$NOW/libtensorflow_cc.so.2: has no" || fail "inferd does not find the runtime"
# A file is installed by its name; from a repository the second would have come for the first's sake.
apt-mark auto "inferd-runtime-cpu-$NOW" >/dev/null
before=$(told)

install /tmp/debs/new/inferd-runtime-cpu_*.deb /tmp/debs/new/inferd-runtime-cpu-2.99.0_*.deb
[ "$(runtimes)" = "$NOW 2.99.0 " ] || fail "runtimes after the upgrade: $(runtimes)"
[ "$(told)" -gt "$before" ] || fail "inferd was not told of the new runtime"
apt-get -s autoremove | grep -q "Remv inferd-runtime-cpu-$NOW" && fail "apt would take the runtime before away by itself"
apt-get -s autoremove -o APT::AutoRemove::RecommendsImportant=false | grep -q "Remv inferd-runtime-cpu-$NOW" || fail "apt keeps it for another reason than inferd's Recommends, so this test shows nothing"

before=$(told)
apt-get -qq -y remove "inferd-runtime-cpu-$NOW" </dev/null
[ "$(runtimes)" = "2.99.0 " ] || fail "runtimes after the old one was removed: $(runtimes)"
[ "$(told)" -gt "$before" ] || fail "inferd was not told that a runtime is gone"
echo "== good"
