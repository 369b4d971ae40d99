// queue_child_test.go: a process that uses a queue from many goroutines and says what it does, until it is killed.
package storage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const envChild = "STORAGE_CHILD"

// orders are what a child is told, as JSON in envChild.
type orders struct {
	Path    string
	Events  string        // the file that takes its account of itself; empty: standard output
	Seed    uint64        // of everything that it chooses
	Steps   int           // things that each client does; 0: for ever
	Point   string        // kill yourself at this point
	Nth     int           // the n-th time
	After   time.Duration // or after this time
	Again   []string      // keys whose submission was not answered
	Session string        // to go on with
	// Leave compaction out: it puts a file of its own in place.
	NoCompact bool
	Lines     bool // do what standard input says instead, a command a line
}

// events come as lines: "+ N what KEY ..." when something is begun, "= N ..." when it is on disk, "! N unsure" when nobody knows, "! N no"
// when it was refused. "= 0 ..." says what was seen.
type child struct {
	orders
	q   *Queue
	out io.Writer

	mu    sync.Mutex
	ids   map[string]string // guarded by mu: of keys that are live or have ended
	ended []string          // guarded by mu: keys that may be deleted or tried again
	// guarded by mu: those to be deleted only, for one that was cancelled while it ran may be running yet
	cancelled []string
	num       atomic.Int64
	keys      atomic.Int64
}

// beChild is a child's main program. It returns where this process is none.
func beChild() {
	var c child
	if text := os.Getenv(envChild); text == "" {
		return
	} else if err := json.Unmarshal([]byte(text), &c.orders); err != nil {
		panic(err)
	}
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // it comes at once
}

func (c *child) run() (err error) {
	c.out = os.Stdout
	if c.Events != "" {
		f, err := os.OpenFile(c.Events, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		c.out = f
	}
	var met atomic.Int64
	step := func(point string) {
		if point == c.Point && met.Add(1) == int64(c.Nth) {
			die()
		}
	}
	if c.q, err = OpenQueue(c.Path, QueueOptions{Step: step}); err != nil {
		return err
	}
	if c.Lines {
		return errors.Join(c.obey(os.Stdin), c.q.Close())
	}
	if c.After > 0 {
		time.AfterFunc(c.After, die)
	}
	c.ids = make(map[string]string)
	all, err := c.q.List(Filter{Limit: 1 << 20})
	if err != nil {
		return err
	}
	for _, it := range all {
		c.ids[it.Key] = it.ID
		if it.State.Final() {
			c.ended = append(c.ended, it.Key)
		}
	}
	for _, key := range c.Again {
		c.append(key)
	}
	var clients, workers sync.WaitGroup
	var stop atomic.Bool
	for i := range 2 {
		workers.Go(func() { c.work(c.rand(100+i), &stop) })
	}
	workers.Go(func() { c.follow(c.rand(200), &stop) })
	for i := range 6 {
		clients.Go(func() { c.client(c.rand(i)) })
	}
	clients.Wait()
	stop.Store(true)
	workers.Wait()
	return c.q.Close()
}

func (c *child) rand(i int) *rand.Rand { return rand.New(rand.NewPCG(c.Seed, uint64(i))) }

// say writes one line in one write, so that lines stay whole and in order.
func (c *child) say(format string, args ...any) {
	if _, err := fmt.Fprintf(c.out, format+"\n", args...); err != nil {
		panic(err)
	}
}

// try says what is begun and how it went.
func (c *child) try(what string, f func() (string, error)) bool {
	n := c.num.Add(1)
	c.say("+ %d %s", n, what)
	told, err := f()
	switch {
	case err == nil:
		c.say("= %d %s # %s", n, told, what)
	case errors.Is(err, ErrNotStored):
		c.say("! %d unsure %v", n, err)
	default:
		c.say("! %d no %v", n, err)
	}
	return err == nil
}

// keyOf makes the parts of a job from its key: "SEED-NUMBER-LANE-SESSION"; lane and session may be empty.
func jobOf(key string) Item {
	parts := strings.SplitN(key, "-", 4)
	it := job("a")
	if keySum(key)%3 == 0 {
		it.Model = "b"
	}
	it.Key, it.Class = key, uint8(keySum(key)%4)
	it.Lane, it.Session, it.Ref = parts[2], parts[3], parts[1]
	it.Digest[0] = byte(keySum(key))
	return it
}

func keySum(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}

// payloadOf is told by the key: mostly a few hundred bytes, now and then a few chunks or many, some of which pack well.
func payloadOf(key string) []byte {
	r := rand.New(rand.NewPCG(keySum(key), 1))
	size := r.IntN(1200)
	switch r.IntN(20) {
	case 0:
		size = r.IntN(100_000)
	case 1:
		size = 0
	}
	b := make([]byte, size)
	same := r.IntN(2) == 0
	for i := range b {
		if b[i] = byte(r.Uint32()); same {
			b[i] = "ab"[i%2]
		}
	}
	return append([]byte(key+"\n"), b...)
}

// resultOf is told by the key and the run.
func resultOf(key, run string) []byte {
	return append([]byte(key+" "+run+"\n"), payloadOf(run+key)...)
}

func (c *child) append(key string) {
	c.try("append "+key, func() (string, error) {
		it, _, err := c.q.Append(context.Background(), jobOf(key), payloadOf(key))
		if err == nil {
			c.mu.Lock()
			c.ids[key] = it.ID
			c.mu.Unlock()
		}
		return it.ID, err
	})
}

// pick takes a key from the list; empty: there is none.
func (c *child) pick(r *rand.Rand, from *[]string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := *from
	if len(list) == 0 {
		return ""
	}
	i := r.IntN(len(list))
	key := list[i]
	*from = append(list[:i], list[i+1:]...)
	return key
}

func (c *child) over(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = append(c.ended, key)
}

func (c *child) id(key string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ids[key]
}

func (c *child) client(r *rand.Rand) {
	ctx := context.Background()
	last := ""
	for i := 0; c.Steps == 0 || i < c.Steps; i++ {
		s := c.q.Stats()
		chance := r.IntN(100)
		if s.Queued > 60 || s.Finished > 60 {
			chance = 60 + r.IntN(40)
		}
		switch {
		case chance < 60:
			lane := ""
			if r.IntN(4) == 0 {
				lane = "lane" + strconv.Itoa(r.IntN(3))
			}
			session := ""
			if r.IntN(3) == 0 {
				session = c.session()
			}
			last = fmt.Sprintf("%d-%d-%s-%s", c.Seed, c.keys.Add(1), lane, session)
			c.append(last)
			if r.IntN(10) == 0 && session == "" {
				c.mu.Lock()
				id := c.ids[last]
				c.mu.Unlock()
				again, existed, err := c.q.Append(ctx, jobOf(last), payloadOf(last))
				if err == nil && existed && again.ID != id {
					c.say("# %s was submitted twice and is %s and %s", last, id, again.ID)
				}
			}
		case chance < 62 && last != "":
			if id := c.id(last); id != "" {
				if c.try("cancel "+last, func() (string, error) {
					it, err := c.q.Cancel(ctx, id, epoch)
					return strconv.FormatUint(it.Out, 10), err
				}) {
					c.mu.Lock()
					c.cancelled = append(c.cancelled, last)
					c.mu.Unlock()
				}
			}
		case chance < 70:
			if key := c.pick(r, &c.ended); key != "" {
				c.try("retry "+key, func() (string, error) {
					it, err := c.q.Retry(ctx, c.id(key))
					return it.ID, err
				})
			}
		case chance < 98:
			from := &c.ended
			if r.IntN(4) == 0 {
				from = &c.cancelled
			}
			if key := c.pick(r, from); key != "" && key != last {
				c.try("delete "+key, func() (string, error) { return "", c.q.Delete(ctx, c.id(key)) })
			}
		case !c.NoCompact && r.IntN(5) == 0:
			if _, _, err := c.q.Compact(ctx, nil); err != nil && !errors.Is(err, ErrNotStored) && !errors.Is(err, ErrDegraded) {
				c.say("# compact: %v", err)
			}
		}
	}
}

// work runs jobs: most end well.
func (c *child) work(r *rand.Rand, stop *atomic.Bool) {
	ctx := context.Background()
	for runs := 0; !stop.Load(); {
		began := c.num.Add(1)
		c.say("+ %d lease", began)
		leases, err := c.q.Lease(ctx, []string{"a", "b"}[r.IntN(2)], 1+r.IntN(4), 1<<20, time.Time{})
		if err != nil || len(leases) == 0 {
			select {
			case <-c.q.Wake():
			case <-time.After(time.Millisecond):
			}
			continue
		}
		for _, l := range leases {
			runs++
			run := fmt.Sprintf("%d.%d", c.Seed, c.num.Add(1))
			c.say("= 0 lease %s %s %d", l.Key, l.ID, began)
			if string(l.Payload) != string(payloadOf(l.Key)) {
				c.say("# job %s has another payload than was submitted", l.Key)
			}
			o := Outcome{Lease: l.Number, State: Done, Result: resultOf(l.Key, run), At: epoch}
			switch r.IntN(12) {
			case 0:
				o = Outcome{Lease: l.Number, State: Failed, Error: "f", At: epoch}
			case 1:
				o = Outcome{Lease: l.Number, State: Dead, Error: "d", At: epoch}
			case 2:
				o = Outcome{}
			}
			if o.State == 0 {
				c.try("release "+l.Key, func() (string, error) {
					it, err := c.q.Release(ctx, l.ID, Back{Lease: l.Number, Attempt: true, Delay: time.Duration(r.IntN(2)) * time.Millisecond})
					return strconv.Itoa(it.Attempts), err
				})
				continue
			}
			if c.try(fmt.Sprintf("finish %s %s %s", l.Key, o.State, run), func() (string, error) {
				it, err := c.q.Finish(ctx, l.ID, o)
				return strconv.FormatUint(it.Out, 10), err
			}) {
				c.over(l.Key)
			}
		}
	}
}

func (c *child) session() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Session
}

// follow reads the session's outbox and acknowledges some of it.
func (c *child) follow(r *rand.Rand, stop *atomic.Bool) {
	ctx := context.Background()
	for !stop.Load() {
		session := c.session()
		if session == "" {
			id := fmt.Sprintf("%032x", c.Seed)
			if err := c.q.NewSession(ctx, id, epoch); err == nil {
				c.say("= 0 session %s", id)
				c.mu.Lock()
				c.Session = id
				c.mu.Unlock()
			}
			continue
		}
		began := c.num.Add(1)
		c.say("+ %d outbox", began)
		arrived, done := c.q.Changed(ArrivedKey(session))
		sent, err := c.q.Outbox(session, 0, 8, 1<<20)
		if err != nil {
			c.say("# outbox: %v", err)
		}
		if len(sent) == 0 {
			select {
			case <-arrived:
			case <-time.After(time.Millisecond):
			}
		}
		done()
		through := uint64(0)
		for _, s := range sent {
			if s.Out <= through {
				c.say("# outbox of %s gives result %d after %d", session, s.Out, through)
			}
			through = s.Out
			run := "-"
			if s.State == Done {
				run = runOf(s.Key, s.Result)
			}
			c.say("= 0 saw %s %s %d %s %d", s.Key, s.State, s.Out, run, began)
		}
		if through > 0 && r.IntN(3) == 0 {
			c.try(fmt.Sprintf("ack %s %d", session, through), func() (string, error) { return "", c.q.Ack(ctx, session, through) })
		}
	}
}

// runOf is the run whose result this is; "damaged" where it is none of the key.
func runOf(key string, result []byte) string {
	line, _, _ := strings.Cut(string(result), "\n")
	k, run, _ := strings.Cut(line, " ")
	if k != key || string(result) != string(resultOf(key, run)) {
		return "damaged"
	}
	return run
}

// obey does what the lines say and answers each with one: "ok ..." or "no ...".
func (c *child) obey(in io.Reader) error {
	ids := make(map[string]string)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		f := strings.Fields(lines.Text())
		told, err := c.command(f[0], strings.Join(f[1:], " "), ids)
		if err != nil {
			c.say("no %v", err)
		} else {
			c.say("ok %s", told)
		}
	}
	return nil
}

func (c *child) command(what, key string, ids map[string]string) (string, error) {
	ctx := context.Background()
	switch what {
	case "append":
		it, _, err := c.q.Append(ctx, jobOf(key), payloadOf(key))
		if err == nil {
			ids[key] = it.ID
		}
		return it.ID, err
	case "lease": // and finish: everything of the model
		l, err := c.q.Lease(ctx, key, 1000, 1<<30, time.Time{})
		for i := 0; i < len(l) && err == nil; i++ {
			_, err = c.q.Finish(ctx, l[i].ID, Outcome{State: Done, Result: resultOf(l[i].Key, "r"), At: epoch})
		}
		return strconv.Itoa(len(l)), err
	case "get":
		it, err := c.q.Get(ids[key])
		return it.State.String(), err
	case "payload":
		b, _, err := c.q.Payload(ids[key])
		return strconv.FormatBool(string(b) == string(payloadOf(key))), err
	case "delete":
		return "", c.q.Delete(ctx, ids[key])
	case "check":
		r, err := c.q.Check(ctx)
		if err == nil && len(r.Faults) > 0 {
			err = errors.New(strings.Join(r.Faults, "; "))
		}
		return strconv.Itoa(r.Jobs), err
	case "keys":
		all, err := c.q.List(Filter{Limit: 1 << 20})
		keys := ""
		for _, it := range all {
			keys += " " + it.Key
		}
		return keys, err
	case "heal":
		return "", waitHealed(ctx, c.q)
	case "stats":
		return fmt.Sprintf("degraded=%t damaged=%q", c.q.Degraded(), c.q.Damaged()), nil
	}
	return "", fmt.Errorf("no command %q", what)
}

// waitHealed waits until the queue takes jobs again; it tries its disk every few seconds.
func waitHealed(ctx context.Context, q *Queue) error {
	for end := time.Now().Add(time.Minute); q.Degraded(); time.Sleep(5 * time.Millisecond) { // nothing tells
		if time.Now().After(end) || ctx.Err() != nil {
			return errors.New("it is degraded still")
		}
	}
	return nil
}
