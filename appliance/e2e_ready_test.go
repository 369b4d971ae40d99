// e2e_ready_test.go: live and ready, and the way to the end.
package appliance

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// alive checks that the appliance answers as live.
func (s *server) alive() {
	s.t.Helper()
	for _, path := range []string{"/healthz", "/v2/health/live"} {
		if code, body := s.get(path); code != 200 {
			s.t.Errorf("%s answers %d %q", path, code, body)
		}
	}
}

// healthOf checks what grpc.health.v1 says of a service; want is a state, or the code of an error.
func (s *server) healthOf(service string, want any) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := healthpb.NewHealthClient(s.conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		if status.Code(err) != want {
			s.t.Errorf("health of %q: %v, want %v", service, err, want)
		}
	} else if resp.GetStatus() != want {
		s.t.Errorf("health of %q: %v, want %v", service, resp.GetStatus(), want)
	}
}

const (
	up   = healthpb.HealthCheckResponse_SERVING
	down = healthpb.HealthCheckResponse_NOT_SERVING
)

// TestReadyWithoutModels: nothing to serve is no reason not to be ready.
func TestReadyWithoutModels(t *testing.T) {
	s := serve(t, nil)
	s.alive()
	s.until("ready", func(st *control.Status) bool { return st.Ready })
	s.ready("", 200)
	s.ready("nobody", 404)
	s.healthOf("", up)
	s.healthOf("nobody", codes.NotFound)
	s.publish("m", 1, modeltest.HalfPlusTwo())
	s.live("m", 1)
	s.ready("m", 200)
	s.healthOf("m", up)
}

// TestReadiness: ready is once every configured model has had a first verdict and has a live version or is optional; nothing that one
// version does later takes it back.
func TestReadiness(t *testing.T) {
	s := serve(t, func(cfg *config.Config) {
		wanted, maybe := listed(cfg, "wanted"), listed(cfg, "maybe")
		wanted.RunTimeout, maybe.Optional = 10*time.Minute, true
		cfg.Models = []config.Model{wanted, maybe}
	})
	notReady := func(stage string) {
		t.Helper()
		s.alive()
		s.ready("", 503)
		s.ready("wanted", 503)
		s.healthOf("", down)
		s.healthOf("wanted", down)
		if _, body := s.get("/readyz"); !strings.Contains(body, "wanted") {
			t.Errorf("%s: /readyz does not name the model: %q", stage, body)
		}
	}
	isReady := func() {
		t.Helper()
		s.ready("", 200)
		s.ready("wanted", 200)
		s.healthOf("", up)
		s.healthOf("wanted", up)
	}
	s.until("a first look", func(st *control.Status) bool { return said(st, "wanted") != "" })
	notReady("no folder")
	s.publish("wanted", 1, modeltest.UnknownOp())
	s.staged("wanted", 1, "quarantined")
	notReady("the first version is bad")
	s.publish("wanted", 2, modeltest.HalfPlusTwo())
	s.live("wanted", 2)
	isReady()
	s.ready("maybe", 503)
	s.healthOf("maybe", down)

	s.publish("wanted", 3, modeltest.UnknownOp())
	s.staged("wanted", 3, "quarantined")
	isReady()
	// A load that does not end: its made-up run hangs.
	slow := s.publish("wanted", 4, withConstant(t, modeltest.NeverReturns(), "zero", 0.5))
	s.staged("wanted", 4, "warming")
	isReady()
	s.ask("wanted", []float32{1}, []float32{2.5})
	removeAll(t, slow)
	s.until("the load is given up", func(st *control.Status) bool { return version(st, "wanted", 4) == nil })
	isReady()
	s.publish("maybe", 1, modeltest.UnknownOp())
	s.staged("maybe", 1, "quarantined")
	isReady()
}

// TestDrain: asked to end, the appliance takes nothing new, answers what is in flight, and ends without an error.
func TestDrain(t *testing.T) {
	s := serve(t, nil)
	s.publish("slow", 1, withConstant(t, modeltest.Sleepy(), "half_million", 500)) // x is in milliseconds
	s.live("slow", 1)
	type answer struct {
		y   []float32
		err error
	}
	answers := make(chan answer, 2)
	x := []float32{3000}
	go func() {
		y, err := s.askREST(context.Background(), "slow", x)
		answers <- answer{y, err}
	}()
	go func() {
		y, err := s.askGRPC(context.Background(), "slow", x)
		answers <- answer{y, err}
	}()
	s.inFlight(2)
	s.cancel()
	<-s.draining
	if s.Status().Ready {
		t.Error("ready while it drains")
	}
	at := strings.TrimPrefix(s.http, "http://")
	eventually(t, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", at)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	for range 2 {
		a := <-answers
		if a.err != nil || !slices.Equal(a.y, x) {
			t.Errorf("a request in flight: %v, %v", a.y, a.err)
		}
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if y, err := s.askGRPC(t.Context(), "slow", []float32{1}); !unavailable(err) {
		t.Errorf("after the end: %v, %v", y, err)
	}
}

// TestDrainTimeout: a run that does not end does not keep the appliance.
func TestDrainTimeout(t *testing.T) {
	s := serve(t, func(cfg *config.Config) {
		m := listed(cfg, "never")
		m.RunTimeout = 10 * time.Minute
		cfg.Models, cfg.DrainTimeout = []config.Model{m}, 200*time.Millisecond
	})
	s.publish("never", 1, withConstant(t, modeltest.NeverReturns(), "zero", 10))
	pid := s.live("never", 1).Worker.PID
	ended := watch(t, pid)
	failed := make(chan error, 2)
	go func() { _, err := s.askREST(context.Background(), "never", []float32{11}); failed <- err }()
	go func() { _, err := s.askGRPC(context.Background(), "never", []float32{12}); failed <- err }()
	s.inFlight(2)
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	ended(t)
	for range 2 {
		if err := <-failed; err == nil {
			t.Error("a run without end was answered")
		}
	}
}

// TestPortInUse: a door that cannot be opened is an error of one sentence, and nothing is left open or running.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Listen.HTTP = l.Addr().String() })
	a, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err = a.Run(t.Context()); err == nil || !containsAll(err.Error(), []string{"listen.http", l.Addr().String(), "in use"}) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a port in use: %v", err)
	}
	if c, err := net.Dial("unix", filepath.Join(filepath.Dir(cfg.ModelsDir), "control.sock")); err == nil {
		_ = c.Close()
		t.Error("the control socket is open")
	}
}

// inFlight waits until so many requests are in runs of live versions.
func (s *server) inFlight(n int) {
	s.t.Helper()
	eventually(s.t, "requests in flight", func() bool {
		running := 0
		for _, v := range s.Appliance.load.live.all() {
			running += v.Batcher.Stats().InFlight
		}
		return running == n
	})
}

// eventually looks until ok: for states that nobody tells of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick, end := time.NewTicker(time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never came: %s", what)
		}
	}
}
