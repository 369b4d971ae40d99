// e2e_death_test.go: workers that die, requests that kill, and runs that never end.
package appliance

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// unavailable reports whether err is UNAVAILABLE or REST's 503.
func unavailable(err error) bool {
	var f *failure
	return errors.As(err, &f) && (f.Code == codes.Unavailable || f.HTTP == 503)
}

// TestKilledWorkers: whatever kills a worker under load, its requests are answered rightly or UNAVAILABLE, the other model's are all
// answered, and it serves again.
func TestKilledWorkers(t *testing.T) {
	s := serve(t, nil)
	s.publish("doomed", 1, modeltest.HalfPlusTwo())
	s.publish("other", 1, modeltest.HalfPlusTwo())
	s.live("doomed", 1)
	s.live("other", 1)

	other := s.startLoad("other", 4, halfPlusTwo)
	doomed := s.startLoad("doomed", 4, func(x float32, y []float32, err error) (int64, string) {
		if unavailable(err) {
			return 0, ""
		}
		return halfPlusTwo(x, y, err)
	})
	for i, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV} {
		doomed.more(50)
		before := s.live("doomed", 1).Worker
		if before.Restarts != i {
			t.Errorf("%d restarts before signal %d", before.Restarts, i)
		}
		ended := watch(t, before.PID)
		kill(t, before.PID, sig)
		ended(t)
		st := s.until(fmt.Sprintf("a restart after %v", sig), func(st *control.Status) bool {
			return isLive(st, "doomed", 1) && version(st, "doomed", 1).Worker.Restarts == i+1
		})
		after := version(st, "doomed", 1).Worker
		name := map[syscall.Signal]string{syscall.SIGKILL: "SIGKILL", syscall.SIGSEGV: "SIGSEGV"}[sig]
		if after.PID == before.PID || !strings.Contains(after.LastDeath, name) {
			t.Errorf("after %v: pid %d, was %d; last death %q", sig, after.PID, before.PID, after.LastDeath)
		}
		if o := version(st, "other", 1).Worker; o.Restarts != 0 {
			t.Errorf("the other model's worker was restarted %d times", o.Restarts)
		}
		doomed.more(50)
		other.more(50)
	}
	good, refused := doomed.end()
	t.Logf("doomed: %d answered, %d unavailable", good, refused)
	if good, refused := other.end(); refused != 0 {
		t.Errorf("other: %d answered, %d refused", good, refused)
	}
	s.ask("doomed", []float32{1, 2}, []float32{2.5, 3})
}
