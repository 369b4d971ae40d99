// peer.go: who is at the other end of a unix socket, as the kernel says, and what that user may do.
package access

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is a process at the other end of a unix socket.
type Peer struct {
	PID    int32
	UID    uint32
	Groups []uint32 // its group and the supplementary ones
}

// PeerOf asks the kernel about the other end of a unix socket. ok is false of any other connection.
func PeerOf(c net.Conn) (p Peer, ok bool) {
	for {
		n, wrapped := c.(interface{ NetConn() net.Conn })
		if !wrapped {
			break
		}
		c = n.NetConn()
	}
	u, isUnix := c.(*net.UnixConn)
	if !isUnix {
		return p, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return p, false
	}
	failed := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		p = Peer{PID: cred.Pid, UID: cred.Uid, Groups: append([]uint32{cred.Gid}, peerGroups(fd)...)}
	})
	return p, failed == nil && err == nil
}

// peerGroups are the supplementary groups that the peer had when it connected; none where the kernel (before 4.13) cannot tell.
func peerGroups(fd uintptr) []uint32 {
	groups := make([]uint32, 64)
	for range 2 {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS, uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0) //nolint:gosec // getsockopt's own form
		switch {
		case errno == 0:
			return groups[:size/4]
		case !errors.Is(errno, unix.ERANGE) || size > 4*65536:
			return nil
		}
		groups = make([]uint32, size/4) // it has said how many there are
	}
	return nil
}

// AuthType makes a Peer what gRPC calls authentication information.
func (Peer) AuthType() string { return "peer" }

// Operators are those who may change things through a unix socket: root, this process's own user, and the members of a group.
type Operators struct {
	group string // empty: none
	gid   int
}

// NewOperators are root, this process's user and the members of the group, which may be empty.
func NewOperators(group string) (Operators, error) {
	o := Operators{group: group}
	if group == "" {
		return o, nil
	}
	if o.gid = groupID(group); o.gid < 0 {
		return o, fmt.Errorf("this machine has no group %.64q; make it, or name another", group)
	}
	return o, nil
}

// Include reports whether the peer is one of them.
func (o Operators) Include(p Peer) bool {
	return p.UID == 0 || int64(p.UID) == int64(os.Geteuid()) || o.group != "" && slices.Contains(p.Groups, uint32(o.gid))
}

// String says who they are, for messages.
func (o Operators) String() string {
	who := "root and " + UserName(uint32(os.Geteuid()))
	if os.Geteuid() == 0 {
		who = "root"
	}
	if o.group != "" {
		who += " and the members of group " + o.group
	}
	return who
}

// UserName is the name of a user, or its number where it has none.
func UserName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}

// groupID is the number of a group, -1 where there is none of that name.
func groupID(name string) int {
	if name == "" {
		return -1
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return n
}

func inode(st fs.FileInfo) uint64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}

// owner is whose file it is.
func owner(st fs.FileInfo) (uid, gid int) {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid), int(s.Gid)
	}
	return -1, -1
}
