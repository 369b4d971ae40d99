// e2e_death_test.go: workers that die, requests that kill, and runs that never end.
package appliance

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inferd/inferd/appliance/config"
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

// restarts is how often version 1's worker was replaced, once it is live.
func (s *server) restarts(model string) int {
	s.t.Helper()
	return s.live(model, 1).Worker.Restarts
}

// TestRequestThatKills: the request that kills its worker is found out by running the suspects alone, and refused from then on; those
// that shared its run get their answers, and another model's clients notice nothing.
func TestRequestThatKills(t *testing.T) {
	s := serve(t, nil)
	s.publish("crasher", 1, modeltest.Crasher())
	s.publish("other", 1, modeltest.HalfPlusTwo())
	s.live("crasher", 1)
	s.live("other", 1)
	other := s.startLoad("other", 2, halfPlusTwo)
	mates := s.startLoad("crasher", 6, func(x float32, y []float32, err error) (int64, string) {
		if err != nil || len(y) != 1 || y[0] != x {
			return 0, fmt.Sprintf("a batch-mate: answered %v, %v to %v", y, err, x)
		}
		return 0, ""
	})
	for i, killer := range []float32{-1, -2} {
		mates.more(20)
		ask := s.askGRPC
		if i == 1 {
			ask = func(ctx context.Context, model string, x []float32) ([]float32, error) {
				return s.askREST(ctx, model, x)
			}
		}
		before := s.restarts("crasher")
		y, err := ask(t.Context(), "crasher", []float32{killer})
		if !refusedAsSuspect(err, "SIGABRT") {
			t.Errorf("the request that kills: %v, %v", y, err)
		}
		if n := s.restarts("crasher") - before; n != 2 {
			t.Errorf("it killed %d workers, want 2: among others, and alone", n)
		}
		if y, err := ask(t.Context(), "crasher", []float32{killer}); !refusedAsSuspect(err, "SIGABRT") {
			t.Errorf("again: %v, %v", y, err)
		}
		if n := s.restarts("crasher") - before; n != 2 {
			t.Errorf("it killed %d workers once it was known", n)
		}
	}
	mates.more(20)
	if good, refused := mates.end(); refused != 0 {
		t.Errorf("mates: %d answered, %d refused", good, refused)
	}
	if good, refused := other.end(); refused != 0 {
		t.Errorf("other: %d answered, %d refused", good, refused)
	}
	if n := s.restarts("other"); n != 0 {
		t.Errorf("the other model's worker was restarted %d times", n)
	}
}

// refusedAsSuspect reports the typed error: INVALID_ARGUMENT that says what the request did.
func refusedAsSuspect(err error, how string) bool {
	var f *failure
	return errors.As(err, &f) && (f.Code == codes.InvalidArgument || f.HTTP == 400) && containsAll(f.Text, []string{"twice", how, "is refused until"})
}

// TestRunThatNeverEnds: a caller is answered at its deadline, while the run goes on; the run ends its worker at run_timeout, which is replaced;
// meanwhile the model's other callers are answered.
func TestRunThatNeverEnds(t *testing.T) {
	s := serve(t, func(cfg *config.Config) {
		for name, timeout := range map[string]time.Duration{"patient": 10 * time.Minute, "strict": 2 * time.Second} {
			m := listed(cfg, name)
			m.RunTimeout, m.Callers = timeout, 3
			cfg.Models = append(cfg.Models, m)
		}
	})
	never := withConstant(t, modeltest.NeverReturns(), "zero", 10) // a run with an x above 10 never ends; the made-up one has 1
	s.publish("patient", 1, never)
	s.publish("strict", 1, never)
	s.live("patient", 1)
	s.live("strict", 1)

	// The deadline is far from run_timeout, so an answer came from the core.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if y, err := s.askGRPC(ctx, "patient", []float32{11}); !late(err) {
		t.Errorf("gRPC: %v, %v", y, err)
	}
	if y, err := s.askREST(t.Context(), "patient", []float32{12}, "Request-Timeout", "0.1"); !late(err) {
		t.Errorf("REST: %v, %v", y, err)
	}
	s.ask("patient", []float32{-1, 0}, []float32{-1, 0}) // one caller is free
	if n := s.restarts("patient"); n != 0 {
		t.Errorf("patient: %d restarts", n)
	}

	// Past run_timeout, with others waiting and running beside it.
	mates := s.startLoadOf(-1, "strict", 4, func(x float32, y []float32, err error) (int64, string) {
		if err != nil || len(y) != 1 || y[0] != x {
			return 0, fmt.Sprintf("a neighbour: answered %v, %v to %v", y, err, x)
		}
		return 0, ""
	})
	mates.more(20)
	y, err := s.askREST(t.Context(), "strict", []float32{11})
	if !late(err) && !refusedAsSuspect(err, "run_timeout") {
		t.Errorf("a run without end: %v, %v", y, err)
	}
	if w := s.live("strict", 1).Worker; w.Restarts == 0 || !strings.Contains(w.LastDeath, "run_timeout") {
		t.Errorf("its worker: %+v", w)
	}
	mates.more(20)
	if good, refused := mates.end(); refused != 0 {
		t.Errorf("neighbours: %d answered, %d refused", good, refused)
	}
}

// withConstant is the model with another number in a constant of its graph.
func withConstant(t testing.TB, m *modeltest.Model, node string, value float32) *modeltest.Model {
	t.Helper()
	for _, n := range m.Meta.GetGraphDef().GetNode() {
		if n.GetName() == node && n.GetOp() == "Const" {
			n.GetAttr()["value"].GetTensor().TensorContent = binary.LittleEndian.AppendUint32(nil, math.Float32bits(value))
			return m
		}
	}
	t.Fatalf("model %s has no constant %s", m.Name, node)
	return nil
}

// late reports whether err is DEADLINE_EXCEEDED, which REST says as 504.
func late(err error) bool {
	var f *failure
	return errors.As(err, &f) && (f.Code == codes.DeadlineExceeded || f.HTTP == 504)
}
