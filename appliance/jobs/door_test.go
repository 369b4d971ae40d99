// door_test.go: what the door refuses, sessions and their outboxes, and what ends by time.
package jobs_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/storage"
)

func TestDoor(t *testing.T) {
	scanned, full := true, false
	inBubble(t, func(b *box) {
		b.set.MaxPayload = 4096
		b.opts.Scanned = func() bool { return scanned }
		b.opts.Room = func() *inference.Error {
			if full {
				return inference.Errorf(inference.ResourceExhausted, inference.ReasonDisk, "the disk is full")
			}
			return nil
		}
	}, func(b *box) {
		b.publish("m", 1, &fake.Runner{})
		submit := func(change func(*jobs.Submission)) *inference.Error {
			sub := jobs.Submission{Spec: inference.Spec{Model: "m"}, Kind: api.JSON, Body: body(1)}
			change(&sub)
			_, _, err := b.Submit(b.Context(), sub)
			return err
		}
		for name, c := range map[string]struct {
			change func(*jobs.Submission)
			want   string
		}{
			"model":       {func(s *jobs.Submission) { s.Spec.Model = "x" }, "NOT_FOUND model"},
			"no model":    {func(s *jobs.Submission) { s.Spec.Model = "" }, "INVALID_ARGUMENT model"},
			"long model":  {func(s *jobs.Submission) { s.Spec.Model = strings.Repeat("x", 600) }, "NOT_FOUND model"},
			"version":     {func(s *jobs.Submission) { s.Spec.Version, s.Spec.HasVersion = 2, true }, "NOT_FOUND model"},
			"version -1":  {func(s *jobs.Submission) { s.Spec.Version, s.Spec.HasVersion = -1, true }, "NOT_FOUND model"},
			"label":       {func(s *jobs.Submission) { s.Spec.Label = "l" }, "INVALID_ARGUMENT model"},
			"kind":        {func(s *jobs.Submission) { s.Kind = 77 }, "UNIMPLEMENTED input"},
			"body":        {func(s *jobs.Submission) { s.Body = []byte("{}") }, "INVALID_ARGUMENT input"},
			"no body":     {func(s *jobs.Submission) { s.Body = nil }, "INVALID_ARGUMENT input"},
			"rank":        {func(s *jobs.Submission) { s.Body = []byte(`{"instances": [[["a"]]]}`) }, "INVALID_ARGUMENT input"},
			"size":        {func(s *jobs.Submission) { s.Body = make([]byte, 5000) }, "RESOURCE_EXHAUSTED too_large"},
			"expires":     {func(s *jobs.Submission) { s.Expires = -1 }, "INVALID_ARGUMENT input"},
			"attempts":    {func(s *jobs.Submission) { s.MaxAttempts = 101 }, "INVALID_ARGUMENT input"},
			"key":         {func(s *jobs.Submission) { s.Key = "a\nb" }, "INVALID_ARGUMENT input"},
			"lane":        {func(s *jobs.Submission) { s.Lane = "\xff" }, "INVALID_ARGUMENT input"},
			"ref":         {func(s *jobs.Submission) { s.Session, s.Ref = "s", strings.Repeat("r", 300) }, "INVALID_ARGUMENT input"},
			"no session":  {func(s *jobs.Submission) { s.Session, s.Ref = "s", "1" }, "NOT_FOUND job"},
			"good enough": {func(s *jobs.Submission) { s.Expires, s.MaxAttempts, s.Key, s.Lane = time.Second, 100, "k", "l" }, ""},
		} {
			got := ""
			if err := submit(c.change); err != nil {
				got = err.Code.String() + " " + err.Reason
				if err.Msg == "" || strings.Contains(err.Msg, b.path) {
					t.Errorf("%s: says %q", name, err.Msg)
				}
			}
			if got != c.want {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
		scanned = false
		if err := submit(func(s *jobs.Submission) { s.Spec.Model = "x" }); err == nil || err.Code != inference.Unavailable || err.RetryAfter == 0 {
			t.Errorf("a model that may yet be found: %v", err)
		}
		full = true
		if err := submit(func(*jobs.Submission) {}); err == nil || api.HTTPStatus(err) != 507 {
			t.Errorf("without room: %v", err)
		}
	})
}

// TestKeys: a key stands for one request; a session's refs are its own.
func TestKeys(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		b.publish("m", 1, &fake.Runner{})
		first := b.put("m", 1, func(s *jobs.Submission) { s.Key = "k" })
		b.ends(first, storage.Done)
		again, existed, err := b.Submit(b.Context(), jobs.Submission{Spec: inference.Spec{Model: "m"}, Kind: api.JSON, Body: body(1), Key: "k", Class: inference.Bulk})
		if err != nil || !existed || again.ID != first.ID || again.State != storage.Done {
			b.Errorf("the same again: %v %v %+v", err, existed, again)
		}
		for name, change := range map[string]func(*jobs.Submission){
			"body": func(s *jobs.Submission) { s.Body = body(2) }, "version": func(s *jobs.Submission) { s.Spec.Version, s.Spec.HasVersion = 1, true },
		} {
			sub := jobs.Submission{Spec: inference.Spec{Model: "m"}, Kind: api.JSON, Body: body(1), Key: "k"}
			change(&sub)
			if _, _, err := b.Submit(b.Context(), sub); err == nil || err.Code != inference.AlreadyExists || !strings.Contains(err.Msg, first.ID) {
				b.Errorf("another %s with the same key: %v", name, err)
			}
		}
		for i, session := range []string{strings.Repeat("a", 32), strings.Repeat("b", 32)} {
			if err := b.Open(b.Context(), session); err != nil {
				b.Fatal(err)
			}
			of := func(s *jobs.Submission) { s.Session, s.Ref = session, "k" }
			it := b.put("m", float64(10+i), of)
			if got := b.put("m", float64(10+i), of); got.ID != it.ID || it.ID == first.ID {
				b.Errorf("session %s: ref k is job %s, then %s", session, it.ID, got.ID)
			}
		}
	})
}

// TestOutbox: a session gets its results in the order of their ends, each until it is acknowledged.
func TestOutbox(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		b.publish("m", 1, &fake.Runner{})
		session := strings.Repeat("5", 32)
		if err := b.Open(b.Context(), session); err != nil {
			b.Fatal(err)
		}
		for i := range 5 {
			arrived, stop := b.Arrived(session)
			it := b.put("m", float64(i), func(s *jobs.Submission) { s.Session, s.Ref = session, fmt.Sprint(i) })
			<-arrived
			stop()
			b.ends(it, storage.Done)
		}
		sent, err := b.Outbox(session, 2, 100, 1<<20)
		if err != nil || len(sent) != 3 || sent[0].Out != 3 || sent[0].Ref != "2" || !strings.Contains(string(sent[0].Result), "[[2.0]") {
			b.Fatalf("after 2: %+v %v", sent, err)
		}
		if err := b.Ack(b.Context(), session, 4); err != nil {
			b.Fatal(err)
		}
		if err := b.Ack(b.Context(), session, 6); err == nil || err.Code != inference.OutOfRange {
			b.Errorf("acknowledged what was never sent: %v", err)
		}
		if _, err := b.Resume(b.Context(), session, 6); err == nil || err.Code != inference.OutOfRange {
			b.Errorf("resumed after what was never sent: %v", err)
		}
		if _, err := b.Resume(b.Context(), "stranger", 0); err == nil || err.Code != inference.NotFound {
			b.Errorf("resumed a stranger: %v", err)
		}
		if found, err := b.Resume(b.Context(), session, 4); err != nil || found.Last != 5 {
			b.Errorf("resumed: %+v %v", found, err)
		}
		b.stop()
		b.start()
		if sent, err = b.Outbox(session, 0, 100, 1<<20); err != nil || len(sent) != 1 || sent[0].Out != 5 {
			b.Errorf("what is left: %+v %v", sent, err)
		}
		if err := b.Drop(b.Context(), session); err != nil {
			b.Error(err)
		}
		if _, err := b.Outbox(session, 0, 100, 1<<20); err == nil || err.Code != inference.NotFound {
			b.Errorf("after it was dropped: %v", err)
		}
	})
}

// TestWaitGivesUp: who waits gets what the job is by then.
func TestWaitGivesUp(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		b.catalog.Add("m")
		it := b.put("m", 1)
		ctx, cancel := context.WithTimeout(b.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if got, err := b.Wait(ctx, it.ID); err != nil || got.State != storage.Queued || time.Since(start) != time.Second {
			b.Errorf("after %v: %v %v", time.Since(start), got.State, err)
		}
		if _, _, err := b.Result(it.ID); err == nil || api.HTTPStatus(err) != 409 || err.RetryAfter == 0 {
			b.Errorf("its result: %v", err)
		}
	})
}

// TestExpiryAndRetention: jobs expire, results and dead letters are forgotten, each in its time.
func TestExpiryAndRetention(t *testing.T) {
	inBubble(t, func(b *box) { b.opts.MaxAge = func(string) time.Duration { return time.Minute } }, func(b *box) {
		b.catalog.Add("m")
		short, long := b.put("m", 1, func(s *jobs.Submission) { s.Expires = 5 * time.Second }), b.put("m", 2, func(s *jobs.Submission) { s.Expires = time.Hour })
		if got := b.ends(short, storage.Expired); got.Finished.Sub(got.Submitted) > 20*time.Second {
			b.Errorf("it expired after %v", got.Finished.Sub(got.Submitted))
		}
		if _, _, err := b.Result(short.ID); err == nil || err.Code != inference.DeadlineExceeded {
			b.Errorf("its result: %v", err)
		}
		if got := b.ends(long, storage.Expired); got.Finished.Sub(got.Submitted) < time.Minute || got.Finished.Sub(got.Submitted) > 2*time.Minute {
			b.Errorf("max_age ended it after %v", got.Finished.Sub(got.Submitted))
		}
		time.Sleep(2 * time.Hour)
		if _, err := b.Job(long.ID); err == nil || err.Reason != inference.ReasonJob {
			b.Errorf("after its retention: %v", err)
		}
	})
}

// TestWakesIn1970: nothing expires while the machine's clock is not set, and what came meanwhile is no older when it is.
func TestWakesIn1970(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		b.catalog.Add("m")
		minute := func(s *jobs.Submission) { s.Expires = time.Minute }
		before := b.put("m", 1, minute)
		b.stop()
		b.wall.Store(int64(-60 * 365 * 24 * time.Hour))
		b.opts.Boot = "another"
		b.start()
		if b.ClockSet() {
			b.Fatal("the clock is set, it says")
		}
		time.Sleep(time.Hour)
		b.stays(before)
		meanwhile := b.put("m", 2, minute)
		b.wall.Store(0) // the network came
		time.Sleep(5 * time.Second)
		if !b.ClockSet() {
			b.Fatal("the clock is not set, it says")
		}
		if got, err := b.Job(meanwhile.ID); err != nil || got.State != storage.Queued {
			b.Fatalf("the jump has ended it: %+v %v", got, err)
		}
		b.ends(before, storage.Expired)
		if got := b.ends(meanwhile, storage.Expired); got.Finished.Sub(got.Submitted) < time.Minute {
			b.Errorf("it expired after %v", got.Finished.Sub(got.Submitted))
		}
		b.wall.Store(int64(1000 * 24 * time.Hour)) // and a clock that runs away
		last := b.put("m", 3, minute)
		time.Sleep(30 * time.Second)
		if got, _ := b.Job(last.ID); got.State != storage.Queued {
			b.Errorf("the second jump has ended it: %+v", got)
		}
	})
}

// TestNoQueue: everything is refused with the reason.
func TestNoQueue(t *testing.T) {
	s := jobs.New(jobs.Options{Missing: inference.Errorf(inference.Unavailable, inference.ReasonDisk, "the file is in the moon")})
	_, _, err := s.Submit(t.Context(), jobs.Submission{})
	_, err2 := s.Job("x")
	if err == nil || err2 == nil || err.Msg != "the file is in the moon" || err2 != err {
		t.Errorf("%v, %v", err, err2)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := jobs.New(jobs.Options{}).Missing(); err == nil || !strings.Contains(err.Msg, "queue.enabled") {
		t.Errorf("%v", err)
	}
}
