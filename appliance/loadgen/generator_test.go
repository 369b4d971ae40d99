// generator_test.go: the generator against real servers.
package loadgen

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	serving "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestFixedArrivalsAreCountedExactly(t *testing.T) {
	var asked atomic.Int64
	s := restServer(t, func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Inputs map[string][]any }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Inputs["x"]) != 4 || len(body.Inputs["words"]) != 4 {
			t.Errorf("body %v: %v", body, err)
		}
		if r.Header.Get("Request-Timeout") != "30" || r.Header.Get("X-Inferd-Priority") != "batch" {
			t.Errorf("headers %v", r.Header)
		}
		asked.Add(1)
	})
	s.Start()
	r := run(t, restTarget(s), Options{Rates: []float64{100, 200}, Duration: 200 * time.Millisecond, Warmup: 100 * time.Millisecond, Rows: 4, Deadline: 30 * time.Second, Priority: "batch"})
	if a, b := r.Steps[0], r.Steps[1]; a.Offered != 20 || a.Answered != 20 || a.Good != 20 || b.Offered != 40 || b.Answered != 40 || a.Latency.Count != 20 {
		t.Errorf("%+v", r.Steps)
	}
	if got := asked.Load(); got != 1+30+60 { // the trial, and both steps with their warm-ups
		t.Errorf("%d requests came", got)
	}
}

// A server that stalls shows in the latency of all that was due meanwhile, though one connection would have sent nothing in that time.
func TestNoCoordinatedOmission(t *testing.T) {
	var (
		n     atomic.Int64
		stall = make(chan struct{})
	)
	s := restServer(t, func(http.ResponseWriter, *http.Request) {
		if n.Add(1) == 11 {
			time.AfterFunc(time.Second, func() { close(stall) })
			<-stall
		}
	})
	s.Start()
	r := run(t, restTarget(s), Options{Rates: []float64{100}, Duration: 2 * time.Second, InFlight: 1, Deadline: 500 * time.Millisecond})
	got := r.Steps[0]
	// Those due within the stall waited for 1 s, 0.99 s, ... : so a quarter of all waited for half a second and more.
	if got.Latency.P99 < 900 || got.Latency.P90 < 500 || got.Good > 160 || got.Offered != 200 {
		t.Errorf("%+v", got)
	}
	if got.Held == 0 || !got.GeneratorLate || got.LateMost < 900 {
		t.Errorf("it did not say that it was held back: %+v", got)
	}
	if got.Service.Count > 0 && got.Service.P50 > got.Latency.P99 {
		t.Errorf("service times %+v", got.Service)
	}
}

func TestRefusalsByReason(t *testing.T) {
	var n atomic.Int64
	s := restServer(t, func(w http.ResponseWriter, r *http.Request) {
		k := n.Add(1)
		switch k % 4 {
		case 0:
			w.Header().Set("X-Inferd-Reason", "queue_full")
			w.WriteHeader(http.StatusTooManyRequests)
			w.(http.Flusher).Flush() // chunked
			io.WriteString(w, `{"error":"full"}`)
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			if k == 2 {
				return
			}
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	})
	s.Start()
	r := run(t, restTarget(s), Options{Rates: []float64{100}, Duration: 400 * time.Millisecond})
	got := r.Steps[0]
	if got.Offered != 40 || got.RefusedBy["queue_full"] != 10 || got.RefusedBy["HTTP 503"] != 10 || got.FailedBy[FailedReset] != 9 || got.Answered != 11 {
		t.Errorf("%+v", got)
	}
}

// A server that answers a large body before it has read it, and closes: the client reads the answer.
func TestEarlyRefusalOfLargeBody(t *testing.T) {
	for _, expect := range []bool{false, true} {
		var n atomic.Int64
		s := restServer(t, func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1)%2 == 1 {
				io.Copy(io.Discard, r.Body)
				return
			}
			w.Header().Set("X-Inferd-Reason", "memory")
			w.WriteHeader(http.StatusInsufficientStorage)
			w.(http.Flusher).Flush()
			if !expect {
				io.Copy(io.Discard, r.Body)
			}
		})
		s.Start()
		body := []byte(`{"inputs":"` + strings.Repeat("x", 1<<20) + `"}`)
		r := run(t, restTarget(s), Options{Rates: []float64{50}, Duration: 200 * time.Millisecond, Input: body, ExpectContinue: expect})
		got := r.Steps[0]
		if got.RefusedBy["memory"] != 5 || got.Answered != 5 {
			t.Errorf("expect %v: %+v", expect, got)
		}
	}
}

// A server that resets the connection under a large request is measured: that is what its failures are counted for.
func TestResetOfTheFirstRequest(t *testing.T) {
	s := restServer(t, func(w http.ResponseWriter, r *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	})
	s.Start()
	r := run(t, restTarget(s), Options{Rates: []float64{50}, Duration: 200 * time.Millisecond, Input: []byte(strings.Repeat("x", 1<<20))})
	if got := r.Steps[0]; got.FailedBy[FailedReset] != 10 {
		t.Errorf("%+v", got)
	}
}

func TestClosedLoopOverTLSFromSeveralClients(t *testing.T) {
	var (
		mu   sync.Mutex
		from = map[string]int{}
	)
	s := restServer(t, func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		mu.Lock()
		from[host]++
		mu.Unlock()
	})
	s.StartTLS()
	r := run(t, restTarget(s), Options{Callers: 4, Clients: 2, Duration: 200 * time.Millisecond, TLS: true, Insecure: true})
	got := r.Steps[0]
	if got.Callers != 4 || got.Answered == 0 || got.Answered != got.Offered || got.Connections != 4 || got.MostInFlight > 4 || !r.TLS {
		t.Errorf("%+v", got)
	}
	if from["127.0.0.2"] == 0 || from["127.0.0.3"] == 0 {
		t.Errorf("requests came from %v", from)
	}
}

func TestGRPC(t *testing.T) {
	var n atomic.Int64
	target := grpcServer(t, func(ctx context.Context, req *serving.PredictRequest) (*serving.PredictResponse, error) {
		in := req.GetInputs()["x"]
		if md, _ := metadata.FromIncomingContext(ctx); in.GetTensorShape().GetDim()[0].GetSize() != 2 || len(in.GetTensorContent()) != 8 || md.Get("x-inferd-priority")[0] != "interactive" {
			t.Errorf("request %v", req)
		}
		k := n.Add(1)
		switch k % 4 {
		case 2:
			st, err := status.New(codes.ResourceExhausted, "too many").WithDetails(&errdetails.ErrorInfo{Reason: "QUEUE_FULL", Domain: "inferd"})
			if err != nil {
				t.Error(err)
			}
			return nil, st.Err()
		case 3:
			return nil, status.Error(codes.Unavailable, "loading")
		case 0:
			if _, ok := ctx.Deadline(); !ok {
				t.Error("no deadline came")
			}
			if k == 4 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		return &serving.PredictResponse{}, nil
	})
	r := run(t, target, Options{Rates: []float64{100}, Duration: 400 * time.Millisecond, Rows: 2, Deadline: time.Second, Priority: "interactive"})
	got := r.Steps[0]
	if got.Offered != 40 || got.RefusedBy["queue_full"] != 10 || got.RefusedBy["UNAVAILABLE"] != 10 || got.FailedBy[FailedTimeout] != 1 || got.Answered != 19 {
		t.Errorf("%+v", got)
	}
	target.Address = "127.0.0.1:1"
	if _, err := New(t.Context(), target, Options{}); err == nil || !strings.Contains(err.Error(), "nothing answers gRPC at 127.0.0.1:1") {
		t.Errorf("error %v", err)
	}
}

// Ctrl-C: the run ends at once and tells what there is, what is in flight as open.
func TestInterrupted(t *testing.T) {
	block := make(chan struct{})
	var n atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	s := restServer(t, func(_ http.ResponseWriter, r *http.Request) {
		switch k := n.Add(1); {
		case k == 10:
			cancel()
			<-block
		case k > 10:
			<-block
		}
	})
	s.Start()
	t.Cleanup(func() { close(block) })
	g, err := New(t.Context(), restTarget(s), Options{Rates: []float64{100, 200}, Duration: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	r, err := g.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Steps[0]; len(r.Steps) != 1 || !r.Interrupted || got.Answered > 8 || got.Answered+got.Open != got.Sent || got.Open == 0 || got.Seconds > 3000 {
		t.Errorf("%+v", r)
	}
}

func TestWhatCannotBeMeasured(t *testing.T) {
	s := restServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"error":"input x is wrong"}`)
	})
	s.Start()
	for name, c := range map[string]struct {
		edit func(*Target, *Options)
		want string
	}{
		"refused":   {func(*Target, *Options) {}, "model m at ADDR does not take the request: input x is wrong (HTTP 400); its inputs were made up, --input gives a request of yours"},
		"signature": {func(_ *Target, o *Options) { o.Signature = "other" }, `model m has no signature "other"; --signature names another of ["serving_default"]`},
		"rows":      {func(_ *Target, o *Options) { o.Rows = -1 }, "rows -1: write 1 to 1048576"},
		"in flight": {func(_ *Target, o *Options) { o.InFlight = MaxInFlight + 1 }, "in flight 20001: write 1 to 20000"},
		"clients":   {func(t *Target, o *Options) { t.Address, o.Clients = "192.0.2.1:1", 2 }, "several clients are loopback addresses of this machine, and 192.0.2.1:1 is not on its loopback"},
		"priority":  {func(_ *Target, o *Options) { o.Priority = "a\r\nb" }, "write a word"},
		"nobody":    {func(t *Target, _ *Options) { t.Address = "127.0.0.1:1" }, "nothing answers REST at 127.0.0.1:1: dial tcp"},
	} {
		target, o := restTarget(s), Options{}
		c.edit(&target, &o)
		_, err := New(t.Context(), target, o)
		if want := strings.ReplaceAll(c.want, "ADDR", target.Address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}
