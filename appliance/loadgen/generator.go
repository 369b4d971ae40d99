// generator.go: the generator: what it sends, made ready before the clock starts.
package loadgen

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/inferd/inferd/inference"
)

// caller sends requests, one at a time. Another protocol is another caller.
type caller interface {
	// call sends request number n as the client and waits for what becomes of it.
	call(n int64, client int) outcome
	// abort ends a call that is under way, and all later ones. Any goroutine may call it.
	abort()
}

// Generator puts load on one target. Its methods are for one goroutine.
type Generator struct {
	target Target
	opts   Options
	tls    *tls.Config // nil: plain

	body   int // bytes
	made   bool
	bodies []httpRequest      // REST
	wires  [][]byte           // gRPC
	conns  []*grpc.ClientConn // gRPC, by client
	opened atomic.Int64
	idle   []*worker // between steps: their connections are kept
}

// variants is how many different requests take turns, and maxBodies how many bytes they may have together.
const (
	variants  = 8
	maxBodies = 16 << 20
)

// New asks the target what the model takes and makes the requests. It sends one of them, so that a request which the model cannot take is an
// error and no load. Close ends the connections.
func New(ctx context.Context, t Target, o Options) (*Generator, error) {
	g := &Generator{target: t, opts: o}
	if err := g.opts.fill(t); err != nil {
		return nil, err
	}
	var err error
	if g.tls, err = g.opts.tlsConfig(t); err != nil {
		return nil, err
	}
	prepare := g.prepareREST
	if t.Protocol == GRPC {
		prepare = g.prepareGRPC
	}
	if err := prepare(ctx); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// Close ends all connections.
func (g *Generator) Close() {
	for _, w := range g.idle {
		w.caller.abort()
		close(w.work)
	}
	g.idle = nil
	for _, c := range g.conns {
		_ = c.Close() // it is not used any more
	}
}

// makeBodies calls encode for as many different inputs as are to be sent.
func (g *Generator) makeBodies(infos []inference.TensorInfo, encode func(named) ([]byte, error)) (bodies [][]byte, err error) {
	g.made = true
	random := rand.New(rand.NewPCG(g.opts.Seed, 2))
	for total := 0; len(bodies) < variants && (len(bodies) == 0 || total+len(bodies[0]) <= maxBodies); {
		in, err := makeUp(random, infos, g.opts.Rows)
		if err != nil {
			return nil, err
		}
		b, err := encode(in)
		if err != nil {
			return nil, err
		}
		bodies, total = append(bodies, b), total+len(b)
	}
	return bodies, nil
}

func (g *Generator) prepareREST(ctx context.Context) error {
	bodies := [][]byte{g.opts.Input}
	if g.opts.Input == nil {
		infos, err := g.signatureOverREST(ctx)
		if err != nil {
			return err
		}
		if bodies, err = g.makeBodies(infos, func(in named) ([]byte, error) { return encodeREST(in, infos, g.opts.Signature) }); err != nil {
			return fmt.Errorf("model %s: %w", g.target.Model, err)
		}
	}
	g.body = len(bodies[0])
	status, answer, err := g.ask(ctx, http.MethodPost, g.target.path()+":predict", bodies[0])
	switch {
	case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF):
		// Someone answers, and refuses a large body in a way that net/http's client cannot read: the load will tell.
	case err != nil:
		return err
	case status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout:
		return fmt.Errorf("model %s at %s does not take the request: %s%s", g.target.Model, g.target.Address, httpSays(status, answer), g.hint())
	}
	for _, b := range bodies {
		g.bodies = append(g.bodies, g.wire(b))
	}
	return nil
}

// hint is what to do when the target refuses what was made up.
func (g *Generator) hint() string {
	if !g.made {
		return ""
	}
	return "; its inputs were made up, --input gives a request of yours"
}

// wire is the request with its head, head and body in one piece.
func (g *Generator) wire(body []byte) httpRequest {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s:predict HTTP/1.1\r\nHost: %s\r\nUser-Agent: inferd-bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", g.target.path(), g.target.Address, len(body))
	if g.opts.Deadline > 0 {
		fmt.Fprintf(&b, "Request-Timeout: %s\r\n", seconds(g.opts.Deadline))
	}
	if g.opts.Priority != "" {
		fmt.Fprintf(&b, "X-Inferd-Priority: %s\r\n", g.opts.Priority)
	}
	if g.opts.Token != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", g.opts.Token)
	}
	if g.opts.ExpectContinue {
		b.WriteString("Expect: 100-continue\r\n")
	}
	b.WriteString("\r\n")
	head := b.Len()
	b.Write(body)
	whole := b.Bytes()
	return httpRequest{head: whole[:head], body: whole[head:]}
}

func (g *Generator) prepareGRPC(ctx context.Context) error {
	for i := range g.opts.Clients {
		conn, err := dialGRPC(g.target.Address, g.tls, g.source(i), &g.opened)
		if err != nil {
			return err
		}
		g.conns = append(g.conns, conn)
	}
	ctx, cancel := g.within(ctx)
	defer cancel()
	infos, err := signatureOverGRPC(shown(ctx, g.opts.Token), g.conns[0], g.target, g.opts.Signature)
	if err != nil {
		return err
	}
	encode := func(in named) ([]byte, error) { return encodeGRPC(in, g.target, g.opts.Signature) }
	if g.opts.Input == nil {
		if g.wires, err = g.makeBodies(infos, encode); err != nil {
			return fmt.Errorf("model %s: %w", g.target.Model, err)
		}
	} else {
		in, err := parseInput(g.opts.Input, infos)
		if err != nil {
			return fmt.Errorf("the input for model %s: %w", g.target.Model, err)
		}
		wire, err := encode(in)
		if err != nil {
			return err
		}
		g.wires = [][]byte{wire}
	}
	g.body = len(g.wires[0])
	var size int
	err = g.conns[0].Invoke(shown(prioritised(ctx, g.opts.Priority), g.opts.Token), predictMethod, g.wires[0], &size, grpc.ForceCodecV2(wireCodec{}))
	if err == nil {
		return nil
	}
	if o := grpcOutcome(err, ctx.Err() != nil); o.kind == failed || o.reason == inference.InvalidArgument.String() || o.reason == inference.NotFound.String() || o.reason == inference.ReasonInput {
		return fmt.Errorf("%w%s", explain(g.target.Address, err), g.hint())
	}
	return nil
}

// source is the address that a client sends from; nil where it does not matter.
func (g *Generator) source(client int) net.Addr {
	switch {
	case g.opts.Clients > 1:
	case g.opts.From != nil:
		return &net.TCPAddr{IP: g.opts.From}
	default:
		return nil
	}
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+client))}
}

func (g *Generator) newCaller(client int) caller {
	if g.target.Protocol == GRPC {
		return newGRPCCaller(g.conns, g.wires, g.opts)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &restCaller{ctx: ctx, cancel: cancel, address: g.target.Address, local: g.source(client), tls: g.tls, timeout: g.opts.Timeout, requests: g.bodies,
		expect: g.opts.ExpectContinue, opened: &g.opened}
}

// Run goes through the steps. When ctx ends it tells what there is, as interrupted.
func (g *Generator) Run(ctx context.Context) (*Result, error) {
	r := &Result{Target: g.target.Address, Model: g.target.Model, Protocol: g.target.Protocol, TLS: g.tls != nil, Time: time.Now().UTC(), Arrivals: g.opts.Arrivals,
		Deadline: float64(g.opts.Deadline.Microseconds()) / 1000, BodyBytes: g.body, Clients: g.opts.Clients, InFlight: g.opts.InFlight, Steps: []Step{}}
	if g.made {
		r.Rows = g.opts.Rows
	}
	if len(g.opts.Rates) == 0 {
		r.Arrivals = closedLoop
		r.Steps = append(r.Steps, g.closedStep(ctx))
	}
	for _, rate := range g.opts.Rates {
		s, err := g.openStep(ctx, rate)
		if err != nil {
			return nil, err
		}
		r.Steps = append(r.Steps, s)
		if ctx.Err() != nil {
			break
		}
	}
	r.Interrupted = ctx.Err() != nil
	return r, nil
}
