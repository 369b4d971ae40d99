// doctor_test.go: the parts of the doctor that are functions of what was found.
package appliance

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

func TestWritable(t *testing.T) {
	tree := fstest.MapFS{"srv/state": {Mode: fs.ModeDir | 0o755}, "srv/file": {Data: []byte("x")}, "closed": {Mode: fs.ModeDir | 0o700}, ".": {Mode: fs.ModeDir}}
	stat := func(path string) (fs.FileInfo, error) {
		if path == "/broken" {
			return nil, &fs.PathError{Op: "stat", Path: path, Err: unix.EIO}
		}
		return fs.Stat(tree, filepath.Clean("./"+path))
	}
	access := func(path string) error {
		if path == "/closed" || path == "/" {
			return unix.EACCES
		}
		return nil
	}
	for _, c := range []struct {
		dir   string
		made  bool
		err   error
		where string
	}{
		{"/srv/state", false, nil, ""},
		{"/srv/state/new/er", true, nil, ""},
		{"/srv/file", false, unix.ENOTDIR, "/srv/file"},
		{"/srv/file/below", false, unix.ENOTDIR, "/srv/file"},
		{"/closed", false, unix.EACCES, "/closed"},
		{"/closed/new", false, unix.EACCES, "/closed"},
		{"/nowhere", false, unix.EACCES, "/"},
		{"/broken", false, unix.EIO, "/broken"},
	} {
		made, err := writable(c.dir, stat, access)
		var p *fs.PathError
		if made != c.made || !errors.Is(err, c.err) || errors.As(err, &p) && p.Path != c.where {
			t.Errorf("%s: made %v, %v; want %v, %v at %s", c.dir, made, err, c.made, c.err, c.where)
		}
	}
}

func TestSamePort(t *testing.T) {
	for pair, want := range map[[2]string]bool{
		{"127.0.0.1:8500", ":8500"}: true, {"[::]:8500", "0.0.0.0:8500"}: true, {"127.0.0.1:8500", "127.0.0.1:8501"}: false, {"", ":1"}: false, {"", ""}: false,
	} {
		if got := samePort(pair[0], pair[1]); got != want {
			t.Errorf("%v: %v", pair, got)
		}
	}
}

func TestDecimal(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 1000: "1 kB", 1051: "1.05 kB", 22_100: "22.1 kB", 5_000_000: "5 MB", 1_234_567_890: "1.23 GB"} {
		if got := decimal(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestNotableFlags(t *testing.T) {
	if got := strings.Join(notable([]string{"fma", "fpu", "avx2", "amx_tile"}), " "); got != "avx2 fma amx_tile" {
		t.Error(got)
	}
}
