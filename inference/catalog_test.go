// catalog_test.go: acquire, publish, retire, replace and labels, alone and under a swap.
package inference

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// servable answers with nothing and knows whether it was closed while a Predict ran.
type servable struct {
	running atomic.Int64
	closed  atomic.Bool
}

func (s *servable) Predict(context.Context, *Request) (*Response, error) {
	s.running.Add(1)
	defer s.running.Add(-1)
	if s.closed.Load() {
		return nil, Errorf(Internal, ReasonWorker, "predict after close")
	}
	return NewResponse(nil, nil), nil
}

func (s *servable) Close() error {
	s.closed.Store(true)
	if s.running.Load() != 0 {
		return errors.New("closed while a request ran")
	}
	return nil
}

func TestCatalogAcquire(t *testing.T) {
	c := NewCatalog()
	for _, n := range []int64{1, 3, 2} {
		c.Publish(&Version{Model: "m", Number: n}, &servable{})
	}
	c.SetLabels("m", map[string]int64{"stable": 1, "gone": 9})
	c.Add("empty")
	for _, test := range []struct {
		name string
		spec Spec
		want int64
		code Code
		msg  string
	}{
		{name: "latest", spec: Spec{Model: "m"}, want: 3},
		{name: "number", spec: Spec{Model: "m", Version: 2, HasVersion: true}, want: 2},
		{name: "label", spec: Spec{Model: "m", Label: "stable"}, want: 1},
		{name: "no name", spec: Spec{}, code: InvalidArgument, msg: "ModelSpec has no name specified."},
		{name: "unknown model", spec: Spec{Model: "x"}, code: NotFound, msg: "Servable not found for request: Latest(x)"},
		{name: "model without version", spec: Spec{Model: "empty"}, code: NotFound, msg: "Servable not found for request: Latest(empty)"},
		{name: "unknown number", spec: Spec{Model: "m", Version: 7, HasVersion: true}, code: NotFound, msg: "Servable not found for request: Specific(m, 7)"},
		{name: "number zero is a number", spec: Spec{Model: "m", HasVersion: true}, code: NotFound, msg: "Servable not found for request: Specific(m, 0)"},
		{name: "unknown label", spec: Spec{Model: "m", Label: "no"}, code: InvalidArgument, msg: "Unrecognized servable version label: no"},
		{name: "label of an unknown model", spec: Spec{Model: "x", Label: "no"}, code: InvalidArgument, msg: "Unrecognized servable version label: no"},
		{name: "label to a version that is not there", spec: Spec{Model: "m", Label: "gone"}, code: NotFound, msg: "Servable not found for request: Specific(m, 9)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, err := c.Acquire(test.spec)
			if test.msg != "" {
				if e := AsError(err); e == nil || e.Code != test.code || e.Msg != test.msg {
					t.Fatalf("got %v, want %v: %s", err, test.code, test.msg)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer h.Release()
			if got := h.Version().Number; got != test.want {
				t.Fatalf("got version %d, want %d", got, test.want)
			}
		})
	}
}

func TestCatalogRetireWaitsForHandles(t *testing.T) {
	c := NewCatalog()
	s := &servable{}
	c.Publish(&Version{Model: "m", Number: 1, Unproven: "not tried"}, s)
	if st, _ := c.Status("m"); len(st) != 1 || st[0].State != StateAvailable || st[0].Message != "not tried" || st[0].Since.IsZero() {
		t.Fatalf("status after publish: %+v", st)
	}
	a, _ := c.Acquire(Spec{Model: "m"})
	b, _ := c.Acquire(Spec{Model: "m"})
	got, drained := c.Retire("m", 1)
	if got != Servable(s) {
		t.Fatal("retire returned another servable")
	}
	if _, err := c.Acquire(Spec{Model: "m"}); AsError(err).Code != NotFound {
		t.Fatalf("acquire after retire: %v", err)
	}
	if c.Available("m") {
		t.Fatal("available after retire")
	}
	if st, _ := c.Status("m"); st[0].State != StateUnloading {
		t.Fatalf("status after retire: %+v", st)
	}
	a.Release()
	a.Release() // a second release must not steal b's pin
	select {
	case <-drained:
		t.Fatal("drained while a handle is held")
	default:
	}
	b.Release()
	<-drained
	if s, d := c.Retire("m", 1); s != nil || d != nil {
		t.Fatal("a version can be retired twice")
	}
	if s, d := c.Retire("unknown", 1); s != nil || d != nil {
		t.Fatal("an unknown model can be retired")
	}
}

func TestCatalogPublishTwicePanics(t *testing.T) {
	c := NewCatalog()
	c.Publish(&Version{Model: "m", Number: 1}, &servable{})
	defer func() {
		if recover() == nil {
			t.Fatal("no panic")
		}
		if !c.Available("m") { // the lock was given back
			t.Fatal("the first one is gone")
		}
	}()
	c.Publish(&Version{Model: "m", Number: 1}, &servable{})
}

func TestCatalogReplace(t *testing.T) {
	c := NewCatalog()
	if s, d := c.Replace(&Version{Model: "m", Number: 1, Dir: "a"}, &servable{}); s != nil || d != nil {
		t.Fatal("replaced something in an empty catalog")
	}
	h, _ := c.Acquire(Spec{Model: "m"})
	_, drained := c.Replace(&Version{Model: "m", Number: 1, Dir: "b"}, &servable{})
	n, err := c.Acquire(Spec{Model: "m"})
	if err != nil || n.Version().Dir != "b" || h.Version().Dir != "a" {
		t.Fatalf("after replace: %v %v", n, err)
	}
	n.Release()
	h.Release()
	<-drained
}

func TestCatalogStatusAndModels(t *testing.T) {
	c := NewCatalog()
	if _, known := c.Status("m"); known {
		t.Fatal("knows a model that nobody named")
	}
	c.Add("m")
	if st, known := c.Status("m"); !known || len(st) != 0 {
		t.Fatalf("after Add: %v %v", st, known)
	}
	// Numbers so far apart that their difference overflows must still be in order.
	for _, n := range []int64{2, math.MaxInt64, math.MinInt64, -1} {
		c.SetStatus("m", VersionStatus{Version: n, State: StateEnd, Code: Internal, Message: "no"})
	}
	st, _ := c.Status("m")
	var numbers []int64
	for _, s := range st {
		numbers = append(numbers, s.Version)
		if s.Since.IsZero() {
			t.Fatal("no time of the change")
		}
	}
	if !slices.Equal(numbers, []int64{math.MaxInt64, 2, -1, math.MinInt64}) {
		t.Fatalf("order: %v", numbers)
	}
	c.SetStatus("m", VersionStatus{Version: 2})
	if st, _ := c.Status("m"); len(st) != 3 {
		t.Fatalf("StateUnknown did not forget: %v", st)
	}
	c.Add("b")
	if got := c.Models(); !slices.Equal(got, []string{"b", "m"}) {
		t.Fatalf("models: %v", got)
	}
	c.Remove("m")
	if got := c.Models(); !slices.Equal(got, []string{"b"}) {
		t.Fatalf("models after Remove: %v", got)
	}
}

func TestCatalogLabels(t *testing.T) {
	c := NewCatalog()
	if _, ok := c.Label("m", "stable"); ok {
		t.Fatal("a label of an unknown model")
	}
	labels := map[string]int64{"stable": 4}
	c.SetLabels("m", labels)
	labels["stable"] = 5 // the catalog keeps a copy
	if n, ok := c.Label("m", "stable"); !ok || n != 4 {
		t.Fatalf("label: %d %v", n, ok)
	}
	c.SetLabels("m", nil)
	if _, ok := c.Label("m", "stable"); ok {
		t.Fatal("a label survived its removal")
	}
}

// TestCatalogSwapUnderLoad: a request never finds the model absent during a swap, and a servable is closed only after its last request.
func TestCatalogSwapUnderLoad(t *testing.T) {
	c := NewCatalog()
	c.Publish(&Version{Model: "m", Number: 1}, &servable{})
	var stop atomic.Bool
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for !stop.Load() {
				h, err := c.Acquire(Spec{Model: "m"})
				if err != nil {
					t.Errorf("acquire: %v", err)
					return
				}
				if _, err := h.Servable().Predict(t.Context(), nil); err != nil {
					t.Errorf("predict: %v", err)
				}
				h.Release()
			}
		})
	}
	for n := int64(2); n <= 200; n++ {
		c.Publish(&Version{Model: "m", Number: n}, &servable{})
		s, drained := c.Retire("m", n-1)
		<-drained
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	group.Wait()
}

func BenchmarkCatalogAcquire(b *testing.B) {
	c := NewCatalog()
	c.Publish(&Version{Model: "m", Number: 1}, &servable{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h, err := c.Acquire(Spec{Model: "m"})
			if err != nil {
				b.Error(err)
				return
			}
			h.Release()
		}
	})
}
