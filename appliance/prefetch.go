// prefetch.go: has the kernel read the library and a version's variables before somebody waits for each page of them.
package appliance

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	prefetchStep  = 128 << 10 // the kernel cuts a hint short at the device's readahead, of which this is the usual one
	prefetchShare = 4         // this part of the free memory at most: a small machine would only throw out what it has just read
	probes        = 64        // places of a file that are looked at to tell whether it is in memory
)

// prefetcher gives hints, which never fail: where one has no effect, the pages are read as they are needed. nil does nothing.
type prefetcher struct {
	room   func() (free int64, why string, ok bool) // what is free; without knowing that nothing is read ahead
	advise func(fd int, offset, length int64) error
}

func newPrefetcher(room func() (int64, string, bool)) *prefetcher {
	return &prefetcher{room, func(fd int, offset, length int64) error { return unix.Fadvise(fd, offset, length, unix.FADV_WILLNEED) }}
}

// library reads the runtime's shared objects ahead, the one first that is mapped first.
func (p *prefetcher) library(ctx context.Context, library string) {
	if library != "" {
		p.files(ctx, filepath.Join(filepath.Dir(library), "libtensorflow_framework.so.2"), library)
	}
}

// version reads the variables in a version folder ahead.
func (p *prefetcher) version(ctx context.Context, dir string) {
	var paths []string
	_ = filepath.WalkDir(filepath.Join(dir, "variables"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			paths = append(paths, path)
		}
		return nil // what is wrong the load says
	})
	p.files(ctx, paths...)
}

func (p *prefetcher) files(ctx context.Context, paths ...string) {
	if p == nil {
		return
	}
	free, _, _ := p.room()
	left := free / prefetchShare
	for _, path := range paths {
		left -= p.file(ctx, path, left)
	}
}

// file reads up to so many bytes of a file ahead, and returns how many it hinted at.
func (p *prefetcher) file(ctx context.Context, path string, most int64) (bytes int64) {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || inMemory(f, info.Size()) {
		return 0
	}
	most = min(most, info.Size())
	for bytes < most && ctx.Err() == nil {
		if p.advise(int(f.Fd()), bytes, prefetchStep) != nil {
			return bytes
		}
		bytes += prefetchStep
	}
	return bytes
}

// inMemory reports whether a file's pages seem to be in the page cache. Hints for those cost a tenth of a second for the whole library, while the doors
// open. Not by mincore, which tells only who may write the file.
func inMemory(f *os.File, size int64) bool {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM) // the probes read nothing else
	var b [1]byte
	for i := range int64(probes) {
		if n, err := unix.Preadv2(int(f.Fd()), [][]byte{b[:]}, i*size/probes, unix.RWF_NOWAIT); err != nil || n == 0 {
			return size == 0 // it is not there, or the file system cannot tell
		}
	}
	return true
}
