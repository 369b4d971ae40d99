// daemon_test.go: the client against the real appliance, which is killed in the middle.
package inferd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// binary builds the appliance once for all tests. INFERD names one that is built already.
var binary = sync.OnceValues(func() (string, error) {
	if file := os.Getenv("INFERD"); file != "" {
		return file, nil
	}
	dir, err := os.MkdirTemp("", "inferd-client")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "inferd")
	out, err := exec.Command("go", "build", "-o", file, "github.com/inferd/inferd/cmd/inferd").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

// daemon is one appliance, on one port whatever happens to it.
type daemon struct {
	t    *testing.T
	addr string
	log  string
	args []string
	cmd  *exec.Cmd
}

func startDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	lib := os.Getenv("LIBTENSORFLOW")
	if lib == "" {
		_, file, _, _ := runtime.Caller(0)
		lib = filepath.Join(filepath.Dir(file), "..", "..", "build", "runtime")
	}
	if found, err := filepath.Glob(filepath.Join(lib, "libtensorflow*.so*")); err != nil || len(found) == 0 {
		t.Skipf("no TensorFlow runtime in %s: `make runtime` fetches it, LIBTENSORFLOW names another", lib)
	}
	if _, err := binary(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, model := range map[string]*modeltest.Model{"half_plus_two": modeltest.HalfPlusTwo(), "strings": modeltest.Strings()} {
		if err := model.Save(filepath.Join(dir, "models", name, "1")); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, addr: l.Addr().String(), log: filepath.Join(dir, "log")}
	l.Close()
	d.args = append([]string{"serve", "--models-dir", filepath.Join(dir, "models"), "--state-dir", filepath.Join(dir, "state"), "--runtime", lib, "--listen.http", d.addr, "--listen.grpc", "",
		"--listen.control", filepath.Join(dir, "ctl"), "--updater.settle_time", "50ms"}, args...)
	d.start()
	t.Cleanup(func() {
		if d.cmd != nil {
			d.kill()
		}
		if text, err := os.ReadFile(d.log); t.Failed() && err == nil {
			t.Logf("the log of inferd:\n%s", text)
		}
	})
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	file, _ := binary()
	d.cmd = exec.Command(file, d.args...)
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
}

// ready waits until both models are served.
func (d *daemon) ready() {
	d.t.Helper()
	for _, model := range []string{"half_plus_two", "strings"} {
		until(d.t, func() bool {
			resp, err := http.Get("http://" + d.addr + "/readyz?model=" + model)
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
	http.DefaultClient.CloseIdleConnections()
}

// kill is kill -9.
func (d *daemon) kill() {
	d.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Fatal(err)
	}
	_ = d.cmd.Wait() // it was killed
	d.cmd = nil
}

func (d *daemon) client() *Client {
	d.t.Helper()
	c, err := New(d.addr, Options{MaxBackoff: 200 * time.Millisecond})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.CloseIdle)
	return c
}

// halved is whether r is half_plus_two's answer to n.
func halved(r Result, n int) bool {
	var got []float64
	return json.Unmarshal(r.Predictions, &got) == nil && slices.Equal(got, []float64{float64(n)/2 + 2})
}

// TestJobsSurviveKills: submits and waits go on through kill -9 of the appliance; every job has its result.
func TestJobsSurviveKills(t *testing.T) {
	d := startDaemon(t)
	d.ready()
	c := d.client()
	const clients, each = 4, 10
	var wg sync.WaitGroup
	accepted := make(chan struct{}, clients*each)
	for k := range clients {
		wg.Go(func() {
			for i := range each {
				n := k*each + i
				s := Submission{Model: "half_plus_two", Key: fmt.Sprintf("key-%d", n), Body: fmt.Appendf(nil, `{"instances":[%d]}`, n)}
				j, err := c.Submit(t.Context(), s)
				if err != nil {
					t.Errorf("submit %d: %v", n, err)
					return
				}
				accepted <- struct{}{}
				again, err := c.Submit(t.Context(), s)
				if err != nil || again.ID != j.ID || !again.Existed {
					t.Errorf("submit %d again: %+v %v", n, again, err)
				}
				got, err := c.Result(t.Context(), j.ID)
				var answer struct{ Predictions []float64 }
				if err != nil || json.Unmarshal(got, &answer) != nil || !slices.Equal(answer.Predictions, []float64{float64(n)/2 + 2}) {
					t.Errorf("result %d: %s %v", n, got, err)
				}
			}
		})
	}
	for range 2 {
		for range clients * each / 4 {
			<-accepted
		}
		d.kill()
		d.start()
	}
	wg.Wait()
	s := Submission{Model: "half_plus_two", Key: "key-0", Body: []byte(`{"instances":[7]}`)}
	var refused *Error
	if _, err := c.Submit(t.Context(), s); !errors.As(err, &refused) || refused.Status != http.StatusConflict {
		t.Errorf("the same key for another body: %v", err)
	}
	j, err := c.Submit(t.Context(), Submission{Model: "half_plus_two", Body: []byte(`{"instances":["a"]}`)})
	if err == nil { // it may be found out when it is run
		_, err = c.Result(t.Context(), j.ID)
	}
	if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
		t.Errorf("a wrong input: %v", err)
	}
	if _, err := c.Submit(t.Context(), Submission{Model: "nobody", Body: []byte(`{"instances":[1]}`)}); !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
		t.Errorf("an unknown model: %v", err)
	}
	j, err = c.Submit(t.Context(), s0("forget"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Forget(t.Context(), j.ID), c.Forget(t.Context(), j.ID)); err != nil {
		t.Error(err)
	}
	if _, err := c.Job(t.Context(), j.ID); !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
		t.Errorf("a forgotten job: %v", err)
	}
}

func s0(key string) Submission {
	return Submission{Model: "half_plus_two", Key: key, Body: []byte(`{"instances":[1]}`)}
}

// TestStreamSurvivesKills: a durable stream through kill -9 of the appliance, and of the client: every input has one result.
func TestStreamSurvivesKills(t *testing.T) {
	d := startDaemon(t)
	d.ready()
	needStream(t, d)
	const inputs = 300
	c := d.client()
	file := filepath.Join(t.TempDir(), "session")
	results := make(map[string]int)
	// life is one process that streams: it ends without a word once it has shown stop results.
	life := func(stop int, during func(shown int)) {
		kept, err := LoadSession(file)
		if err != nil {
			t.Fatal(err)
		}
		s := c.Stream(StreamOptions{Session: kept})
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for n := range inputs {
				if err := s.Send(ctx, Request{ID: strconv.Itoa(n), Model: "half_plus_two", Instances: []int{n}, Durable: true}); err != nil {
					if ctx.Err() == nil {
						t.Errorf("send %d: %v", n, err)
					}
					return
				}
			}
			s.CloseSend()
		})
		for shown := 0; shown < stop; shown++ {
			r, err := s.Recv(t.Context())
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			n, _ := strconv.Atoi(r.ID)
			if !halved(r, n) || r.Seq == 0 {
				t.Errorf("input %d: %s %+v", n, r.Predictions, r)
			}
			results[r.ID]++
			if err := s.AckKept(r, func(k Session) error { return k.Save(file) }); err != nil {
				t.Error(err)
			}
			if during != nil {
				during(shown)
			}
		}
		cancel()
	}
	life(60, func(shown int) {
		if shown == 20 {
			d.kill()
			d.start()
		}
	})
	d.kill() // both sides
	d.start()
	life(1<<30, func(shown int) {
		if shown == 100 {
			d.kill()
			d.start()
		}
	})
	if len(results) != inputs {
		t.Errorf("%d of %d inputs have a result", len(results), inputs)
	}
	for id, n := range results {
		if n != 1 {
			t.Errorf("input %s has %d results", id, n)
		}
	}
}

func needStream(t *testing.T, d *daemon) {
	resp, err := http.Get("http://" + d.addr + "/v1/stream")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode == http.StatusNotFound {
		t.Skip("this build has no /v1/stream yet")
	}
}

// TestStreamNotDurable: in order, wrong, and over a version and types.
func TestStreamNotDurable(t *testing.T) {
	d := startDaemon(t)
	d.ready()
	needStream(t, d)
	s := d.client().Stream(StreamOptions{})
	defer s.Close()
	for n := range 20 {
		if err := s.Send(t.Context(), Request{Model: "half_plus_two", Version: 1, Instances: []int{n}, Ordered: true}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 20 {
		if r := recv(t, s); r.ID != strconv.Itoa(n) || r.Version != 1 || !halved(r, n) {
			t.Errorf("result %d: %+v", n, r)
		}
	}
	var refused *Error
	for what, r := range map[string]Request{
		"INVALID_ARGUMENT": {Model: "half_plus_two", Instances: []string{"a"}},
		"NOT_FOUND":        {Model: "nobody", Instances: []int{1}},
	} {
		send(t, s, r)
		if r := recv(t, s); !errors.As(r.Err, &refused) || refused.Code != what {
			t.Errorf("%s: %+v", what, r)
		}
	}
	send(t, s, Request{Model: "strings", Inputs: []string{"über"}, Retry: true, Deadline: time.Minute})
	if r := recv(t, s); r.Err != nil || len(r.Outputs) == 0 {
		t.Errorf("%+v", r)
	}
	s.CloseSend()
	if _, err := s.Recv(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
	want := Stats{Sent: 23, Answered: 21, Refused: 2, Connections: 1, Connected: true}
	if st := s.Stats(); st != want {
		t.Errorf("%+v", st)
	}
}
