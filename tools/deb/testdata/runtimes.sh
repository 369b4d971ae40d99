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

echo "== what postinst does with an inferd that runs, for which there is a stand-in: these libraries can run nothing"
mkdir -p /run/systemd/system /usr/lib/inferd/runtime/2.98.0
rm -f /usr/sbin/policy-rc.d /usr/bin/inferd /usr/bin/systemctl
cat >/usr/bin/systemctl <<'END'
#!/bin/sh
case "$*" in *is-active* | *daemon-reload*) ;; *is-enabled*) echo enabled ;; *) echo "$*" >>/tmp/asked ;; esac
END
cat >/usr/bin/inferd <<'END'
#!/bin/sh
case "$1" in
status) printf '{\n  "runtime": {\n    "library": "%s",\n    "isolation": "version"\n  }\n}\n' "$(cat /tmp/library)" ;;
runtime)
	echo "use $3" >>/tmp/asked
	grep -qxF "$3" /tmp/good || exit 1
	echo "/usr/lib/inferd/runtime/$3/libtensorflow_cc.so.2" >/tmp/library
	printf '{"version":"%s","by":"root"}' "$3" >/var/lib/inferd/runtime.json
	;;
esac
END
chmod +x /usr/bin/systemctl /usr/bin/inferd
trigger() { # WHAT: all that is asked
	: >/tmp/asked
	DPKG_MAINTSCRIPT_PACKAGE=inferd /var/lib/dpkg/info/inferd.postinst triggered /usr/lib/inferd/runtime
	[ "$(tr '\n' ',' </tmp/asked)" = "$1" ] || fail "asked was '$(cat /tmp/asked)', not '$1'"
}
touch /usr/lib/inferd/runtime/2.98.0/libtensorflow_cc.so.2
: >/tmp/library && trigger "try-restart inferd.service," # it has none yet
echo /usr/lib/inferd/runtime/2.98.0/libtensorflow_cc.so.2 >/tmp/library
printf '2.98.0\n' >/tmp/good
trigger "use 2.99.0,use 2.98.0," # the models fail on the newer one: a restart must not take it untried
printf '2.98.0\n2.99.0\n2.100.0\n' >/tmp/good
trigger "use 2.99.0," # 2.98.0 was no operator's choice
trigger "" # as it should be
mkdir /usr/lib/inferd/runtime/2.100.0
trigger "use 2.100.0,"
echo /usr/lib/inferd/runtime/2.98.0/libtensorflow_cc.so.2 >/tmp/library && echo '{"version":"2.98.0"}' >/var/lib/inferd/runtime.json
trigger "" # an operator's choice
rm -r /usr/lib/inferd/runtime/2.98.0
trigger "use 2.100.0," # which is gone
echo /opt/tensorflow/libtensorflow_cc.so.2 >/tmp/library
trigger "" # an operator's own runtime
echo "== good"
