// remote.go: file systems whose changes inotify sees only in part, known by their type, and how often they are looked at instead.
package updater

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// remote has the file systems that other machines, another mount or a program behind them can change without the kernel here hearing of it.
var remote = map[int64]string{
	unix.NFS_SUPER_MAGIC:       "NFS",
	unix.SMB_SUPER_MAGIC:       "SMB",
	unix.SMB2_SUPER_MAGIC:      "SMB",
	unix.CIFS_SUPER_MAGIC:      "SMB",
	unix.CEPH_SUPER_MAGIC:      "Ceph",
	unix.AFS_SUPER_MAGIC:       "AFS",
	unix.AFS_FS_MAGIC:          "AFS",
	unix.CODA_SUPER_MAGIC:      "Coda",
	unix.V9FS_MAGIC:            "9p",
	unix.FUSE_SUPER_MAGIC:      "FUSE",
	unix.OCFS2_SUPER_MAGIC:     "OCFS2",
	unix.OVERLAYFS_SUPER_MAGIC: "an overlay",
	0x01161970:                 "GFS2",
	0x0bd00bd0:                 "Lustre",
	0x19830326:                 "BeeGFS",
	0x47504653:                 "GPFS",
	0x61756673:                 "aufs",
	0x786f4256:                 "a VirtualBox folder",
	0xbacbacbc:                 "a VMware folder",
}

// remoteAt names the path's file system when it is one of those, else it is empty. It blocks as long as the file system does.
func remoteAt(path string) string {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return "" // the look itself says what is wrong
	}
	return remote[int64(uint32(st.Type))] //nolint:unconvert // Type is int64 here and int32 elsewhere, and a magic number has 32 bits
}

// polledText says that the path is polled.
func (l *loop) polledText(path, on string) string {
	if on == "" {
		return ""
	}
	return fmt.Sprintf("%s lies on %s, where changes that are made elsewhere are not heard of: it is looked at every %v", path, on, l.poll(on, 0))
}

// setPolled takes in on which file system a look found the base path.
func (l *loop) setPolled(m *model, found look) {
	if found.Base != baseThere || m.on == found.On {
		return
	}
	m.on, m.polled, m.dirty = found.On, l.polledText(m.BasePath, found.On), true
	if m.polled != "" && (m.configured || l.root.on != m.on) { // else it was said of the models directory
		l.log.Info("base path is polled", "model", m.Name, "path", m.BasePath, "reason", m.polled)
	}
}

// setRootPolled is setPolled for the models directory.
func (l *loop) setRootPolled(found rootLook) {
	r := l.root
	if found.Base != baseThere || r.on == found.On {
		return
	}
	r.on = found.On
	text := l.polledText(r.dir, r.on)
	if text != "" {
		l.log.Info("models directory is polled", "path", r.dir, "reason", text)
	}
	l.c.publish(func(p *published) { p.polled = text })
}
