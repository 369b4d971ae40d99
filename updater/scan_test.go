// scan_test.go: what a base path and a version folder look like, and when they have settled.
package updater

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseVersion(t *testing.T) {
	for name, want := range map[string]int64{"1": 1, "00000123": 123, "0": 0, "-4": -4, "+7": 7, " 8 ": 8, "9223372036854775807": 9223372036854775807} {
		if n, ok := parseVersion(name); !ok || n != want {
			t.Errorf("%q: got %d %v, want %d", name, n, ok, want)
		}
	}
	for _, name := range []string{"", "a", "1a", "1.0", "0x1", "1_000", "9223372036854775808", "v1", "1 2", ".1"} {
		if n, ok := parseVersion(name); ok {
			t.Errorf("%q is version %d", name, n)
		}
	}
}

func TestNumbered(t *testing.T) {
	got, dups, others := numbered([]string{"1", "tmp", "001", "2", "01"})
	if len(got) != 2 || got[1] != "001" || got[2] != "2" || !others || len(dups) != 2 {
		t.Fatalf("got %v %q %v", got, dups, others)
	}
	if !strings.Contains(dups[0], "version 1") || !strings.Contains(dups[0], "001 is used, 01 is ignored") {
		t.Fatalf("sentence: %s", dups[0])
	}
	if again, _, _ := numbered([]string{"01", "001", "1"}); again[1] != "001" {
		t.Fatal("another one wins when the order is another")
	}
	if _, dups, others := numbered([]string{"1", "2"}); dups != nil || others {
		t.Fatal("made something up")
	}
}

// writeFiles makes files under dir; a name that ends in / is a folder.
func writeFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = os.WriteFile(path, []byte(name), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLookAt(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "m/00000123/saved_model.pb", "m/00000123/variables/variables.index", "m/7", "m/2/", "m/notes.txt", "m/02/x", "away/5/saved_model.pb", "odd/model.h5", "none/")
	if err := os.Symlink(filepath.Join(dir, "away", "5"), filepath.Join(dir, "m", "5")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "m", "6")); err != nil {
		t.Fatal(err)
	}
	diagnosed := ""
	diagnose := func(d string) string { diagnosed = d; return "that is " + filepath.Base(d) }

	l := lookAt(filepath.Join(dir, "m"), diagnose)
	var numbers []int64
	for _, f := range l.Folders {
		numbers = append(numbers, f.Number)
		if (f.Err != nil) != (f.Number == 6) { // its link leads nowhere: it is there, and cannot be read
			t.Errorf("folder %d: %v", f.Number, f.Err)
		}
	}
	if l.Base != baseThere || !slices.Equal(numbers, []int64{2, 5, 6, 123}) || len(l.Dups) != 1 || !l.Others || diagnosed != "" {
		t.Fatalf("got %+v", l)
	}
	if f := l.Folders[3]; filepath.Base(f.Dir) != "00000123" || f.Print.Files != 2 || f.Print.Bytes != int64(len("m/00000123/saved_model.pb")+len("m/00000123/variables/variables.index")) {
		t.Fatalf("folder 123: %+v", f)
	}
	watches := make(map[string]string)
	for _, w := range l.Watch {
		watches[w.Path] = w.Child
	}
	for path, child := range map[string]string{filepath.Join(dir, "m"): "", filepath.Join(dir, "m", "00000123", "variables"): ""} {
		if got, ok := watches[path]; !ok || got != child {
			t.Errorf("watch of %s: %q %v, want %q", path, got, ok, child)
		}
	}
	if _, ok := watches[dir]; ok {
		t.Errorf("the folder above one that is there is watched")
	}

	if l := lookAt(filepath.Join(dir, "odd"), diagnose); l.Hint != "that is odd" || !l.Others {
		t.Fatalf("something else: %+v", l)
	}
	diagnosed = ""
	if l := lookAt(filepath.Join(dir, "none"), diagnose); l.Base != baseThere || l.Others || l.Hint != "" || diagnosed != "" {
		t.Fatalf("empty: %+v", l)
	}
	if l := lookAt(filepath.Join(dir, "a", "b"), diagnose); l.Base != baseMissing || !errors.Is(l.Err, nil) && l.Err == nil || len(l.Watch) != 1 || l.Watch[0].Path != dir || l.Watch[0].Child != "a" {
		t.Fatalf("missing: %+v", l)
	}
	if l := lookAt(filepath.Join(dir, "m", "notes.txt"), diagnose); l.Base != baseFailed || l.Err == nil {
		t.Fatalf("a file: %+v", l)
	}
}

func TestLookAtRoot(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "b/1/x", "a/", ".tmp/1/x", "lost+found/", "bad:name/", "readme")
	diagnose := func(string) string { return "hint" }
	l := lookAtRoot(dir, diagnose)
	if l.Base != baseThere || !slices.Equal(l.Models, []string{"a", "b"}) || !slices.Equal(l.Skipped, []string{"bad:name"}) || l.Hint != "" {
		t.Fatalf("got %+v", l)
	}
	if l := lookAtRoot(filepath.Join(dir, "b", "1"), diagnose); l.Hint != "hint" {
		t.Fatalf("files alone: %+v", l)
	}
	if l := lookAtRoot(filepath.Join(dir, "no"), diagnose); l.Base != baseMissing {
		t.Fatalf("missing: %+v", l)
	}
}

func mustPrint(t *testing.T, dir string) Print {
	t.Helper()
	p, _, err := printOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPrint: every change of a file's name, size, time, mode or identity shows, and nothing else does.
func TestPrint(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "1")
	writeFiles(t, dir, "saved_model.pb", "variables/variables.index")
	file := filepath.Join(dir, "variables", "variables.index")
	last := mustPrint(t, dir).Digest
	if mustPrint(t, dir).Digest != last {
		t.Fatal("two looks differ")
	}
	step := func(name string, want bool, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		now := mustPrint(t, dir).Digest
		if (now != last) != want {
			t.Errorf("%s: changed %v, want %v", name, now != last, want)
		}
		last = now
	}
	step("nothing", false, func() error { return nil })
	step("append", true, func() error { return os.WriteFile(file, []byte("longer than it was before"), 0o644) })
	step("time", true, func() error { return os.Chtimes(file, time.Time{}, time.Unix(1e9, 5)) })
	step("mode", true, func() error { return os.Chmod(file, 0o600) })
	step("rename in place", true, func() error { return os.Rename(file, file+"2") })
	step("empty folder", true, func() error { return os.Mkdir(filepath.Join(dir, "assets"), 0o755) })
	step("a hard link from elsewhere", false, func() error { return os.Link(file+"2", dir+"-link") })
	step("another inode with the same bytes and time", true, func() error {
		b, err := os.ReadFile(file + "2")
		if err == nil {
			err = os.WriteFile(file+"3", b, 0o600)
		}
		return errors.Join(err, os.Chtimes(file+"3", time.Time{}, time.Unix(1e9, 5)), os.Rename(file+"3", file+"2"))
	})
	step("removal", true, func() error { return os.Remove(file + "2") })
}

// tick waits until the file system's clock has moved since dir was last written to: inode times move in the kernel's ticks, and a
// rename in the tick of the last write cannot be told from it. The number of turns bounds a file system whose clock stands still.
func tick(t *testing.T, dir string) {
	t.Helper()
	before := mustPrint(t, dir).Newest
	clock := t.TempDir()
	for range int(1e6) {
		writeFiles(t, clock, "clock")
		if mustPrint(t, clock).Newest.After(before) {
			return
		}
	}
	t.Skip("the file system's clock stands still")
}

func TestPrintOfARename(t *testing.T) {
	base := t.TempDir()
	tmp, dir := filepath.Join(base, ".tmp"), filepath.Join(base, "1")
	writeFiles(t, tmp, "saved_model.pb", "variables/variables.index")
	if mustPrint(t, tmp).Renamed {
		t.Fatal("a folder in the making counts as renamed")
	}
	tick(t, tmp)
	if err := os.Rename(tmp, dir); err != nil {
		t.Fatal(err)
	}
	if p := mustPrint(t, dir); !p.Renamed {
		t.Skipf("this file system does not mark a rename: %+v", p)
	}
	writeFiles(t, dir, "variables/more")
	if mustPrint(t, dir).Renamed {
		t.Fatal("a folder that grew after its rename counts as renamed")
	}
}

func TestPrintBounds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "1")
	writeFiles(t, dir, "saved_model.pb")
	if err := os.Symlink(".", filepath.Join(dir, "loop")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := printOf(dir); !errors.Is(err, ErrTooMany) {
		t.Fatalf("a link in a circle: %v", err)
	}
	if _, _, err := printOf(dir + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a missing folder: %v", err)
	}
}

func TestSettle(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	print := func(digest string, newest int) Print { return Print{Digest: digest, Newest: at(newest)} }
	const settle = 2 * time.Second
	type look struct {
		at    int
		print Print
		first bool
	}
	renamed := print("a", 10)
	renamed.Renamed = true
	for _, test := range []struct {
		name  string
		looks []look
		want  bool
		wait  time.Duration
	}{
		{name: "new", looks: []look{{at: 10, print: print("a", 10)}}, wait: settle},
		{name: "unchanged for a while", looks: []look{{at: 10, print: print("a", 10)}, {at: 11, print: print("a", 10)}}, wait: time.Second},
		{name: "unchanged for long enough", looks: []look{{at: 10, print: print("a", 10)}, {at: 12, print: print("a", 10)}}, want: true},
		{name: "changed meanwhile", looks: []look{{at: 10, print: print("a", 10)}, {at: 12, print: print("b", 12)}}, wait: settle},
		{name: "changed and changed back", looks: []look{{at: 10, print: print("a", 10)}, {at: 11, print: print("b", 11)}, {at: 12, print: print("a", 11)}}, wait: settle},
		{name: "old files at the first look", looks: []look{{at: 10, print: print("a", 5), first: true}}, want: true},
		{name: "old files later on prove nothing", looks: []look{{at: 10, print: print("a", 5)}}, wait: settle},
		{name: "files of a moment ago at the first look", looks: []look{{at: 10, print: print("a", 9), first: true}}, wait: time.Second},
		{name: "files from the future at the first look", looks: []look{{at: 10, print: print("a", 99), first: true}}, wait: settle},
		{name: "files that changed after the first look", looks: []look{{at: 10, print: print("a", 5), first: true}, {at: 11, print: print("b", 5)}}, wait: settle},
		{name: "renamed into place", looks: []look{{at: 10, print: renamed}}, want: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s sight
			var last time.Time
			for _, l := range test.looks {
				last = at(l.at)
				s = see(s, l.print, last, l.first)
			}
			if ok, wait := s.settled(last, settle); ok != test.want || wait != test.wait {
				t.Fatalf("got %v %v, want %v %v", ok, wait, test.want, test.wait)
			}
		})
	}
}
