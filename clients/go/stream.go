// stream.go: a stream as its user sees it: Send, Recv, Ack, Cancel, CloseSend, Close.
package inferd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"
)

// StreamOptions of Client.Stream. The zero value is good.
type StreamOptions struct {
	Session Session       // to go on with; zero: a new one
	Buffer  int           // results that may wait for Recv before Send waits too, 256 when zero
	Waiting int           // DropOldest requests that wait for a credit, 1 when zero: only the newest
	Ping    time.Duration // how often the connection is tried, 10 s when zero; three times that without a sign ends it
	Log     *slog.Logger  // told of lost and new connections; nil discards
}

// Stats counts what a stream did.
type Stats struct {
	Sent        int  // requests that went out, the first time
	Answered    int  // results without an error
	Refused     int  // results with one, ErrDropped and ErrLost apart
	Dropped     int  // ErrDropped
	Lost        int  // ErrLost
	Again       int  // requests that went out once more
	Resumed     int  // results that came after their connection was lost, or of an earlier process
	Twice       int  // results that came again and were not passed on
	Connections int  // made
	Connected   bool // at the moment
}

// ErrClosed is what a closed stream's methods say.
var ErrClosed = errors.New("inferd: the stream is closed")

// Stream is many predictions over one connection that comes back by itself. One goroutine owns the connection; Close ends it.
type Stream struct {
	c       *Client
	o       StreamOptions
	stop    context.CancelFunc
	stopped chan struct{}

	mu       sync.Mutex
	changed  chan struct{} // closed, and replaced, when anything below changes
	session  string
	durable  bool   // the session is worth resuming
	acked    uint64 // by the user
	received uint64 // the last result that Recv passed on or will
	seen     uint64 // the last result that this connection has brought, or begins after
	next     uint64 // number of the next id
	serial   uint64 // of the next call
	open     map[uint64]struct{}
	calls    map[string]*call // not answered yet, by id
	unacked  []unacked        // answered, not acknowledged; by seq
	queue    []*call          // of those, what is to be sent, in this order
	waiting  int              // of those, DropOldest
	cancels  []string
	results  []Result
	online   bool
	credits  int
	maxFrame int64
	ended    bool // CloseSend
	closed   bool
	err      error // why nothing goes any more
	stats    Stats
}

// call is one request that was not answered yet.
type call struct {
	req      Request
	serial   uint64 // in the order of Send
	name     string // of its values
	values   []byte
	began    time.Time
	tries    int  // how often it went out
	out      bool // it is at the appliance, as far as is known
	accepted bool // and on its disk
	job      string
	old      bool // its connection was lost
}

type unacked struct {
	seq uint64
	id  string
}

// Stream opens a stream. It returns at once; Send waits for the connection. It ends with Close.
func (c *Client) Stream(o StreamOptions) *Stream {
	o.Buffer, o.Waiting = cmp.Or(max(o.Buffer, 0), 256), cmp.Or(max(o.Waiting, 0), 1)
	o.Ping = cmp.Or(max(o.Ping, 0), 10*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Stream{c: c, o: o, stop: stop, stopped: make(chan struct{}), changed: make(chan struct{}), open: make(map[uint64]struct{}), calls: make(map[string]*call)}
	s.restore(o.Session)
	go s.run(ctx)
	return s
}

// wake tells everybody who waits that something changed. mu is held.
func (s *Stream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait gives the lock up until something changes or ctx ends. mu is held, before and after.
func (s *Stream) wait(ctx context.Context) error {
	changed := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// add makes c one of the calls. mu is held, or s not shared yet.
func (s *Stream) add(c *call) {
	c.serial = s.serial
	s.serial++
	s.calls[c.req.ID] = c
}

// inOrder is every call in the order of Send. mu is held.
func (s *Stream) inOrder() []*call {
	all := make([]*call, 0, len(s.calls))
	for _, c := range s.calls {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *call) int { return cmp.Compare(a.serial, b.serial) })
	return all
}

// Send hands a request over and returns once it has a credit, which is when the appliance is ready for it: the back-pressure of the stream. It also
// waits while the connection is away and while too many results wait for Recv, so call Recv from another goroutine. With DropOldest it does not
// wait for credit. An error means that it was not sent and will not be; what happens later is Recv's to tell. The request's values are read only during the call.
// A durable request whose id is a number that the Session knows as accepted is passed over: a source that is read again from its beginning goes on where it was.
func (s *Stream) Send(ctx context.Context, r Request) error {
	if err := r.check(); err != nil {
		return err
	}
	c := &call{req: r, began: time.Now()}
	var err error
	if c.name, c.values, err = r.values(); err != nil {
		return err
	}
	c.req.Instances, c.req.Inputs, c.req.Media = nil, nil, nil
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.closed || s.ended:
			return ErrClosed
		case s.err != nil:
			return s.err
		case s.maxFrame > 0 && int64(len(c.values)) > s.maxFrame:
			return tooLarge(len(c.values), s.maxFrame)
		}
		if len(s.results) < s.o.Buffer && (r.DropOldest || s.online && s.credits > len(s.queue)) {
			break
		}
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
	if c.req.ID == "" {
		c.req.ID = strconv.FormatUint(s.next, 10)
	}
	if n, ok := number(c.req.ID); ok && r.Durable && n < s.next {
		if _, open := s.open[n]; !open {
			return nil // the appliance has it
		}
	}
	if _, twice := s.calls[c.req.ID]; twice {
		return fmt.Errorf("inferd: the id %.40q is in flight already", c.req.ID)
	}
	if n, ok := number(c.req.ID); ok {
		s.next = max(s.next, n+1)
		s.open[n] = struct{}{}
	}
	if r.DropOldest {
		s.makeWay()
	}
	s.durable = s.durable || r.Durable
	s.add(c)
	s.push(c)
	s.wake()
	return nil
}

func tooLarge(size int, limit int64) error {
	return fmt.Errorf("inferd: a request of %d bytes is over the appliance's limit of %d (stream.max_frame)", size, limit)
}

// push puts c into the queue. mu is held.
func (s *Stream) push(c *call) {
	s.queue = append(s.queue, c)
	if c.req.DropOldest {
		s.waiting++
	}
}

// take removes the i-th of the queue. mu is held.
func (s *Stream) take(i int) *call {
	c := s.queue[i]
	s.queue = slices.Delete(s.queue, i, i+1)
	if c.req.DropOldest {
		s.waiting--
	}
	return c
}

// makeWay drops what has waited the longest until one more may wait. What there is credit for does not wait. mu is held.
func (s *Stream) makeWay() {
	for free := max(0, s.credits-(len(s.queue)-s.waiting)); s.waiting >= s.o.Waiting+free; {
		i := slices.IndexFunc(s.queue, func(c *call) bool { return c.req.DropOldest })
		s.answer(s.take(i), Result{Err: ErrDropped})
	}
}

// answer ends c with r. mu is held.
func (s *Stream) answer(c *call, r Result) {
	r.ID, r.Job = c.req.ID, c.job
	if !c.began.IsZero() {
		r.Took = time.Since(c.began)
	}
	delete(s.calls, c.req.ID)
	s.deliver(r)
}

// deliver hands r to Recv. mu is held.
func (s *Stream) deliver(r Result) {
	if n, ok := number(r.ID); ok {
		delete(s.open, n)
	}
	switch {
	case r.Err == nil:
		s.stats.Answered++
	case errors.Is(r.Err, ErrDropped):
		s.stats.Dropped++
	case errors.Is(r.Err, ErrLost):
		s.stats.Lost++
	default:
		s.stats.Refused++
	}
	s.results = append(s.results, r)
	s.wake()
}

// Recv returns the next result, io.EOF after CloseSend once everything was answered, or why the stream ended. Results of durable requests come in the order
// of Seq; give each to Ack when it is kept.
func (s *Stream) Recv(ctx context.Context) (Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case len(s.results) > 0:
			r := s.results[0]
			s.results[0] = Result{}
			s.results = s.results[1:]
			s.wake()
			return r, nil
		case s.closed:
			return Result{}, ErrClosed
		case s.ended && len(s.calls) == 0:
			return Result{}, io.EOF
		case s.err != nil:
			return Result{}, s.err
		}
		if err := s.wait(ctx); err != nil {
			return Result{}, err
		}
	}
}

// Ack lets the appliance forget r and every durable result before it. It returns at once. A result that is not acknowledged comes again in the next
// process that goes on with the session. For other results it does nothing.
func (s *Stream) Ack(r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Seq <= s.acked || r.Seq > s.received {
		return
	}
	s.acked = r.Seq
	s.unacked = slices.DeleteFunc(s.unacked, func(u unacked) bool { return u.seq <= r.Seq })
	s.wake()
}

// AckKept keeps what the session will be once r is acknowledged, and then acknowledges r: the order that loses nothing and passes nothing on twice. When keep
// fails nothing is acknowledged.
func (s *Stream) AckKept(r Result, keep func(Session) error) error {
	kept := s.Session()
	if r.Seq > kept.Acked {
		s.mu.Lock()
		done := make(map[string]bool)
		for _, u := range s.unacked {
			done[u.id] = u.seq <= r.Seq
		}
		s.mu.Unlock()
		kept.Acked = r.Seq
		kept.Waiting = slices.DeleteFunc(kept.Waiting, func(id string) bool { return done[id] })
	}
	if err := keep(kept); err != nil {
		return err
	}
	s.Ack(r)
	return nil
}

// Err is why the stream has ended, nil while it goes on.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Cancel asks for the request to be given up. Its result says whether it came in time.
func (s *Stream) Cancel(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls[id]
	if c == nil {
		return
	}
	if i := slices.Index(s.queue, c); i >= 0 && c.tries == 0 {
		s.answer(s.take(i), Result{Err: &Error{Code: "CANCELLED", Message: "cancelled before it was sent"}})
		return
	}
	s.cancels = append(s.cancels, id)
	s.wake()
}

// CloseSend says that nothing more will be sent. Recv goes on until everything was answered, then says io.EOF.
func (s *Stream) CloseSend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.wake()
}

// Close sends the last acknowledgement, if there is a connection, and ends the stream. What was accepted stays with the appliance for the session's next
// process. It is idempotent.
func (s *Stream) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.wake()
	s.mu.Unlock()
	if first {
		s.stop()
	}
	<-s.stopped
	return nil
}

// Stats is what the stream did until now.
func (s *Stream) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Connected = s.online
	return st
}
