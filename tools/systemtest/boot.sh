# boot.sh: becomes systemd as PID 1 of new namespaces. Given: ROOT (mounted), CGDIRS (this machine's child in each cgroup hierarchy), NAME.
set -eu
for d in $CGDIRS; do echo $$ >"$d/cgroup.procs"; done
# A limit above the machine's hard limit would be lowered without a word; see packaging/systemd.
exec unshare --pid --mount --uts --ipc --cgroup --net --fork --kill-child --propagation private /bin/sh -euc '
	cd "$ROOT"
	mount -t proc proc proc
	mount -t sysfs -o ro sysfs sys
	if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
		mount -t cgroup2 cgroup2 sys/fs/cgroup
	else
		mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
		for c in $(awk -F: "\$2!=\"\" && \$2!~/=/{print \$2}" /proc/self/cgroup); do
			mkdir -p sys/fs/cgroup/$c
			mount -t cgroup -o $c cgroup sys/fs/cgroup/$c
		done
		mkdir -p sys/fs/cgroup/systemd sys/fs/cgroup/unified
		mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
		mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
	fi
	mount -t tmpfs -o mode=755 tmpfs dev
	for n in null zero full random urandom tty; do cp -a /dev/$n dev/$n; done
	mkdir dev/pts dev/shm
	mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
	ln -s pts/ptmx dev/ptmx
	mount -t tmpfs tmpfs dev/shm
	ln -s /proc/self/fd dev/fd
	touch dev/console
	mount -t tmpfs -o mode=755 tmpfs run
	mount -t tmpfs -o size=2g tmpfs tmp
	hostname "$NAME"
	pivot_root . oldroot
	# LoadCredential needs shared mounts. PID 1 logs to the journal: its lines about the watchdog are read there.
	exec chroot . /bin/sh -c "umount -l /oldroot; mount --make-rshared /; exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --show-status=1"
'
