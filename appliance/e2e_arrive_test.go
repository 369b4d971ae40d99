// e2e_arrive_test.go: versions that come by the tools that people use, while requests run: none fails, and nothing torn is served.
package appliance

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// arrival is one version on its way into a model's base path.
type arrival struct {
	*server
	load   *load
	number int64
	from   string // the folder that has it, named by its number
	base   string // where it is to be
}

func (a *arrival) to() string { return filepath.Join(a.base, strconv.FormatInt(a.number, 10)) }

// tool runs a command, which must end well; the test is skipped where the machine has not got it.
func (a *arrival) tool(stdin io.Reader, name string, args ...string) {
	a.t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		a.t.Skipf("no %s here: %v", name, err)
	}
	cmd := exec.CommandContext(a.t.Context(), name, args...)
	cmd.Stdin = stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// pause waits until the updater has found the folder not whole, and requests have been answered since.
func (a *arrival) pause() {
	a.t.Helper()
	a.staged("m", a.number, "settling", "waiting for the rest")
	a.load.more(2)
}

// files are the version's, relative to its folder.
func (a *arrival) files() (out []string) {
	a.t.Helper()
	err := filepath.WalkDir(a.from, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(a.from, path)
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// write writes the files one after the other, each in pieces of so many bytes, and calls between after every piece.
func (a *arrival) write(files []string, piece int, between func(done, of int)) {
	a.t.Helper()
	of, done := 0, 0
	for _, name := range files {
		info, err := os.Stat(filepath.Join(a.from, name))
		if err != nil {
			a.t.Fatal(err)
		}
		of += int(info.Size())
	}
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(a.from, name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(a.to(), name)), 0o755)
		}
		var f *os.File
		if err == nil {
			f, err = os.Create(filepath.Join(a.to(), name))
		}
		for len(content) > 0 && err == nil {
			n := min(piece, len(content))
			if _, err = f.Write(content[:n]); err != nil {
				break
			}
			content, done = content[n:], done+n
			if done < of {
				between(done, of)
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			a.t.Fatal(err)
		}
	}
}

// slowly is a reader that pauses in the middle, twice.
type slowly struct {
	r     io.Reader
	size  int64
	done  int64
	pause func()
}

func (s *slowly) Read(p []byte) (int, error) {
	n, err := s.r.Read(p[:min(len(p), 4096)])
	for _, mark := range []int64{s.size / 3, s.size * 2 / 3} {
		if s.done < mark && s.done+int64(n) >= mark {
			s.pause()
		}
	}
	s.done += int64(n)
	return n, err
}

// ways are how a version may come. mebibytes is the size of its variables, 0 a few bytes.
var ways = []struct {
	name      string
	mebibytes int
	bring     func(a *arrival)
}{
	{"byte by byte", 0, func(a *arrival) {
		files := a.files()
		every := 400
		if !short(a.t) {
			every = 60
		}
		a.write(files, 1, func(done, _ int) {
			if done%every == 0 {
				a.pause()
			}
		})
	}},
	{"the graph last", 0, func(a *arrival) {
		a.write([]string{shardFile, indexFile, graphFile}, 1<<20, func(int, int) { a.pause() })
	}},
	{"the index last", 0, func(a *arrival) {
		a.write([]string{graphFile, shardFile, indexFile}, 1<<20, func(int, int) { a.pause() })
	}},
	{"the variables last, in halves", 4, func(a *arrival) {
		a.write([]string{graphFile, indexFile, shardFile}, 2<<20, func(int, int) { a.pause() })
	}},
	{"cp -r", 4, func(a *arrival) { a.tool(nil, "cp", "-r", a.from, a.base) }},
	{"dd in small blocks", 0, func(a *arrival) {
		for _, name := range a.files() {
			to := filepath.Join(a.to(), name)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				a.t.Fatal(err)
			}
			a.tool(nil, "dd", "bs=16", "status=none", "if="+filepath.Join(a.from, name), "of="+to)
		}
	}},
	{"mv within the file system", 0, func(a *arrival) {
		beside := filepath.Join(filepath.Dir(a.models), strconv.FormatInt(a.number, 10))
		a.tool(nil, "cp", "-r", a.from, beside)
		a.tool(nil, "mv", beside, a.base)
	}},
	{"mv from another file system", 4, func(a *arrival) {
		other, err := os.MkdirTemp("/dev/shm", "inferd")
		if err != nil {
			a.t.Skipf("no other file system here: %v", err)
		}
		a.t.Cleanup(func() { _ = os.RemoveAll(other) })
		var here, there unix.Stat_t
		if err := errors.Join(unix.Stat(a.base, &here), unix.Stat(other, &there)); err != nil || here.Dev == there.Dev {
			a.t.Skipf("%s is on the same file system (%v)", other, err)
		}
		a.tool(nil, "cp", "-r", a.from, other)
		a.tool(nil, "mv", filepath.Join(other, filepath.Base(a.from)), a.base)
	}},
	{"rsync -a", 4, func(a *arrival) { a.tool(nil, "rsync", "-a", "--bwlimit=8m", a.from, a.base+"/") }},
	{"rsync --inplace", 4, func(a *arrival) { a.tool(nil, "rsync", "-a", "--inplace", "--bwlimit=8m", a.from, a.base+"/") }},
	{"rsync that is broken off and goes on", 4, func(a *arrival) {
		a.write([]string{graphFile, indexFile, shardFile}, 3<<20, func(done, _ int) {
			if done > 3<<20 {
				a.pause()
			}
		})
		if err := os.Truncate(filepath.Join(a.to(), shardFile), 1<<20); err != nil { // as one that was killed leaves it
			a.t.Fatal(err)
		}
		a.tool(nil, "rsync", "-a", "--inplace", "--append-verify", a.from, a.base+"/")
	}},
	// The old version's folder goes first, and the base path holds nothing whole until the new one is there.
	{"rsync --delete", 4, func(a *arrival) {
		a.tool(nil, "rsync", "-a", "--delete-before", "--bwlimit=8m", filepath.Dir(a.from)+"/", a.base+"/")
	}},
	{"scp", 4, func(a *arrival) {
		if _, err := exec.LookPath("scp"); err != nil {
			a.t.Skipf("no scp here: %v", err)
		}
		// In place of ssh: what scp wants to have run on the other machine is run on this one, so no sshd is needed. -O is the old
		// protocol, in which the other side is scp as well.
		ssh := filepath.Join(a.t.TempDir(), "ssh")
		script := "#!/bin/sh\nwhile [ \"$1\" != box ]; do shift; done\nshift\nexec sh -c \"$*\"\n"
		if err := os.WriteFile(ssh, []byte(script), 0o700); err != nil {
			a.t.Fatal(err)
		}
		a.tool(nil, "scp", "-q", "-O", "-r", "-l", "64000", "-S", ssh, a.from, "box:"+a.base)
	}},
	{"unzip", 4, func(a *arrival) {
		file := filepath.Join(a.t.TempDir(), "m.zip")
		w, err := os.Create(file)
		if err == nil {
			err = errors.Join(zipFolder(w, filepath.Dir(a.from)), w.Close())
		}
		if err != nil {
			a.t.Fatal(err)
		}
		a.tool(nil, "unzip", "-q", file, "-d", a.base)
	}},
	{"tar x over a slow pipe", 4, func(a *arrival) {
		packed, size := tarFolder(a.t, filepath.Dir(a.from))
		a.tool(&slowly{r: packed, size: size, pause: a.load.wait(a)}, "tar", "-x", "-C", a.base)
	}},
	{"a symbolic link", 0, func(a *arrival) {
		if err := os.Symlink(a.from, a.to()); err != nil {
			a.t.Fatal(err)
		}
	}},
}

// wait is a pause that does not need the updater to have found anything: the pipe's buffers decide what is on disk.
func (l *load) wait(a *arrival) func() {
	return func() {
		time.Sleep(2 * a.cfg.Updater.SettleTime) // longer than files may rest
		l.more(2)
	}
}

// TestArrivals: a version by each way. While it comes, the one before answers; nothing is refused, no worker dies, and the answers are
// only those of whole versions.
func TestArrivals(t *testing.T) {
	s := serve(t, func(cfg *config.Config) { cfg.Updater.EmptyGrace = time.Minute }) // the default
	base := filepath.Join(s.models, "m")
	write := func(n int64, mebibytes int) string {
		m := modeltest.BigVariables(max(1, mebibytes), float32(n)) // y = x + n
		if mebibytes == 0 {
			m = modeltest.Affine(1, float32(n))
		}
		return modeltest.WriteVersion(t, t.TempDir(), n, m)
	}
	a := &arrival{server: s, number: 1, from: write(1, 0), base: base}
	if err := os.Mkdir(base, 0o755); err != nil {
		t.Fatal(err)
	}
	a.tool(nil, "cp", "-r", a.from, base)
	s.live("m", 1)
	var lowest, highest atomic.Int64
	lowest.Store(1)
	highest.Store(1)
	a.load = s.startLoad("m", 2, func(x float32, y []float32, err error) (int64, string) {
		if err != nil || len(y) != 1 || int64(y[0]-x) < lowest.Load() || int64(y[0]-x) > highest.Load() || y[0] != x+float32(int64(y[0]-x)) {
			return 0, fmt.Sprintf("answered %v, %v to %v while versions %d to %d were there", y, err, x, lowest.Load(), highest.Load())
		}
		return int64(y[0] - x), ""
	})
	number := int64(1)
	for _, way := range ways {
		number++
		n := number
		t.Run(way.name, func(t *testing.T) {
			a := &arrival{server: s.with(t), load: a.load, number: n, from: write(n, way.mebibytes), base: base}
			highest.Store(n)
			way.bring(a)
			a.live("m", n)
			a.load.more(3) // with two clients, one of them was sent after another's answer
			a.until("the version before retired", func(st *control.Status) bool {
				for _, m := range st.Models {
					for _, v := range m.Versions {
						if m.Name == "m" && v.Number < n && (v.Stage == "live" || v.Stage == "draining") {
							return false
						}
					}
				}
				return true
			})
			a.load.more(3)
			lowest.Store(n)
			// An older one that is being removed may be looked at half gone, and refused for that: it goes while nothing needs it.
			removeAll(t, filepath.Join(base, strconv.FormatInt(n-1, 10)))
			a.load.more(3)
		})
	}
	if good, refused := a.load.end(); refused != 0 {
		t.Errorf("%d answers, %d refused", good, refused)
	} else {
		t.Logf("%d answers", good)
	}
	c := control.Dial(s.cfg.Listen.Control)
	defer c.Close()
	events, err := c.History(t.Context(), "m", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if strings.Contains("refused condemned interrupted", e.What) {
			t.Errorf("version %d: %s: %s", e.Version, e.What, e.Reason)
		}
	}
	for _, m := range s.Status().Models {
		for _, v := range m.Versions {
			// On a machine that others keep busy a load at low priority is given up and made again, which is no death.
			if v.Worker != nil && v.Worker.Restarts > 0 && !strings.Contains(v.Worker.LastDeath, "at low priority") {
				t.Errorf("version %d: its worker died of %s", v.Number, v.Worker.LastDeath)
			}
		}
	}
}
