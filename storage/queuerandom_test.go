// queuerandom_test.go: any order of calls, beside a model of the queue that is a map.
package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// walker makes calls at random and knows what must come of them.
type walker struct {
	t    *testing.T
	r    *rand.Rand
	path string
	o    QueueOptions
	q    *Queue

	state   map[string]JobState // of every job that is not forgotten
	item    map[string]Item
	payload map[string]string
	result  map[string]string
	order   []string
	now     time.Time
}

func (w *walker) pick(states ...JobState) string {
	var fit []string
	for _, id := range w.order {
		for _, s := range states {
			if w.state[id] == s {
				fit = append(fit, id)
			}
		}
	}
	if len(fit) == 0 {
		return ""
	}
	return fit[w.r.IntN(len(fit))]
}

func (w *walker) set(it Item) { w.state[it.ID], w.item[it.ID] = it.State, it }

func (w *walker) forget(id string) {
	delete(w.state, id)
	delete(w.item, id)
	for i, other := range w.order {
		if other == id {
			w.order = append(w.order[:i], w.order[i+1:]...)
			break
		}
	}
}

func (w *walker) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

const walkSession = "0123456789abcdef"

func (w *walker) step() {
	ctx := context.Background()
	live := []JobState{Queued, Leased}
	final := []JobState{Done, Failed, Dead, Cancelled, Expired}
	switch w.r.IntN(20) {
	case 0, 1, 2, 3, 4, 5:
		it := Item{Model: string(rune('a' + w.r.IntN(3))), Kind: 1, Class: uint8(w.r.IntN(3)), Submitted: w.now, Ref: strconv.Itoa(w.r.Int())}
		if w.r.IntN(3) == 0 {
			it.Lane = string(rune('x' + w.r.IntN(2)))
		}
		if w.r.IntN(3) == 0 {
			it.Key = strconv.Itoa(w.r.IntN(1000))
			it.Digest[0] = byte(w.r.IntN(4))
		}
		if w.r.IntN(3) == 0 {
			it.Session = walkSession
		}
		if w.r.IntN(4) == 0 {
			it.Expires = w.now.Add(time.Duration(w.r.IntN(100)) * time.Second)
		}
		payload := string(noise(w.r.IntN([]int{1, 100, 3000, 20_000}[w.r.IntN(4)])))
		got, existed, err := w.q.Append(ctx, it, []byte(payload))
		switch {
		case errors.Is(err, ErrFull), errors.Is(err, ErrConflict):
			w.agree() // nothing has ended for it
			return
		}
		w.must(err)
		if existed {
			if w.item[got.ID].Key != it.Key {
				w.t.Fatalf("%+v is not what key %s stands for", got, it.Key)
			}
			return
		}
		w.set(got)
		w.payload[got.ID] = payload
		w.order = append(w.order, got.ID)
	case 6, 7, 8:
		model := string(rune('a' + w.r.IntN(3)))
		now := time.Time{}
		if w.r.IntN(2) == 0 {
			now = w.now
		}
		lanes := make(map[string]bool)
		for id, s := range w.state {
			if s == Leased && w.item[id].Lane != "" {
				lanes[w.item[id].Lane] = true
			}
		}
		got, err := w.q.Lease(ctx, model, 1+w.r.IntN(5), 30_000, now)
		w.must(err)
		for _, l := range got {
			if w.state[l.ID] != Queued || l.Model != model || string(l.Payload) != w.payload[l.ID] {
				w.t.Fatalf("leased %+v, which is %s", l.Item, w.state[l.ID])
			}
			if l.Lane != "" && lanes[l.Lane] {
				w.t.Fatalf("lane %s has two at work", l.Lane)
			}
			lanes[l.Lane] = true
			w.set(l.Item)
		}
	case 9, 10, 11:
		if id := w.pick(Leased); id != "" {
			o := Outcome{State: []JobState{Done, Done, Failed, Dead}[w.r.IntN(4)], At: w.now, Error: "e", Code: 3}
			if o.State == Done {
				o.Result = noise(w.r.IntN(5000))
			}
			it, err := w.q.Finish(ctx, id, o)
			w.must(err)
			w.result[id] = string(o.Result)
			w.set(it)
		}
	case 12:
		if id := w.pick(Leased); id != "" {
			it, err := w.q.Release(ctx, id, Back{Attempt: true, Delay: time.Duration(w.r.IntN(3)) * time.Millisecond, Error: "again"})
			w.must(err)
			w.set(it)
		}
	case 13:
		if id := w.pick(live...); id != "" {
			it, err := w.q.Cancel(ctx, id, w.now)
			w.must(err)
			w.set(it)
		}
	case 14:
		if id := w.pick(Failed, Dead, Cancelled); id != "" {
			it, err := w.q.Retry(ctx, id)
			w.must(err)
			w.set(it)
		}
	case 15:
		if id := w.pick(final...); id != "" {
			w.must(w.q.Delete(ctx, id))
			w.forget(id)
		}
	case 16:
		s, err := w.q.Session(walkSession)
		w.must(err)
		through := s.Acked + uint64(w.r.IntN(4))
		if err := w.q.Ack(ctx, walkSession, through); through > s.Last {
			if !errors.Is(err, ErrNotSent) {
				w.t.Fatal(err)
			}
			return
		} else {
			w.must(err)
		}
	case 17:
		w.now = w.now.Add(time.Duration(w.r.IntN(20)) * time.Second)
		for more := true; more; {
			var err error
			_, _, more, err = w.q.Sweep(ctx, w.now, Retention{Finished: 10 * time.Minute, Dead: time.Hour})
			w.must(err)
		}
	case 18:
		if w.r.IntN(5) == 0 {
			_, _, err := w.q.Compact(ctx, nil)
			w.must(err)
		}
	case 19:
		if w.r.IntN(5) > 0 {
			return
		}
		w.must(w.q.Close())
		w.open()
	}
	w.agree()
}

// open opens the file; who was leased is queued.
func (w *walker) open() {
	q, err := OpenQueue(w.path, w.o)
	w.must(err)
	w.q = q
}

// agree holds the queue to the model. Jobs change on their own only by time, by making room, by acknowledgement and at a start.
func (w *walker) agree() {
	w.t.Helper()
	for _, id := range append([]string{}, w.order...) {
		it, err := w.q.Get(id)
		was, old := w.state[id], w.item[id]
		switch {
		case errors.Is(err, ErrNoJob):
			if !was.Final() && w.o.WhenFull != Evict && old.Expires.IsZero() {
				w.t.Fatalf("job %s was %s and is gone", id, was)
			}
			w.forget(id)
			continue
		case err != nil:
			w.t.Fatal(err)
		case it.State == was:
		case was == Leased && it.State == Queued && it.Interruptions > old.Interruptions:
		case !was.Final() && it.State == Expired && (w.o.WhenFull == Evict || !old.Expires.IsZero()):
		default:
			w.t.Fatalf("job %s was %s and is %s: %+v", id, was, it.State, it)
		}
		w.set(it)
		if it.State == Done {
			if r, _, err := w.q.Result(id); err != nil || string(r) != w.result[id] {
				w.t.Fatalf("result of %s has %d bytes and should have %d: %v", id, len(r), len(w.result[id]), err)
			}
		}
	}
}

func TestQueueRandom(t *testing.T) {
	t.Parallel()
	seeds, steps := 4, 300
	if os.Getenv("INFERD_LONG") != "" {
		seeds, steps = 200, 2000
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := &walker{t: t, r: rand.New(rand.NewPCG(uint64(seed), 7)), path: filepath.Join(t.TempDir(), "queue.db"), now: epoch,
				state: make(map[string]JobState), item: make(map[string]Item), payload: make(map[string]string), result: make(map[string]string)}
			w.o = QueueOptions{Whole: Limits{Jobs: 30, Bytes: 200_000}, WhenFull: []WhenFull{Refuse, Evict}[seed%2]}
			w.open()
			defer func() { w.must(w.q.Close()) }()
			w.must(w.q.NewSession(context.Background(), walkSession, epoch))
			for i := range steps {
				w.step()
				if t.Failed() {
					t.FailNow()
				}
				if i%20 == 0 {
					clean(t, w.q)
				}
			}
			clean(t, w.q)
		})
	}
}

// FuzzItem: any bytes are an item or an error, and an item is the bytes.
func FuzzItem(f *testing.F) {
	full := Item{Model: "m", Label: "l", Version: 3, Lane: "a", Key: "k", Session: "s", Ref: "r", Error: "e", State: Done, random: 7, Submitted: epoch, payload: body{1, 2, 3, true}}
	f.Add(appendItem(nil, &full, 1))
	f.Add(appendItem(nil, &Item{State: Queued}, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		it, model, err := parseItem(b, 9)
		if err != nil {
			return
		}
		again, m, err := parseItem(appendItem(nil, &it, model), 9)
		if err != nil || m != model || again != it {
			t.Fatalf("%+v\n%+v %v", it, again, err)
		}
	})
}

// FuzzID: an id is read only in the form that it is written.
func FuzzID(f *testing.F) {
	f.Add(makeID(1, 2))
	f.Add("0000000000000001-000000000000000G")
	f.Fuzz(func(t *testing.T, s string) {
		if seq, random, err := parseID(s); err == nil && makeID(seq, random) != s {
			t.Fatal(s)
		}
	})
}
