// e2e_disk_test.go: disks that are full, that come and go, and that lose what was written.
package appliance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/tools/namespace"
	"github.com/inferd/inferd/updater"
)

// condition is the first condition of the code, nil when there is none.
func condition(st *control.Status, code, model string) *control.Condition {
	i := slices.IndexFunc(st.Conditions, func(c control.Condition) bool { return c.Code == code && c.Model == model })
	if i < 0 {
		return nil
	}
	return &st.Conditions[i]
}

// fillUp takes all the room that is left where the directory is.
func fillUp(t *testing.T, dir string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1 << 16, 1 << 12, 1} {
		block := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFullDisk: with no room for the journal versions go live and requests are answered as ever, the status says what is not remembered,
// and when there is room everything is written down. A start on the full disk serves.
func TestFullDisk(t *testing.T) {
	if !namespace.Inside(t, true) {
		return
	}
	lib := library(t)
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Runtime.Library = lib })
	if err := os.Mkdir(cfg.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	namespace.Mount(t, "tmpfs", cfg.StateDir, "tmpfs", 0, "size=2m")
	s := run(t, cfg)
	full := func(st *control.Status) bool { return condition(st, health.CodeJournal, "") != nil }
	numbered := func(n int) *modeltest.Model { return modeltest.Affine(0, float32(n)) }
	live := func(s *server, n int) {
		t.Helper()
		s.live("m", int64(n))
		s.ask("m", []float32{5}, []float32{float32(n)})
	}
	s.publish("m", 1, numbered(1))
	live(s, 1)
	clients := s.startLoad("m", 2, func(x float32, y []float32, err error) (int64, string) {
		if err != nil || len(y) != 1 || y[0] < 1 {
			return 0, fmt.Sprintf("answered %v, %v to %v", y, err, x)
		}
		return int64(y[0]), ""
	})

	filler := fillUp(t, cfg.StateDir)
	c := control.Dial(cfg.Listen.Control)
	defer c.Close()
	// The file has room of its own for some more: operators' wishes, which are written down too, use it up.
	exhaust := func(s *server, live int64) {
		t.Helper()
		for end := time.Now().Add(patience); ; {
			if st := s.Status(); full(&st) {
				return
			}
			if time.Now().After(end) {
				t.Fatal("the journal is never full")
			}
			if _, err := c.Verb(t.Context(), "retry", "m", live); err != nil { // of what serves: only noted
				t.Fatal(err)
			}
		}
	}
	exhaust(s, 1)
	st := s.Status()
	said := condition(&st, health.CodeJournal, "")
	t.Log(said.Message)
	if !containsAll(said.Message, []string{"not remembered over a restart", "no space left on device", "make room"}) {
		t.Errorf("said: %s", said.Message)
	}
	s.ready("", 200)
	for n := 2; n <= 4; n++ {
		s.publish("m", int64(n), numbered(n))
		live(s, n)
		clients.more(5)
	}
	if good, refused := clients.end(); refused != 0 {
		t.Errorf("%d answers, %d refused", good, refused)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	second := run(t, cfg) // on the full disk
	live(second, 4)
	exhaust(second, 4)
	second.publish("m", 5, numbered(5))
	live(second, 5)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	second.publish("m", 6, numbered(6)) // what comes next takes along what waited
	live(second, 6)
	second.until("there is room again", func(st *control.Status) bool { return !full(st) })
	events, err := c.History(t.Context(), "m", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{5, 6} {
		if !slices.ContainsFunc(events, func(e updater.Event) bool { return e.What == "published" && e.Version == n }) {
			t.Errorf("the publication of version %d was lost: %v", n, events)
		}
	}
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	audit(t, cfg)
	third := run(t, cfg)
	live(third, 6)
}

// TestModelsOnAMount: a bind mount that appears after the start is served, one that goes takes nothing away within the grace time, and one
// that comes back loads nothing again. A restart while it is away serves what served once it is there.
func TestModelsOnAMount(t *testing.T) {
	if !namespace.Inside(t, true) {
		return
	}
	lib := library(t)
	disk := t.TempDir()
	modeltest.WriteVersion(t, disk, 1, modeltest.HalfPlusTwo())
	cfg := testConfig(t, func(cfg *config.Config) {
		cfg.Runtime.Library = lib
		cfg.Models = []config.Model{listed(cfg, "m")}
		cfg.Updater.PollInterval, cfg.Updater.EmptyGrace = 50*time.Millisecond, time.Hour
	})
	point := filepath.Join(cfg.ModelsDir, "m")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	s := run(t, cfg)
	said := func(s *server, text string) {
		t.Helper()
		s.until(fmt.Sprintf("base path: %q", text), func(st *control.Status) bool {
			c := condition(st, health.CodeBasePath, "m")
			return text == "" && c == nil || text != "" && c != nil && strings.Contains(c.Message, text)
		})
	}
	said(s, "no version under")
	namespace.Mount(t, disk, point, "", syscall.MS_BIND, "")
	s.live("m", 1)
	said(s, "")
	clients := s.startLoad("m", 2, halfPlusTwo)
	pid := s.live("m", 1).Worker.PID
	for range 2 {
		namespace.Unmount(t, point)
		said(s, "still serving version 1; it is unloaded at")
		clients.more(10)
		s.ready("m", 200)
		namespace.Mount(t, disk, point, "", syscall.MS_BIND, "")
		said(s, "")
		clients.more(10)
	}
	if good, refused := clients.end(); refused != 0 {
		t.Errorf("%d answers, %d refused", good, refused)
	}
	if v := s.live("m", 1); v.Worker.PID != pid {
		t.Errorf("it was loaded again: %+v", v.Worker)
	}
	s.noted("good", 1)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	modeltest.WriteVersion(t, disk, 2, modeltest.NoRun()) // came while nobody looked, and is bad
	namespace.Unmount(t, point)
	second := run(t, cfg)
	said(second, "no version under")
	namespace.Mount(t, disk, point, "", syscall.MS_BIND, "")
	second.live("m", 1)
	second.ask("m", []float32{1}, []float32{2.5})
	second.staged("m", 2, "quarantined", "still serving version 1")
}
