// e2e_swap_test.go: versions that come and go under load.
package appliance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// TestSwapsUnderLoad: 20 times a higher version is renamed in and the lower one removed. No request fails, each is answered by one of
// the two versions of that moment, and the processes of the old ones end. Removing the highest goes back to the one below.
func TestSwapsUnderLoad(t *testing.T) {
	s := serve(t, nil)
	numbered := func(n int) *modeltest.Model { return modeltest.Affine(0, float32(n)) } // its answer is its version
	folder := func(n int) string { return filepath.Join(s.models, "m", strconv.Itoa(n)) }
	s.publish("m", 1, numbered(1))
	old := s.live("m", 1).Worker.PID

	states := s.watchHealth("m")
	var lowest, highest atomic.Int64 // versions that may answer
	lowest.Store(1)
	highest.Store(1)
	clients := s.startLoad("m", 2, func(x float32, y []float32, err error) (int64, string) {
		if err != nil || len(y) != 1 {
			return 0, fmt.Sprintf("answered %v, %v to %v", y, err, x)
		}
		if v := int64(y[0]); float32(v) != y[0] || v < lowest.Load()-1 || v > highest.Load() {
			return v, fmt.Sprintf("version %v answered while versions %d and %d were there", y[0], lowest.Load(), highest.Load())
		}
		return int64(y[0]), ""
	})

	const swaps = 20
	for n := 2; n <= swaps+1; n++ {
		highest.Store(int64(n))
		s.publish("m", int64(n), numbered(n))
		if n%2 == 0 && n <= swaps { // before the new one is loaded: the old one serves on from memory
			removeAll(t, folder(n-1))
		}
		pid := s.live("m", int64(n)).Worker.PID
		lowest.Store(int64(n)) // a request that was under way may still get the one before
		if n%2 != 0 && n <= swaps {
			removeAll(t, folder(n-1))
		}
		s.until(fmt.Sprintf("version %d retired", n-1), func(st *control.Status) bool {
			v := version(st, "m", int64(n-1))
			return v == nil || v.Stage == "retired" || v.Stage == "seen"
		})
		// Its end was waited for before it counted as retired.
		if left := children(os.Getpid()); slices.Contains(left, old) {
			t.Errorf("after version %d: the process of the one before, %d, is there:%s", n, old, described(left))
		}
		// So these are the zygote and the one worker, once a first try of it is gone that found no processor at low priority.
		var left []int
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if left = children(os.Getpid()); len(left) == 2 || time.Now().After(end) {
				break
			}
		}
		if len(left) != 2 {
			t.Errorf("after version %d: %d processes, want the zygote and a worker:%s", n, len(left), described(left))
		}
		if pid == old {
			t.Errorf("version %d runs in the process of the version before", n)
		}
		old = pid
		clients.more(20)
	}

	lowest.Store(swaps)
	removeAll(t, folder(swaps+1))
	s.live("m", swaps)
	clients.more(20)
	good, refused := clients.end()
	if refused != 0 || len(clients.seen) < swaps+1 {
		t.Errorf("%d answers, %d refused, of %d versions, want %d", good, refused, len(clients.seen), swaps+1)
	}
	s.ask("m", []float32{7}, []float32{swaps})
	if got := states(); len(got) != 1 || got[0] != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health of the model went through %v, want SERVING alone", got)
	}
}

func removeAll(t testing.TB, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// watchHealth follows grpc.health.v1's state of a service from now on. The function that it returns ends that and returns the states.
func (s *server) watchHealth(service string) func() []healthpb.HealthCheckResponse_ServingStatus {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	stream, err := healthpb.NewHealthClient(s.conn).Watch(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		s.t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		s.t.Fatal(err)
	}
	states := []healthpb.HealthCheckResponse_ServingStatus{first.GetStatus()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			states = append(states, r.GetStatus())
		}
	}()
	return func() []healthpb.HealthCheckResponse_ServingStatus {
		cancel()
		<-done
		return states
	}
}
