#!/bin/bash
# vm.sh: makes a kernel and an initrd out of Debian's packages, below build/system/vm, and runs the tests of vm_test.go with them. It needs root, qemu-system-x86,
# mke2fs, and what `make test-system` has made before. It takes ten minutes and more.
set -euo pipefail
cd "$(dirname "$0")/../.."
at=$PWD/build/system/vm
mkdir -p "$at"
command -v qemu-system-x86_64 >/dev/null || { echo "vm.sh: NOT RUN: there is no qemu-system-x86_64 (apt install qemu-system-x86)"; exit 0; }
if [ ! -f "$at/initrd.gz" ]; then
	(
		cd "$at"
		kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/{print $2; exit}')
		apt-get download -qq "$kernel" busybox-static
		dpkg-deb -x linux-image-*.deb kernel
		dpkg-deb -x busybox-static*.deb busybox
		mkdir -p initrd/{bin,modules,proc,sys,dev,newroot}
		cp busybox/bin/busybox initrd/bin/
		ln -sf busybox initrd/bin/sh
		for m in virtio/virtio_ring virtio/virtio virtio/virtio_pci_modern_dev virtio/virtio_pci_legacy_dev virtio/virtio_pci block/virtio_blk; do
			cp kernel/lib/modules/*/kernel/drivers/$m.ko initrd/modules/
		done
		cat >initrd/init <<'INIT'
#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do insmod /modules/$m.ko; done
n=0; while [ ! -b /dev/vda ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done
mount -t ext4 -o rw /dev/vda /newroot
umount /proc /sys; mount --move /dev /newroot/dev
exec switch_root /newroot /lib/systemd/systemd
INIT
		chmod +x initrd/init
		(cd initrd && find . | ../busybox/bin/busybox cpio -o -H newc 2>/dev/null | gzip -1) >initrd.new
		mv initrd.new initrd.gz
	)
fi
INFERD_SYSTEM=$PWD/build/system INFERD_VM_KERNEL=$(echo "$at"/kernel/boot/vmlinuz-*) INFERD_VM_INITRD=$at/initrd.gz \
	"${GO:-go}" test -count=1 -v -timeout 40m -run "${RUN:-ClockJump|InItsCgroup}" ./tools/systemtest
