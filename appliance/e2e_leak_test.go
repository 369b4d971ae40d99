// e2e_leak_test.go: what updates may leave behind: nothing. The long form, with memory and under load, is `make soak`.
package appliance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// holdings counts what the process has open: descriptors, shared memory files that are open or mapped, inotify watches, and child processes.
func holdings(t *testing.T) string {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	descriptors, shared, watches := 0, 0, 0
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil {
			continue // the one that lists them
		}
		descriptors++
		if strings.HasPrefix(target, "/memfd:") {
			shared++
		}
		if info, err := os.ReadFile("/proc/self/fdinfo/" + fd.Name()); err == nil {
			watches += strings.Count(string(info), "inotify wd:")
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	shared += strings.Count(string(maps), "/memfd:")
	return fmt.Sprintf("%d descriptors, %d shared memory files, %d watches, %d processes", descriptors, shared, watches, len(children(os.Getpid())))
}

// TestSwapsLeaveNothing: after ten swaps the core holds what it held after two.
func TestSwapsLeaveNothing(t *testing.T) {
	s := serve(t, nil)
	swap := func(n int) {
		s.publish("m", int64(n), modeltest.Affine(0, float32(n)))
		s.live("m", int64(n))
		if n > 1 {
			removeAll(t, filepath.Join(s.models, "m", fmt.Sprint(n-1)))
		}
		s.ask("m", []float32{1}, []float32{float32(n)})
	}
	for n := 1; n <= 3; n++ {
		swap(n)
	}
	// The old version's process and the watches on its folder go a moment after the new one answers; areas that are idle go later still, but
	// each worker has the same few.
	settled := func(want string) string {
		t.Helper()
		got, since := holdings(t), time.Now()
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if now := holdings(t); now != got {
				got, since = now, time.Now()
			}
			if (want != "" && got == want) || (want == "" && time.Since(since) > 3*time.Second) {
				break
			}
		}
		return got
	}
	before := settled("")
	for n := 4; n <= 13; n++ {
		swap(n)
	}
	if after := settled(before); after != before {
		t.Errorf("ten swaps have left something: %s, before %s", after, before)
	}
}
