// questions_test.go: who is asked before a sign of life, and the time that is asked for while it starts.
package appliance

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/systemd"
)

// Every loop that a restart would cure is asked, and answers within less than half of the unit's interval.
func TestEveryLoopIsAsked(t *testing.T) {
	s := serve(t, nil)
	s.publish("m", 1, modeltest.HalfPlusTwo())
	s.live("m", 1)
	var names []string
	for _, q := range s.questions() {
		names = append(names, q.Name)
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		if err := q.Ask(ctx); err != nil {
			t.Errorf("%s does not answer: %v", q.Name, err)
		}
		cancel()
	}
	slices.Sort(names)
	want := []string{"the batch scheduler", "the grpc door", "the http door", "the job dispatcher", "the operators' door", "the queue's writer", "the updater"}
	if !slices.Equal(names, want) {
		t.Errorf("asked are %v, want %v", names, want)
	}
}

// While it starts more time is asked for, as long as the loop that loads answers, and no longer.
func TestMoreTimeToStart(t *testing.T) {
	m := newManager(t)
	a, err := New(testConfig(t, func(cfg *config.Config) { cfg.Queue.Enabled = false }), Options{Log: slog.New(slog.DiscardHandler), Service: Service{Notifier: systemd.NewNotifier(m.path)}})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		stop := a.starting(t.Context(), func(context.Context) error {
			if time.Since(began) > 2*extendEvery+extendEvery/2 {
				return errors.New("it turns no more")
			}
			return nil
		})
		time.Sleep(6 * extendEvery)
		stop()
		synctest.Wait()
	})
	a.notify("the end", func(n *systemd.Notifier) error { return n.Status("the end") })
	m.until(t, 0, "STATUS=the end")
	if said := m.all(); !slices.Equal(said, []string{"EXTEND_TIMEOUT_USEC=60000000", "EXTEND_TIMEOUT_USEC=60000000", "STATUS=the end"}) {
		t.Errorf("told %q", strings.Join(said, ", "))
	}
}
