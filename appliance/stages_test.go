// stages_test.go: the order of starting and stopping, and what a death does to the rest.
package appliance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type record struct {
	mu  sync.Mutex
	all []string
}

func (r *record) add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, s)
}

func (r *record) stage(name string) stage {
	return stage{name, func(ctx context.Context, ready func()) error {
		r.add("+" + name)
		ready()
		<-ctx.Done()
		r.add("-" + name)
		return nil
	}}
}

func TestStagesStopInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := runStages(ctx, []stage{r.stage("a"), r.stage("b"), r.stage("c")}); err != nil {
			t.Fatal(err)
		}
		if want := []string{"+a", "+b", "+c", "-c", "-b", "-a"}; !slices.Equal(r.all, want) {
			t.Fatalf("order %v, want %v", r.all, want)
		}
	})
}

func TestStageDeathStopsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		boom := errors.New("boom")
		dying := stage{"b", func(_ context.Context, ready func()) error {
			ready()
			time.Sleep(time.Second)
			return boom
		}}
		err := runStages(t.Context(), []stage{r.stage("a"), dying, r.stage("c")})
		if !errors.Is(err, boom) || !strings.Contains(err.Error(), "b: boom") {
			t.Fatalf("got %v", err)
		}
		if want := []string{"+a", "+c", "-c", "-a"}; !slices.Equal(r.all, want) {
			t.Fatalf("order %v, want %v", r.all, want)
		}
	})
}

func TestStageThatNeverComesUpIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r record
		stuck := stage{"a", func(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := runStages(ctx, []stage{stuck, r.stage("b")}); err != nil {
			t.Fatal(err)
		}
		if len(r.all) != 0 {
			t.Fatalf("started %v", r.all)
		}
	})
}
