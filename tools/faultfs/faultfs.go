// faultfs.go: for tests that need a disk which fails, or which remembers what was written to it.

// Package faultfs mounts a file system in memory (FUSE) that fails on demand and keeps account of writes and fsyncs, so that a test can make
// up every file that a power cut may leave. It is for tests only.
//
// Whoever maps a file of it must be another process than the one that serves it: a page fault holds up a thread that Go believes to be
// running, and where that is one thread too many nobody is left to serve it.
package faultfs

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Kind is what was asked of a file.
type Kind int

// The kinds.
const (
	Read Kind = iota
	Write
	Sync
	Truncate
	Rename
	Create
	Remove
)

var kinds = [...]string{"read", "write", "sync", "truncate", "rename", "create", "remove"}

func (k Kind) String() string { return kinds[k] }

// Op is one request that changes a file or asks for it to be durable, in the order in which they were done.
type Op struct {
	Kind Kind
	Name string
	Off  int64  // of Write; the size of Truncate
	Data []byte // of Write
}

// FS is the mounted file system.
type FS struct {
	Dir string // where it is mounted

	mu      sync.Mutex
	log     []Op                                                            // guarded by mu
	keeping bool                                                            // guarded by mu
	fault   func(kind Kind, name string, off int64, size int) syscall.Errno // guarded by mu
	room    int64                                                           // guarded by mu: bytes that may still be taken; below zero: any
	lose    *rand.Rand                                                      // guarded by mu
	files   map[string]*file                                                // guarded by mu
}

// Mount mounts an empty file system until the end of the test. Without /dev/fuse or the right to mount the test is skipped: namespace.Inside
// gives that right.
func Mount(t *testing.T) *FS {
	t.Helper()
	f := &FS{Dir: t.TempDir(), room: -1, files: make(map[string]*file)}
	o := &fs.Options{UID: uint32(syscall.Getuid()), GID: uint32(syscall.Getgid())}
	o.DirectMountStrict, o.DisableXAttrs, o.FsName, o.Name = true, true, "faultfs", "faultfs"
	server, err := fs.Mount(f.Dir, &dir{fs: f}, o)
	if err != nil {
		t.Skipf("no file system that fails on demand is to be had here (it takes /dev/fuse and the right to mount): %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			_ = syscall.Unmount(f.Dir, syscall.MNT_DETACH) // somebody has a file of it open
		}
		server.Wait()
	})
	return f
}

// Keep has writes and fsyncs kept from now on, from the files as they are.
func (f *FS) Keep() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keeping, f.log = true, nil
}

// Kept is what was kept so far.
func (f *FS) Kept() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// Fail has every request answered with what fault returns, unless that is 0. Nil: nothing fails. It is called with the file system locked.
func (f *FS) Fail(fault func(kind Kind, name string, off int64, size int) syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// Room sets how many bytes may still be taken by files that grow; what goes beyond is ENOSPC, after the part that fits. Below zero: any.
func (f *FS) Room(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room = bytes
}

// Lose has an fsync that fails lose a random part of what was written since the last good one, as Linux does: the pages count as clean then.
func (f *FS) Lose(seed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lose = rand.New(rand.NewPCG(seed, 0))
}

// Locked runs f while no request is answered, for what a fault function shares with its test.
func (f *FS) Locked(g func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g()
}

// Names are the files that there are.
func (f *FS) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.files))
}

// Bytes is a copy of a file, nil where there is none.
func (f *FS) Bytes(name string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.files[name]; n != nil {
		return slices.Clone(n.data)
	}
	return nil
}

// failed is the fault for a request. mu is held.
func (f *FS) failed(kind Kind, name string, off int64, size int) syscall.Errno {
	if f.fault == nil {
		return 0
	}
	return f.fault(kind, name, off, size)
}

// note keeps the request. mu is held.
func (f *FS) note(op Op) {
	if f.keeping {
		op.Data = slices.Clone(op.Data)
		f.log = append(f.log, op)
	}
}

// dir is the root, and the only directory.
type dir struct {
	fs.Inode
	fs *FS
}

var (
	_ fs.NodeCreater  = (*dir)(nil)
	_ fs.NodeUnlinker = (*dir)(nil)
	_ fs.NodeRenamer  = (*dir)(nil)
	_ fs.NodeFsyncer  = (*dir)(nil)
)

func (d *dir) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	if errno := d.fs.failed(Create, name, 0, 0); errno != 0 {
		return nil, nil, 0, errno
	}
	n := &file{fs: d.fs, name: name, mode: mode & 0o777}
	d.fs.files[name] = n
	d.fs.note(Op{Kind: Create, Name: name})
	out.Mode = n.mode | syscall.S_IFREG
	return d.NewInode(ctx, n, fs.StableAttr{Mode: syscall.S_IFREG}), nil, 0, 0
}

func (d *dir) Unlink(_ context.Context, name string) syscall.Errno {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	if errno := d.fs.failed(Remove, name, 0, 0); errno != 0 {
		return errno
	}
	delete(d.fs.files, name)
	d.fs.note(Op{Kind: Remove, Name: name})
	return 0
}

func (d *dir) Rename(_ context.Context, name string, _ fs.InodeEmbedder, to string, _ uint32) syscall.Errno {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	if errno := d.fs.failed(Rename, name, 0, 0); errno != 0 {
		return errno
	}
	n := d.fs.files[name]
	if n == nil {
		return syscall.ENOENT
	}
	delete(d.fs.files, name)
	d.fs.files[to], n.name = n, to
	d.fs.note(Op{Kind: Rename, Name: name})
	return 0
}

func (d *dir) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d.fs.mu.Lock()
	defer d.fs.mu.Unlock()
	return d.fs.failed(Sync, ".", 0, 0)
}

// file is one file. The file system's mu guards it.
type file struct {
	fs.Inode
	fs      *FS
	name    string
	mode    uint32
	data    []byte
	durable []byte // after the last fsync
	since   []Op   // the writes after it
}

var (
	_ fs.NodeOpener    = (*file)(nil)
	_ fs.NodeReader    = (*file)(nil)
	_ fs.NodeWriter    = (*file)(nil)
	_ fs.NodeFsyncer   = (*file)(nil)
	_ fs.NodeGetattrer = (*file)(nil)
	_ fs.NodeSetattrer = (*file)(nil)
)

// Open has the kernel drop what it remembers of the file, as a new mount of a disk would.
func (n *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) { return nil, 0, 0 }

func (n *file) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	if errno := n.fs.failed(Read, n.name, off, len(dest)); errno != 0 {
		return nil, errno
	}
	size := 0
	if off < int64(len(n.data)) {
		size = copy(dest, n.data[off:])
	}
	return fuse.ReadResultData(dest[:size]), 0
}

// grow takes room for the file up to size, and says up to which size there is some.
func (n *file) grow(size int64) (int64, syscall.Errno) {
	more, errno := size-int64(len(n.data)), syscall.Errno(0)
	if more <= 0 {
		return size, 0
	}
	if n.fs.room >= 0 {
		if more > n.fs.room {
			more, errno = n.fs.room, syscall.ENOSPC
		}
		n.fs.room -= more
	}
	n.data = append(n.data, make([]byte, more)...)
	return int64(len(n.data)), errno
}

func (n *file) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	errno := n.fs.failed(Write, n.name, off, len(data))
	if errno != 0 {
		data = data[:len(data)/2] // a part of it went through
	}
	end, full := n.grow(off + int64(len(data)))
	if errno == 0 {
		errno = full
	}
	data = data[:max(min(end-off, int64(len(data))), 0)]
	op := Op{Kind: Write, Name: n.name, Off: off, Data: data}
	copy(n.data[off:], data)
	n.fs.note(op)
	if n.fs.lose != nil {
		op.Data = slices.Clone(data)
		n.since = append(n.since, op)
	}
	if errno != 0 {
		return 0, errno
	}
	return uint32(len(data)), 0
}

func (n *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	if errno := n.fs.failed(Sync, n.name, 0, 0); errno != 0 {
		if n.fs.lose != nil {
			n.data = Subset(n.fs.lose, n.durable, n.since, len(n.data))
			n.since = nil
		}
		return errno
	}
	n.fs.note(Op{Kind: Sync, Name: n.name})
	if n.fs.lose != nil {
		n.durable, n.since = slices.Clone(n.data), nil
	}
	return 0
}

func (n *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	n.attributes(out)
	return 0
}

func (n *file) attributes(out *fuse.AttrOut) {
	out.Mode, out.Size, out.Nlink = n.mode|syscall.S_IFREG, uint64(len(n.data)), 1
	out.Blocks = (out.Size + 511) / 512
}

func (n *file) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.fs.mu.Lock()
	defer n.fs.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		errno := n.fs.failed(Truncate, n.name, int64(size), 0)
		if errno == 0 && int64(size) > int64(len(n.data)) {
			_, errno = n.grow(int64(size))
		}
		if errno != 0 {
			return errno
		}
		n.data = n.data[:size]
		n.fs.note(Op{Kind: Truncate, Name: n.name, Off: int64(size)})
	}
	n.attributes(out)
	return 0
}
