// e2e_powercut_test.go: files of a version that served, as a power cut under a disk that lies leaves them.
package appliance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/updater"
)

// noted waits until the history of m has the event.
func (s *server) noted(what string, number int64) {
	s.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // nothing tells of notes
		events, err := s.updater.History("m", 1000)
		if slices.ContainsFunc(events, func(e updater.Event) bool { return e.What == what && e.Version == number }) {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("never noted: %s %d; %v %v", what, number, events, err)
		}
	}
}

// cut cuts the file back to so many bytes, or with zeros fills the rest with them, and gives it its old time, so that only its bytes tell.
// The function that it returns puts it back.
func cut(t *testing.T, path string, bytes int, zeros bool) (restore func()) {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	left := slices.Clone(whole[:bytes])
	if zeros {
		left = append(left, make([]byte, len(whole)-bytes)...)
	}
	write := func(content []byte, at time.Time) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0) // the inode stays
		if err == nil {
			_, err = f.Write(content)
			err = errors.Join(err, f.Close(), os.Chtimes(path, at, at))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(left, info.ModTime())
	return func() { write(whole, time.Now()) }
}

// powerCut starts an appliance with versions 1 and 2 of m, of which 2 serves and is good.
func powerCut(t *testing.T, keep bool) (cfg *config.Config, s *server, dir string) {
	t.Helper()
	lib := library(t)
	cfg = testConfig(t, func(cfg *config.Config) {
		cfg.Runtime.Library, cfg.Defaults.KeepLastGood = lib, keep
	})
	s = run(t, cfg)
	for n := int64(1); n <= 2; n++ {
		dir = s.publish("m", n, modeltest.BigVariables(1, float32(n))) // y = x + n
		s.live("m", n)
		s.noted("good", n)
		if keep {
			s.until("it is kept", func(st *control.Status) bool { return version(st, "m", n).KeptCopy != "" })
		}
	}
	return cfg, s, dir
}

// TestCutBack: whichever file of the version that served was cut back while inferd was down, the start finds out, serves the last good one
// and names the file; put back, the version serves again.
func TestCutBack(t *testing.T) {
	cfg, s, dir := powerCut(t, false)
	cases := []struct {
		file  string
		bytes int
		zeros bool
	}{{shardFile, 1 << 19, false}, {shardFile, 1<<20 - 4096, true}, {graphFile, 0, false}, {indexFile, 0, true}}
	if short(t) {
		cases = cases[1:3]
	}
	for _, c := range cases {
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		restore := cut(t, filepath.Join(dir, c.file), c.bytes, c.zeros)
		s = run(t, cfg)
		s.live("m", 1)
		s.ask("m", []float32{5}, []float32{6})
		v := s.staged("m", 2, "quarantined", c.file, "not those that served before")
		t.Logf("%+v: %s", c, v.Message)
		restore()
		s.live("m", 2)
		s.ask("m", []float32{5}, []float32{7})
		s.until("version 1 retired", func(st *control.Status) bool { v := version(st, "m", 1); return v == nil || v.Stage == "retired" })
	}
}

// TestCutBackUnderWorker: a worker that has to be started again gets the bytes that were good, from the kept copy where its folder lost
// them; without one the last good version serves. What was cut back is never served.
func TestCutBackUnderWorker(t *testing.T) {
	for _, keep := range []bool{true, false} {
		t.Run(map[bool]string{true: "with keep_last_good", false: "without"}[keep], func(t *testing.T) {
			cfg, s, dir := powerCut(t, keep)
			clients := s.startLoad("m", 2, func(x float32, y []float32, err error) (int64, string) {
				switch {
				case unavailable(err):
					return 0, ""
				case err != nil || len(y) != 1 || y[0] != x+2 && (keep || y[0] != x+1):
					return 0, fmt.Sprintf("answered %v, %v to %v", y, err, x)
				}
				return int64(y[0] - x), ""
			})
			clients.more(5)
			cut(t, filepath.Join(dir, shardFile), 1<<20-4096, true)
			kill(t, s.live("m", 2).Worker.PID, syscall.SIGKILL)
			want := int64(2)
			if keep {
				s.until("a restart from the kept copy", func(st *control.Status) bool {
					v := version(st, "m", 2)
					return isLive(st, "m", 2) && v.Worker.Restarts == 1 && containsAll(v.Message, []string{"kept copy"})
				})
			} else {
				want = 1
				s.live("m", 1)
				s.staged("m", 2, "quarantined", shardFile)
			}
			clients.more(5)
			clients.end()
			s.ask("m", []float32{5}, []float32{5 + float32(want)})
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			audit(t, cfg)
			second := run(t, cfg)
			second.live("m", want)
			second.ask("m", []float32{5}, []float32{5 + float32(want)})
		})
	}
}
