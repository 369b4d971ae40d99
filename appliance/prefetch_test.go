// prefetch_test.go: what is read ahead, and how much of it.
package appliance

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// coldFile makes a file of so many bytes and has the kernel drop its pages.
func coldFile(t *testing.T, path string, size int) *os.File {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if !inMemory(f, int64(size)) {
		t.Skip("this file system does not tell what is in memory")
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil || inMemory(f, int64(size)) {
		t.Skipf("this file system keeps its pages: %v", err)
	}
	return f
}

// withRoom is a prefetcher where so much memory is free, whose hints are counted instead of given.
func withRoom(free int64, known bool) (*prefetcher, *int64) {
	hinted := new(int64)
	return &prefetcher{
		room:   func() (int64, string, bool) { return free, "test", known },
		advise: func(_ int, _, length int64) error { *hinted += length; return nil },
	}, hinted
}

func TestPrefetchReads(t *testing.T) {
	dir := t.TempDir()
	const size = 3 * prefetchStep
	f := coldFile(t, filepath.Join(dir, "variables", "variables.data-00000-of-00001"), size)
	newPrefetcher(func() (int64, string, bool) { return prefetchShare * size, "test", true }).version(t.Context(), dir)
	for end := time.Now().Add(time.Minute); !inMemory(f, size); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the file was not read")
		}
	}
	p, hinted := withRoom(prefetchShare*size, true)
	if p.version(t.Context(), dir); *hinted != 0 {
		t.Errorf("%d bytes are read ahead that are in memory", *hinted)
	}
}

func TestPrefetchIsBounded(t *testing.T) {
	dir := t.TempDir()
	library := filepath.Join(dir, "libtensorflow_cc.so.2")
	coldFile(t, filepath.Join(dir, "libtensorflow_framework.so.2"), prefetchStep)
	coldFile(t, library, 4*prefetchStep)
	for _, c := range []struct {
		name  string
		free  int64
		known bool
		want  int64
	}{
		{"all fits", 100 * prefetchShare * prefetchStep, true, 5 * prefetchStep},
		{"a part", 3 * prefetchShare * prefetchStep, true, 3 * prefetchStep},
		{"nothing is free", 0, true, 0},
		{"nobody knows", 0, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, hinted := withRoom(c.free, c.known)
			if p.library(t.Context(), library); *hinted != c.want {
				t.Errorf("%d bytes are read ahead, want %d", *hinted, c.want)
			}
		})
	}
	p, hinted := withRoom(1<<40, true)
	if p.library(t.Context(), filepath.Join(dir, "none", "libtensorflow_cc.so.2")); *hinted != 0 {
		t.Error("a library that is not there is read ahead")
	}
	(*prefetcher)(nil).version(t.Context(), dir)
}
