// access.go: what is done with a call when its header has come and nothing else: who calls is asked, and a slow message gets its end.
package rpc

import (
	"context"
	"errors"
	"strings"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/inference"
)

// reflectionPrefix begins the methods of a service whose streams stay open as long as their client likes.
const reflectionPrefix = "/grpc.reflection."

// probes need no token: who may ask whether requests should be sent here is not who may send them.
var probes = map[string]bool{healthpb.Health_Check_FullMethodName: true, healthpb.Health_Watch_FullMethodName: true, serverLive: true, serverReady: true}

// tap is called by the connection's reader for each call, before there is a goroutine or memory for it.
func (o Options) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if o.Access != nil && !probes[info.FullMethodName] {
		caller, _ := peer.FromContext(ctx) // grpc's own server has put it there
		grant, err := o.Access.GRPC(info.Header["authorization"], caller.Addr, caller.AuthInfo)
		if err != nil {
			return ctx, wireStatus(err)
		}
		ctx = context.WithValue(ctx, grantKey{}, grant)
	}
	if o.BodyTimeout <= 0 || strings.HasPrefix(info.FullMethodName, reflectionPrefix) {
		return ctx, nil
	}
	if at, ok := ctx.Deadline(); ok && time.Until(at) <= o.BodyTimeout {
		return ctx, nil // grpc ends it by then
	}
	return o.patiently(ctx), nil
}

type grantKey struct{}

// grantOf is what the caller may do; nil where nobody is asked.
func grantOf(ctx context.Context) *access.Grant {
	g, _ := ctx.Value(grantKey{}).(*access.Grant)
	return g
}

// may says why the caller may not do what one of the scopes would allow.
func (s *server) may(ctx context.Context, any access.Scope, model string) error {
	if s.opts.Access == nil {
		return nil
	}
	if err := grantOf(ctx).May(any, model); err != nil {
		return err
	}
	return nil
}

// mine says why a job is not the caller's to see.
func (s *server) mine(ctx context.Context, id string) *inference.Error {
	if s.opts.Access == nil {
		return nil
	}
	return s.opts.Jobs.Readable(grantOf(ctx), id)
}

// wait bounds how long a call may take to arrive, and its answer to be taken. A nil *wait bounds nothing.
type wait struct {
	timer *time.Timer
	slow  time.Duration
}

var errSlow = errors.New("the message took longer than limits.body_timeout to arrive, or the answer longer than limits.slow_timeout to be taken")

type waitKey struct{}

// patiently is ctx with an end if the message does not come in time. Only calls without a deadline have it, for it costs some allocations.
func (o Options) patiently(ctx context.Context) context.Context {
	bound, cancel := context.WithCancelCause(ctx)
	w := &wait{slow: o.SlowTimeout}
	w.timer = time.AfterFunc(o.BodyTimeout, func() { cancel(errSlow) })
	context.AfterFunc(ctx, func() { w.timer.Stop() })
	return context.WithValue(bound, waitKey{}, w)
}

// waitOf is the call's, nil when it has none.
func waitOf(ctx context.Context) *wait {
	w, _ := ctx.Value(waitKey{}).(*wait)
	return w
}

// arrived ends the wait for the message.
func (w *wait) arrived() {
	if w != nil {
		w.timer.Stop()
	}
}

// answered begins the wait for the client to take its answer: it is cut off when it takes nothing.
func (w *wait) answered() {
	if w != nil && w.slow > 0 {
		w.timer.Reset(w.slow)
	}
}
