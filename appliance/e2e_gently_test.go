// e2e_gently_test.go: a version that comes beside others is loaded and proven at low priority, and serves at normal priority.
package appliance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/updater"
)

// lowThreads counts the threads of a process whose policy is not the ordinary one.
func lowThreads(pid int) (low int) {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is well-formed
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if policy := strings.Fields(rest)[41-3]; policy != strconv.Itoa(unix.SCHED_NORMAL) { // of proc(5), counted from the state
			low++
		}
	}
	return low
}

func TestLoadsGently(t *testing.T) {
	s := serve(t, nil)
	s.publish("m", 1, modeltest.Affine(0, 1))
	first := s.live("m", 1).Worker.PID
	if low := lowThreads(first); low != 0 {
		t.Errorf("the first version serves with %d threads of low priority", low)
	}
	known := children(os.Getpid())
	s.publish("busy", 1, modeltest.Busy(2048)) // hundreds of milliseconds of made-up runs
	sighted := 0
	for end := time.Now().Add(patience); sighted == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, child := range children(os.Getpid()) {
			if !slices.Contains(known, child) {
				sighted = max(sighted, lowThreads(child))
			}
		}
		if m, ok := s.updater.Status().Model("busy"); ok && len(m.Live) > 0 {
			break
		}
	}
	if sighted == 0 {
		t.Error("no thread had low priority while the second model loaded")
	}
	second := s.live("busy", 1)
	// Threads that are done end when they get a processor, which those of low priority may have to wait for.
	for end := time.Now().Add(patience); lowThreads(second.Worker.PID) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the second model serves with %d threads of low priority", lowThreads(second.Worker.PID))
		}
	}
	// One load is enough, but for a machine that others keep so busy that the first got no processor.
	starved := strings.Contains(s.logs.tail(1000), "got no processor")
	if got, _ := s.updater.Status().Model("busy"); len(got.Versions) != 1 || got.Versions[0].Attempts != 1 && !starved {
		t.Errorf("it took more than one load: %+v", got.Versions)
	}
}

func TestGentlyWhen(t *testing.T) {
	busy := &loader{live: newWorkers()}
	busy.live.add(&servable{model: "m", version: 1})
	for _, c := range []struct {
		name    string
		loader  *loader
		attempt int
		want    bool
	}{
		{"something serves", busy, 1, true},
		{"the first attempt may have starved", busy, 2, false},
		{"nothing serves yet", &loader{live: newWorkers()}, 1, false},
		{"a check on the command line", &loader{live: busy.live, alone: true}, 1, false},
	} {
		if got := c.loader.gently(updater.Candidate{Attempt: c.attempt}); got != c.want {
			t.Errorf("%s: gently is %v", c.name, got)
		}
	}
}
