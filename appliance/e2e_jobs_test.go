// e2e_jobs_test.go: what may come between a job and its answer: dead workers, restarts, kill -9, updates, poison, a disk without room.
package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/storage"
)

// clean checks the queue's file, which nobody has open.
func clean(t *testing.T, cfg *config.Config) storage.Report {
	t.Helper()
	q, err := storage.OpenQueue(QueueFile(cfg), storage.QueueOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	r, err := q.Check(t.Context())
	if err != nil || len(r.Faults) > 0 {
		t.Errorf("the queue's file: %v %v", err, r.Faults)
	}
	return r
}

// TestJobsOverDeadWorkers: a worker that is killed in the middle costs no job, and none of them an attempt.
func TestJobsOverDeadWorkers(t *testing.T) {
	s := serve(t, nil)
	s.publish("slow", 1, modeltest.Slow(20))
	pid := s.live("slow", 1).Worker.PID
	var ids []string
	for i := range 60 {
		ids = append(ids, s.submit("slow", float32(i)))
		if i == 30 {
			kill(t, pid, syscall.SIGKILL)
		}
	}
	for i, id := range ids {
		s.jobAnswered(id, float32(i), "1")
	}
	if n := s.restarts("slow"); n != 1 {
		t.Errorf("%d restarts", n)
	}
}

// TestPoisonJob: the job that kills its worker is a dead letter that names the signal; its mates are answered, as is another model.
func TestPoisonJob(t *testing.T) {
	s := serve(t, nil)
	s.publish("crasher", 1, modeltest.Crasher())
	s.publish("other", 1, modeltest.HalfPlusTwo())
	s.live("crasher", 1)
	s.live("other", 1)
	var mates []string
	for i := range 10 {
		mates = append(mates, s.submit("crasher", float32(i)))
	}
	poison := s.submit("crasher", -1)
	for i := range 10 {
		mates = append(mates, s.submit("crasher", float32(10+i)))
	}
	other := s.submit("other", 2)
	j := s.untilEnded(poison, "dead")
	if !strings.Contains(j.Error, "SIGABRT") || j.Reason != "suspect" {
		t.Errorf("the dead letter says %q (%s)", j.Error, j.Reason)
	}
	for i, id := range mates {
		s.jobAnswered(id, float32(i), "1")
	}
	s.jobAnswered(other, 3, "1")
	if code, answer, _ := s.call("GET", "/v1/jobs/"+poison+"/result", ""); code != 400 || !strings.Contains(answer, "dead letter") || !strings.Contains(answer, "SIGABRT") {
		t.Errorf("its result: %d %s", code, answer)
	}
	s.logs.wait(t, "msg", "job is a dead letter", "id", poison)
}

// TestJobsOverAnUpdate: the queue keeps its order and its place. What is pinned is answered by its version, the rest by the one that serves.
func TestJobsOverAnUpdate(t *testing.T) {
	s := serve(t, func(cfg *config.Config) {
		cfg.Queue.Concurrency = 1
		cfg.Defaults.VersionPolicy = config.VersionPolicy{Latest: 2}
	})
	s.publish("m", 1, modeltest.Slow(30))
	s.live("m", 1)
	var pinned, latest []string
	for i := range 20 {
		latest = append(latest, s.submit("m", float32(i)))
		pinned = append(pinned, s.submit("m/versions/1", float32(i)))
	}
	s.publish("m", 2, modeltest.Affine(1, 100))
	s.live("m", 2)
	last := s.submit("m", 1)
	var versions []int64
	for i := range pinned {
		s.jobAnswered(pinned[i], float32(i), "1")
		j := s.untilEnded(latest[i], "done")
		versions = append(versions, j.Version)
		if i > 0 && versions[i] < versions[i-1] {
			t.Errorf("the order of versions is %v", versions)
		}
		s.jobAnswered(latest[i], float32(i)+float32(100*(j.Version-1)), fmt.Sprint(j.Version))
	}
	s.jobAnswered(last, 101, "2")
}

// TestJobsOverARestart: what waits is there after a stop in the middle; what was acknowledged is gone; keys are remembered.
func TestJobsOverARestart(t *testing.T) {
	lib := library(t)
	cfg := testConfig(t, func(cfg *config.Config) {
		cfg.Runtime.Library, cfg.Queue.Concurrency = lib, 2
		modeltest.WriteVersion(t, cfg.ModelsDir+"/slow", 1, modeltest.Slow(50))
	})
	s := run(t, cfg)
	s.live("slow", 1)
	key := []string{"Idempotency-Key", "first"}
	ids := []string{s.submit("slow", 0, key...)}
	for i := 1; i < 30; i++ {
		ids = append(ids, s.submit("slow", float32(i), "X-Inferd-Ordering-Key", "one"))
	}
	s.jobAnswered(ids[0], 0, "1")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	before := clean(t, cfg)
	if before.Leased != 0 || before.Queued == 0 {
		t.Errorf("after the stop %d jobs wait and %d are leased", before.Queued, before.Leased)
	}
	s = run(t, cfg)
	if again := s.submit("slow", 0, key...); again != ids[0] {
		t.Errorf("the key stands for %s now, and stood for %s", again, ids[0])
	}
	last := time.Time{}
	for i, id := range ids[1:] {
		s.jobAnswered(id, float32(i+1), "1")
		j := s.job(id, "")
		if j.Finished.Before(last) || j.Attempts+j.Deaths+j.Interruptions != 0 {
			t.Errorf("job %d of the lane: ended %v, the one before it %v; %+v", i, j.Finished, last, j)
		}
		last = *j.Finished
	}
}

// TestJobsOverKill: the daemon is killed -9 while jobs come and run. Each that was acknowledged is answered, once, by the next one.
func TestJobsOverKill(t *testing.T) {
	cfg := coreConfig(t, config.IsolationVersion)
	cfg.Queue.Concurrency = 4
	modeltest.WriteVersion(t, cfg.ModelsDir+"/slow", 1, modeltest.Slow(20))
	rounds := 3
	taken := make(map[string]float32)
	next := float32(0)
	for range rounds {
		c := startCore(t, cfg)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		client := &http.Client{Transport: &http.Transport{}}
		s := &server{t: t, http: "http://" + c.http, client: client, logs: newLogs()}
		var first string
		for { // until the model is known
			code, answer, err := s.rest(ctx, "/v1/models/slow:submit", fmt.Sprintf(`{"instances": [[%v]]}`, next))
			if err == nil && code == 202 {
				_, id, _ := strings.Cut(string(answer), `"id": "`)
				taken[id[:33]] = next
				first = cmp.Or(first, id[:33])
				if next++; int(next)%25 == 0 {
					break
				}
				continue
			}
			if ctx.Err() != nil {
				t.Fatalf("%d %s %v", code, answer, err)
			}
		}
		s.untilEnded(first, "done") // so that others are in flight
		kill(t, c.cmd.Process.Pid, syscall.SIGKILL)
		c.died(t)
		client.CloseIdleConnections()
		cancel()
		clean(t, cfg)
	}
	s := run(t, cfg)
	interrupted := 0
	for id, x := range taken {
		s.jobAnswered(id, x, "1")
		interrupted += s.job(id, "").Interruptions
	}
	t.Logf("%d jobs over %d kills, %d interruptions", len(taken), rounds, interrupted)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if r := clean(t, cfg); r.Finished != len(taken) || r.Queued+r.Leased+r.Dead != 0 {
		t.Errorf("%d jobs were taken; the file has %+v", len(taken), r)
	}
}

// TestQueueWithoutADisk: below the floor of state_dir no jobs are taken, and predictions are answered.
func TestQueueWithoutADisk(t *testing.T) {
	s := serve(t, func(cfg *config.Config) { cfg.State.DiskFloor = 1 << 50 })
	s.publish("half", 1, modeltest.HalfPlusTwo())
	s.live("half", 1)
	code, answer, h := s.call("POST", "/v1/models/half:submit", `{"instances": [[1]]}`)
	if code != 507 || h.Get("Retry-After") == "" || h.Get("X-Inferd-Reason") != "disk" || !strings.Contains(answer, "make room, or lower the floor") {
		t.Errorf("%d %s %v", code, answer, h)
	}
	s.ask("half", []float32{2}, []float32{3})
}

// TestQueueIsBounded: a full queue refuses with 429, or makes room, as it is configured; and so does a model's own bound.
func TestQueueIsBounded(t *testing.T) {
	for _, full := range []config.QueueFull{config.FullRefuse, config.FullExpire} {
		t.Run(string(full), func(t *testing.T) {
			s := run(t, testConfig(t, func(cfg *config.Config) {
				cfg.Queue.MaxJobs, cfg.Queue.Full = 3, full
				m := listed(cfg, "m")
				m.Queue.MaxJobs = 2
				cfg.Models = []config.Model{m, listed(cfg, "other")}
			}))
			s.until("the models are known", func(st *control.Status) bool { return len(st.Models) == 2 })
			first, second := s.submit("m", 1), s.submit("m", 2)
			code, answer, h := s.call("POST", "/v1/models/m:submit", `{"instances": [[3]]}`)
			if full == config.FullExpire {
				if j := s.job(first, ""); code != 202 || j.State != "expired" || !strings.Contains(j.Error, "made room") {
					t.Errorf("%d %s; the first is %+v", code, answer, j)
				}
				return
			}
			if code != 429 || h.Get("Retry-After") == "" || !strings.Contains(answer, "the queue of model m is full: 2 jobs of at most 2") {
				t.Errorf("%d %s", code, answer)
			}
			s.submit("other", 1)
			if code, answer, _ := s.call("POST", "/v1/models/other:submit", `{"instances": [[3]]}`); code != 429 || !strings.Contains(answer, "queue.max_jobs") {
				t.Errorf("%d %s", code, answer)
			}
			if code, _, _ := s.call("DELETE", "/v1/jobs/"+second, ""); code != 409 {
				t.Errorf("forget what waits: %d", code)
			}
			if code, _, _ := s.call("POST", "/v1/jobs/"+second+":cancel", ""); code != 200 {
				t.Errorf("cancel: %d", code)
			}
			if code, _, _ := s.call("DELETE", "/v1/jobs/"+second, ""); code != 204 {
				t.Errorf("forget: %d", code)
			}
			s.submit("m", 3)
		})
	}
}

// TestQueueIsOff: without a queue submits are refused in words, and nothing else is missing.
func TestQueueIsOff(t *testing.T) {
	s := run(t, testConfig(t, func(cfg *config.Config) { cfg.Queue.Enabled = false }))
	for _, path := range []string{"POST /v1/models/m:submit", "GET /v1/jobs/x"} {
		method, path, _ := strings.Cut(path, " ")
		if code, answer, _ := s.call(method, path, "{}"); code != 501 || !strings.Contains(answer, "queue.enabled is false") {
			t.Errorf("%s: %d %s", path, code, answer)
		}
	}
}

// TestQueueIsLocked: a second inferd on the same state ends with the reason.
func TestQueueIsLocked(t *testing.T) {
	cfg := testConfig(t, nil)
	q, err := storage.OpenQueue(QueueFile(cfg), storage.QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	a, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another process has it open; is another inferd running?") {
		t.Errorf("ended with %v", err)
	}
}

// TestQueueCondition: what is wrong with the queue is a condition.
func TestQueueCondition(t *testing.T) {
	s := run(t, testConfig(t, func(cfg *config.Config) {
		if err := errors.Join(os.MkdirAll(cfg.StateDir, 0o750), os.WriteFile(QueueFile(cfg), []byte(strings.Repeat("no queue", 4096)), 0o640)); err != nil {
			t.Fatal(err)
		}
	}))
	s.until("the condition", func(st *control.Status) bool {
		for _, c := range st.Conditions {
			if c.Code == health.CodeQueue {
				return strings.Contains(c.Message, "queue.db.damaged")
			}
		}
		return false
	})
	s.logs.wait(t, "msg", "queue file was damaged")
}
