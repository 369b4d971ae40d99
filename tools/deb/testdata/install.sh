# install.sh: inferd 1.0.0 on a machine, an upgrade to 1.1.0 with an edited configuration, removal, purge. Run in a root of its own.
# OTHER is 1.2.0 with another conffile, which shows what dpkg does then.
rm -f /var/lib/man-db/auto-update # the whole machine's pages would be read each time
export DPKG_MAINTSCRIPT_PACKAGE=inferd
fail() {
	echo "FAIL: $*"
	exit 1
}
holds() { # FILE LINE
	grep -qxF "$2" "$1" || fail "$1 does not have the line: $2"
}
install() { apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install "$@" </dev/null; }

# In the place of a systemd that runs: what it would be asked. tools/systemtest asks a real one.
mkdir -p /run/systemd/system
rm -f /usr/sbin/policy-rc.d
mv "$(command -v systemctl)" /usr/bin/systemctl.real
cat >/usr/bin/systemctl <<'END'
#!/bin/sh
case "$*" in
*--root=*) exec systemctl.real "$@" ;;
*is-enabled*) echo enabled ;;
*daemon-reload* | *is-active*) ;;
*) echo "$*" | sed 's/--[a-z]* //g' >>/tmp/asked ;;
esac
END
chmod +x /usr/bin/systemctl
asked() { # WHAT: all that systemd was asked since the last time
	[ "$(cat /tmp/asked 2>/dev/null)" = "$1" ] || fail "systemd was asked '$(cat /tmp/asked)', not '$1'"
	rm -f /tmp/asked
}

echo "== fresh"
install /tmp/debs/old/inferd_*.deb
asked "start inferd.socket inferd-grpc.socket inferd.service"
[ "$(stat -c '%U:%G %a' /var/lib/inferd)" = "inferd:inferd 750" ] || fail "state directory: $(stat -c '%U:%G %a' /var/lib/inferd)"
[ "$(stat -c '%U:%G %a' /var/lib/inferd/models)" = "inferd:inferd 2775" ] || fail "models directory: $(stat -c '%U:%G %a' /var/lib/inferd/models)"
[ "$(getent passwd inferd | cut -d: -f6,7)" = "/var/lib/inferd:/usr/sbin/nologin" ] || fail "user: $(getent passwd inferd)"
for unit in multi-user.target.wants/inferd.service sockets.target.wants/inferd.socket sockets.target.wants/inferd-grpc.socket; do
	[ -e "/etc/systemd/system/$unit" ] || fail "$unit is not enabled"
done
inferd check /etc/inferd/inferd.yaml || fail "the configuration is refused"
tensorflow_model_server --version | grep -q 'in place of TensorFlow ModelServer' || fail "tensorflow_model_server is not inferd"
mkdir -p /var/lib/inferd/models/m/1 && echo x >/var/lib/inferd/models/m/1/saved_model.pb
[ "$(stat -c '%G' /var/lib/inferd/models/m/1/saved_model.pb)" = inferd ] || fail "what root puts into models does not belong to the group"

echo "== every step twice"
/var/lib/dpkg/info/inferd.postinst configure 1.0.0
/var/lib/dpkg/info/inferd.postinst configure
/var/lib/dpkg/info/inferd.prerm upgrade 1.1.0
/var/lib/dpkg/info/inferd.postinst abort-upgrade 1.1.0
/var/lib/dpkg/info/inferd.postinst triggered /usr/lib/inferd/runtime
userdel inferd # and without what makes users and directories from the files
mkdir /tmp/hide && mv "$(command -v systemd-sysusers)" /tmp/hide/ && tmpfiles=$(command -v systemd-tmpfiles) && mv "$tmpfiles" /tmp/hide/
mv /var/lib/inferd /tmp/inferd
/var/lib/dpkg/info/inferd.postinst configure 1.0.0
[ "$(stat -c '%U:%G %a' /var/lib/inferd/models)" = "inferd:inferd 2775" ] || fail "without systemd's tools: $(stat -c '%U:%G %a' /var/lib/inferd/models)"
mv /tmp/hide/* "$(dirname "$tmpfiles")/" && rm -r /var/lib/inferd && mv /tmp/inferd /var/lib/inferd && chown -R inferd:inferd /var/lib/inferd

echo "== an upgrade that nobody watches, with an edited configuration"
echo 'log: {level: debug}' >>/etc/inferd/inferd.yaml
echo 'queue: {max_attempts: 7}' >/etc/inferd/conf.d/10-fleet.yaml
echo q >/var/lib/inferd/queue.db
rm -f /tmp/asked && rm /etc/systemd/system/sockets.target.wants/inferd-grpc.socket
install /tmp/debs/new/inferd_*.deb >/tmp/said 2>&1 || { cat /tmp/said; fail "the upgrade"; }
cat /tmp/said
asked "try-restart inferd.service"
! grep -qi 'configuration file' /tmp/said || fail "dpkg asked"
[ "$(dpkg-query --show --showformat '${Version} ${Status}' inferd)" = "1.1.0 install ok installed" ] || fail "not upgraded"
holds /etc/inferd/inferd.yaml 'log: {level: debug}'
holds /etc/inferd/conf.d/10-fleet.yaml 'queue: {max_attempts: 7}'
[ ! -e /etc/inferd/inferd.yaml.dpkg-dist ] || fail "dpkg put its own configuration beside the edited one"
[ ! -e /etc/systemd/system/sockets.target.wants/inferd-grpc.socket ] || fail "the upgrade enabled what an operator had disabled"

echo "== what would happen if the package's configuration changed too: dpkg asks, and nobody answers"
if dpkg -i /tmp/debs/other/inferd_*.deb </dev/null >/tmp/said 2>&1; then fail "dpkg did not ask, so this test shows nothing"; fi
grep -q "Configuration file '/etc/inferd/inferd.yaml'" /tmp/said || fail "dpkg failed for another reason: $(cat /tmp/said)"
grep -q 'end of file on stdin at conffile prompt' /tmp/said || fail "dpkg failed for another reason: $(cat /tmp/said)"
dpkg --force-confold --configure inferd </dev/null
rm -f /tmp/asked

echo "== remove"
apt-get -qq -y remove inferd </dev/null
asked "stop inferd.socket inferd-grpc.socket inferd.service"
[ ! -e /usr/bin/inferd ] || fail "the binary is still there"
holds /etc/inferd/inferd.yaml 'log: {level: debug}'
holds /etc/inferd/conf.d/10-fleet.yaml 'queue: {max_attempts: 7}'
holds /var/lib/inferd/queue.db q
holds /var/lib/inferd/models/m/1/saved_model.pb x

echo "== back, and purge, with another file system mounted among the models"
install /tmp/debs/other/inferd_*.deb # dpkg has its configuration as the last one that the package brought
asked "start inferd.socket inferd-grpc.socket inferd.service" # though dpkg tells postinst of the version before
holds /etc/inferd/inferd.yaml 'log: {level: debug}'
mkdir /var/lib/inferd/models/shared && mount -t tmpfs tmpfs /var/lib/inferd/models/shared && echo theirs >/var/lib/inferd/models/shared/model
apt-get -qq -y purge inferd </dev/null
holds /var/lib/inferd/models/shared/model theirs
umount /var/lib/inferd/models/shared
left=$(find /var/lib/inferd -not -type d)
[ -z "$left" ] || fail "purge left $left"
[ ! -e /etc/inferd ] || fail "purge left /etc/inferd"
[ -z "$(find /etc/systemd /var/lib/systemd/deb-systemd-helper-enabled -name '*inferd*' 2>/dev/null)" ] || fail "purge left $(find /etc/systemd /var/lib/systemd/deb-systemd-helper-enabled -name '*inferd*')"
getent passwd inferd >/dev/null || fail "purge removed the user, whose files may lie elsewhere"
echo "== good"
