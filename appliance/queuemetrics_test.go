// queuemetrics_test.go: what is said of the queue: conditions of every state that it can be in, and every metric.
package appliance

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/storage"
)

func TestQueueConditions(t *testing.T) {
	for name, c := range map[string]struct {
		stats storage.QueueStats
		aside string
		unset bool
		level health.Severity
		text  string // "": no condition
	}{
		"sound":                 {stats: storage.QueueStats{Queued: 7, Dead: 2}},
		"degraded":              {stats: storage.QueueStats{Degraded: true}, level: health.Warning, text: "takes no jobs"},
		"degraded counts first": {stats: storage.QueueStats{Degraded: true, Damaged: 1}, aside: "x", unset: true, level: health.Warning, text: "takes no jobs"},
		"damaged file":          {stats: storage.QueueStats{Damaged: 1}, aside: "queue.db.damaged-1", level: health.Warning, text: "the old one is queue.db.damaged-1"},
		"damaged records":       {stats: storage.QueueStats{Damaged: 3}, unset: true, level: health.Warning, text: "3 damaged records"},
		"no clock":              {unset: true, level: health.Info, text: "clock is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			got := conditionsOf(c.stats, c.aside, !c.unset)
			if c.text == "" {
				if got != nil {
					t.Errorf("%+v, want none", got)
				}
				return
			}
			if len(got) != 1 || got[0].Code != health.CodeQueue || got[0].Severity != c.level || !strings.Contains(got[0].Message, c.text) {
				t.Errorf("%+v, want one of severity %v with %q", got, c.level, c.text)
			}
		})
	}
}

// TestQueueMetrics has a queue with one job in each state that is counted, and reads every metric by its name.
func TestQueueMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	m := newQueueMetrics(r)
	q, err := storage.OpenQueue(filepath.Join(t.TempDir(), "queue.db"), storage.QueueOptions{Observe: m.commit})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	a := &Appliance{jobs: jobs.New(jobs.Options{Queue: q, Settings: func() jobs.Settings { return jobs.Settings{} }})}
	r.MustRegister(&queueStates{a})
	for range 5 {
		if _, _, err := q.Append(t.Context(), storage.Item{Model: "m", Kind: 1, MaxAttempts: 3, Submitted: a.jobs.Now().Add(-time.Minute)}, []byte("body")); err != nil {
			t.Fatal(err)
		}
	}
	leased, err := q.Lease(t.Context(), "m", 4, 1<<20, a.jobs.Now())
	if err != nil || len(leased) != 4 {
		t.Fatalf("%d leased, %v", len(leased), err)
	}
	_, err = q.Finish(t.Context(), leased[0].ID, storage.Outcome{State: storage.Done, Result: []byte("{}"), Version: 1, At: a.jobs.Now()})
	_, err2 := q.Finish(t.Context(), leased[1].ID, storage.Outcome{State: storage.Dead, Code: 13, Error: "poison", At: a.jobs.Now()})
	_, err3 := q.Release(t.Context(), leased[2].ID, storage.Back{Attempt: true, Delay: time.Hour, Error: "no"})
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	m.run(jobs.Run{Model: "m", State: storage.Dead, Waited: time.Minute})
	m.run(jobs.Run{Model: "m", State: storage.Queued, Attempt: true})
	m.run(jobs.Run{Model: "m", State: storage.Queued, Death: true})
	m.commit(storage.Commit{Err: errors.New("no space")})

	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, one := range f.GetMetric() {
			key := f.GetName()
			for _, l := range one.GetLabel() {
				key += " " + l.GetValue()
			}
			switch {
			case one.GetGauge() != nil:
				got[key] = one.GetGauge().GetValue()
			case one.GetCounter() != nil:
				got[key] = one.GetCounter().GetValue()
			default:
				got[key] = float64(one.GetHistogram().GetSampleCount())
			}
		}
	}
	for key, want := range map[string]float64{
		"inferd_queue_depth m queued": 1, "inferd_queue_depth m delayed": 1, "inferd_queue_depth m leased": 1, "inferd_queue_finished": 1, "inferd_queue_dead": 1,
		"inferd_queue_damaged_total": 0, "inferd_queue_degraded": 0, "inferd_queue_jobs_total m dead": 1, "inferd_queue_jobs_total m queued": 2,
		"inferd_queue_attempts_total attempt m": 1, "inferd_queue_attempts_total death m": 1, "inferd_queue_job_seconds m": 1, "inferd_queue_failed_commits_total": 1,
	} {
		if v, ok := got[key]; !ok || v != want {
			t.Errorf("%s: %v, want %v", key, v, want)
		}
	}
	for _, key := range []string{"inferd_queue_waiting_bytes m", "inferd_queue_bytes", "inferd_queue_file_bytes", "inferd_queue_commits_total", "inferd_queue_writes_total",
		"inferd_queue_fsync_seconds"} {
		if got[key] <= 0 {
			t.Errorf("%s: %v, want more than 0", key, got[key])
		}
	}
	if age := got["inferd_queue_oldest_seconds m"]; age < 59 {
		t.Errorf("the oldest has %v seconds, and was submitted a minute ago", age)
	}
}
