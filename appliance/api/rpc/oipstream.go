// oipstream.go: ModelStreamInfer: many requests in flight on one stream, answered as they are done.
package rpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

const (
	// DefaultStreamRequests is how many requests of one stream may be without an answer unless configured.
	DefaultStreamRequests = 128

	// spareServers is how many goroutines of a stream wait for their turn to read; others end, for a stream may be silent for long.
	spareServers = 8
)

// inferStream is one ModelStreamInfer. Its requests are served by goroutines that take turns in reading: whoever has read a request, and has asked
// for its place, leaves reading to the next and serves it. There are never more of them than requests may be without an answer, and one whose answer
// the client does not take reads nothing: so a client that does not read is soon not read from.
type inferStream struct {
	s      *server
	stream grpc.ServerStream
	ctx    context.Context
	cancel context.CancelFunc
	stuck  *time.Timer   // ends the stream when an answer is not taken; nil: never
	done   chan struct{} // closed when nobody serves and nothing more is read
	quiet  chan struct{} // has one when every request has its answer, while closing

	servers atomic.Int32
	waiting atomic.Int32 // servers that wait for their turn to read, or have it
	flying  atomic.Int32 // requests that were read and have no answer
	closing atomic.Bool  // nothing more is to be read

	writing sync.Mutex
	reading sync.Mutex
	over    bool  // guarded by reading; there is nothing more to read
	failed  error // guarded by reading; why that is, nil when the client has sent all
}

func (s *server) modelStreamInfer(_ any, stream grpc.ServerStream) error {
	waitOf(stream.Context()).arrived() // a stream may be silent for as long as its client likes
	start := time.Now()
	err := s.serveStream(stream)
	if err == nil {
		return nil
	}
	e := asError(err)
	s.svc.Observe(api.Observation{Protocol: inferenceProtocol, Method: "stream", Code: e.Code, Reason: e.Reason, Took: time.Since(start)})
	return wireStatus(e)
}

// serveStream returns when the stream is to end. Those who still serve then find that they need not, for grpc and st.ctx let them go.
func (s *server) serveStream(stream grpc.ServerStream) error {
	st := &inferStream{s: s, stream: stream, done: make(chan struct{}), quiet: make(chan struct{}, 1)}
	st.ctx, st.cancel = context.WithCancel(stream.Context())
	defer st.cancel()
	late := make(chan struct{})
	if s.opts.SlowTimeout > 0 {
		st.stuck = time.AfterFunc(s.opts.SlowTimeout, sync.OnceFunc(func() { close(late) }))
		st.stuck.Stop()
	}
	st.servers.Store(1)
	go st.serve()
	slow := func() error {
		return inference.Errorf(inference.ResourceExhausted, inference.ReasonDeadline,
			"an answer was not taken for %v (limits.slow_timeout), and the stream was ended; take answers while you send requests", s.opts.SlowTimeout)
	}
	select {
	case <-st.done:
		return st.failed
	case <-late:
		return slow()
	case <-s.opts.Draining:
	}
	if st.closing.Store(true); st.flying.Load() > 0 { // what was read is answered; the client, who may be silent, is not waited for
		select {
		case <-st.quiet:
		case <-st.done:
			return st.failed
		case <-late:
			return slow()
		}
	}
	return &inference.Error{Code: inference.Unavailable, Reason: inference.ReasonDraining, RetryAfter: time.Second,
		Msg: "inferd is stopping; send the requests that have no answer again in a moment, or to another one"}
}

// serve answers requests until there are no more, or enough others wait for them.
func (st *inferStream) serve() {
	defer func() {
		if st.servers.Add(-1) == 0 {
			close(st.done)
		}
	}()
	for {
		in := inferCall{s: st.s, ctx: st.ctx, req: new(inferRequest)}
		if !st.read(&in) {
			return
		}
		answer, err := st.s.observed(inferenceProtocol, "predict", func(o *api.Observation) (any, error) { return in.answer(o, true) })
		if err != nil {
			answer = encodeFailure(st.s.pool, status.Convert(err).Message(), in.req.id)
		}
		in.forget()
		st.send(answer)
		in.leave()
		if st.flying.Add(-1) == 0 && st.closing.Load() {
			select {
			case st.quiet <- struct{}{}:
			default:
			}
		}
	}
}

// read waits for its turn, reads one request and asks for its place. It reports false when the server is not needed any more.
func (st *inferStream) read(in *inferCall) (ok bool) {
	for {
		n := st.waiting.Load()
		if n >= spareServers {
			return false
		}
		if st.waiting.CompareAndSwap(n, n+1) {
			break
		}
	}
	defer st.waiting.Add(-1)
	st.reading.Lock()
	defer st.reading.Unlock()
	defer func() {
		if p := recover(); p != nil {
			st.over, st.failed = true, st.s.broke(p, in.spec.Model, 0)
			ok = false
		}
	}()
	if st.over || st.closing.Load() {
		return false
	}
	if err := st.stream.RecvMsg(in.req); err != nil {
		if st.over = true; !errors.Is(err, io.EOF) {
			st.failed = err
			st.cancel() // grpc has ended the stream
		}
		return false
	}
	st.flying.Add(1)
	in.begin()
	if st.waiting.Load() == 1 && int(st.servers.Load()) < st.s.opts.StreamRequests { // there is nobody else
		st.servers.Add(1)
		go st.serve()
	}
	return true
}

// send waits until grpc has room for the answer. When the stream has ended, whoever ended it has said why.
func (st *inferStream) send(answer any) {
	st.writing.Lock()
	defer st.writing.Unlock()
	if st.stuck != nil {
		st.stuck.Reset(st.s.opts.SlowTimeout)
		defer st.stuck.Stop()
	}
	_ = st.stream.SendMsg(answer)
}
