// durable_test.go: sessions over the real queue: accepted, answered, acknowledged, resumed, taken over.
package ws

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/storage"
)

// withQueue makes options whose Jobs are a real service over a file; run begins to answer its jobs.
func withQueue(t *testing.T, opts Options) (r *rig, run func()) {
	t.Helper()
	q, err := storage.OpenQueue(filepath.Join(t.TempDir(), "queue.db"), storage.QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	later := new(laterJobs)
	opts.Jobs = later
	r = serve(t, opts)
	later.Service = jobs.New(jobs.Options{Queue: q, API: r.h.svc, Codecs: map[api.Kind]api.Codec{api.JSON: rest.NewCodec(rest.CodecOptions{}), api.Raw: NewRawCodec()},
		Settings: func() jobs.Settings {
			return jobs.Settings{MaxAttempts: 2, MaxDeaths: 2, Backoff: time.Millisecond, MaxBackoff: time.Millisecond}
		}})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	running := false
	t.Cleanup(func() { // before the handler's
		r.Close()
		drained, cancel := contextWithTimeout(patience)
		defer cancel()
		r.h.Drain(drained)
		stop()
		if running {
			<-ended
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, func() {
		running = true
		go func() {
			defer close(ended)
			if err := later.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
}

// laterJobs breaks a circle: the service needs the rig's api.
type laterJobs struct{ *jobs.Service }

// frame reads the next frame that gives no credits.
func (p *peer) frame() (m struct {
	ID, Error, Code, Accepted string
	Seq                       uint64
	Predictions               []float64
}) {
	p.t.Helper()
	text := p.recv()
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		p.t.Fatalf("%s: %v", text, err)
	}
	return m
}

// accepted wants the requests' acknowledgements, in any order.
func (p *peer) accepted(n int) (job map[string]string) {
	p.t.Helper()
	job = map[string]string{}
	for range n {
		m := p.frame()
		if m.Accepted == "" {
			p.t.Fatalf("got %+v, want an acknowledgement", m)
		}
		job[m.ID] = m.Accepted
	}
	return job
}

func TestDurable(t *testing.T) {
	r, run := withQueue(t, Options{})
	p := r.dial(t, JSONProtocol)
	for i := range 3 {
		p.send(fmt.Sprintf(`{"id":"%d","model":"m","durable":true,"instances":[%d]}`, i, i))
	}
	first := p.accepted(3)
	// The same again is the same job, whatever deadline is told; another under its id is none.
	p.send(`{"id":"1","model":"m","deadline_ms":9000,"durable":true,"instances":[1]}`)
	if again := p.accepted(1); again["1"] != first["1"] {
		t.Errorf("sent again: %v, and was %v", again, first)
	}
	p.send(`{"id":"1","model":"m","durable":true,"instances":[2]}`)
	p.fails("1", "ALREADY_EXISTS", "")
	p.send(`{"id":"9","model":"m","durable":true,"instances":["x"]}`)
	p.fails("9", "INVALID_ARGUMENT", "")
	p.send(`{"id":"9","model":"nobody","durable":true,"instances":[1]}`)
	p.fails("9", "NOT_FOUND", "nobody")
	run()
	answered := map[string]uint64{}
	for seq := uint64(1); seq <= 3; seq++ {
		m := p.frame()
		if m.Seq != seq || len(m.Predictions) != 1 || fmt.Sprint(m.Predictions[0]) != m.ID {
			t.Fatalf("got %+v, want result %d", m, seq)
		}
		answered[m.ID] = seq
	}
	p.send(`{"ack":1}`)
	_ = p.conn.Close() // without a word
	r.ends(t, 1006, 1)

	// What was seen and not acknowledged is asked for again.
	p2 := r.dial(t, JSONProtocol)
	p2.send(fmt.Sprintf(`{"resume":{"session":"%s","after":1}}`, p.say.session))
	p2.want(fmt.Sprintf(`{"resumed":{"session":"%s","last":3,"pending":2}}`, p.say.session))
	for _, seq := range []uint64{2, 3} {
		if m := p2.frame(); m.Seq != seq || answered[m.ID] != seq {
			t.Errorf("got %+v, want result %d", m, seq)
		}
	}
	p2.send(`{"id":"7","model":"m","durable":true,"instances":[7]}`)
	job := p2.accepted(1)["7"]
	if m := p2.frame(); m.ID != "7" || m.Seq != 4 || job == "" {
		t.Errorf("got %+v", m)
	}
	p2.send(`{"ack":4}`)
	poll(t, "the acknowledgement", func() bool {
		list, err := r.h.opts.Jobs.Outbox(p.say.session, 0, 10, 1<<20)
		return err == nil && len(list) == 0
	})

	// A third takes the session over.
	p3 := r.dial(t, JSONProtocol)
	p3.send(fmt.Sprintf(`{"resume":{"session":"%s","after":4}}`, p.say.session))
	p3.want(fmt.Sprintf(`{"resumed":{"session":"%s","last":4,"pending":0}}`, p.say.session))
	p2.closes(CloseTakenOver)
	p3.send(fmt.Sprintf(`{"resume":{"session":"%s","after":4}}`, p.say.session))
	p3.fails("", "FAILED_PRECONDITION", "first frame")
	p3.send(`{"ack":5}`)
	p3.closes(CloseNotSent)
}

func TestResumeOfWhatIsNotThere(t *testing.T) {
	r, _ := withQueue(t, Options{})
	p := r.dial(t, JSONProtocol)
	p.send(`{"resume":{"session":"00000000000000000000000000000000","after":0}}`)
	p.closes(CloseNoSession)
	p = r.dial(t, JSONProtocol)
	p.send(`{"ack":1}`) // there was no session even
	p.closes(CloseNotSent)
	p = r.dial(t, JSONProtocol)
	p.send(`{"id":"1","model":"m","durable":true,"instances":[1]}`)
	p.accepted(1)
	p2 := r.dial(t, JSONProtocol)
	p2.send(fmt.Sprintf(`{"resume":{"session":"%s","after":17}}`, p.say.session))
	p2.closes(CloseNotSent)

	none := serve(t, Options{})
	p = none.dial(t, JSONProtocol)
	p.send(`{"id":"1","model":"m","durable":true,"instances":[1]}`)
	p.fails("1", "UNIMPLEMENTED", "no queue")
	p.send(`{"resume":{"session":"x","after":0}}`)
	p.fails("", "UNIMPLEMENTED", "no queue")
}

// Jobs of a lane go into the queue in the order in which they were sent, and a job that waits can be cancelled by its id.
func TestLanes(t *testing.T) {
	r, run := withQueue(t, Options{})
	p := r.dial(t, JSONProtocol)
	const n = 40
	for i := range n {
		p.send(fmt.Sprintf(`{"id":"%d","model":"m","durable":true,"ordered":true,"instances":[%d]}`, i, i))
	}
	ids := p.accepted(n)
	p.send(fmt.Sprintf(`{"cancel":"%s"}`, ids["5"]))
	if m := p.frame(); m.ID != "5" || m.Code != "CANCELLED" || m.Seq != 1 {
		t.Errorf("got %+v", m)
	}
	p.send(`{"id":"raw","model":"m","durable":true,"lane":"another","instances":[1]}`)
	p.accepted(1)
	run()
	next := 0
	for seen := 0; seen < n; seen++ {
		switch m := p.frame(); m.ID {
		case "raw":
		default:
			if next == 5 {
				next++
			}
			if m.ID != fmt.Sprint(next) || len(m.Predictions) != 1 {
				t.Errorf("got %+v, want %d", m, next)
			}
			next++
		}
	}
}

// Two connections send, are cut off at random and resume: every result comes once.
func TestNothingIsLostAcrossConnections(t *testing.T) {
	r, run := withQueue(t, Options{Credits: 16})
	run()
	const n = 300
	p := r.dial(t, JSONProtocol)
	session := p.say.session
	var after uint64
	got, sent := map[string]int{}, 0
	open := map[string]string{} // sent and not accepted
	for round := 0; len(got) < n; round++ {
		if round > 0 {
			p = r.dial(t, JSONProtocol)
			p.send(fmt.Sprintf(`{"resume":{"session":"%s","after":%d}}`, session, after))
			if text := p.recv(); !strings.HasPrefix(text, `{"resumed"`) {
				t.Fatal(text)
			}
			for _, text := range open {
				p.send(text)
			}
		}
		for frames := 0; len(got) < n; frames++ {
			for len(open) < 8 && sent < n {
				id := fmt.Sprint("r", sent)
				open[id] = fmt.Sprintf(`{"id":"%s","model":"m","durable":true,"instances":[%d]}`, id, sent)
				p.send(open[id])
				sent++
			}
			if frames > 37 {
				_ = p.conn.Close()
				break
			}
			m := p.frame()
			switch {
			case m.Accepted != "":
				delete(open, m.ID)
			case m.Seq == after+1 && m.Error == "":
				after = m.Seq
				delete(open, m.ID) // its acknowledgement was cut off
				got[m.ID]++
				if after%10 == 0 {
					p.send(fmt.Sprintf(`{"ack":%d}`, after))
				}
			default:
				t.Fatalf("got %+v after %d", m, after)
			}
		}
	}
	for id, times := range got {
		if times != 1 {
			t.Errorf("%s came %d times", id, times)
		}
	}
}
