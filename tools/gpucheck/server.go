// server.go: one inferd that is checked, and what is asked of it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

type options struct {
	binary, library string
	uuid            string   // the only GPU that it sees; empty in a dry run
	flags           []string // of serve
}

// server is a running inferd with folders of its own.
type server struct {
	dir    string
	cmd    *exec.Cmd
	ended  chan error // has the end of the process
	client *control.Client
	log    *os.File
}

// start runs serve with an empty models directory and waits until it answers. The caller ends it.
func start(ctx context.Context, o options) (*server, error) {
	dir, err := os.MkdirTemp("", "gpucheck")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, ended: make(chan error, 1)}
	if err := os.Mkdir(s.models(), 0o755); err != nil {
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "control.sock")
	args := append([]string{"serve", "--models-dir", s.models(), "--state-dir", filepath.Join(dir, "state"), "--runtime", o.library,
		"--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--listen.control", socket, "--updater.settle_time", "200ms", "--defaults.optimize=off"}, o.flags...)
	s.cmd = exec.Command(o.binary, args...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if s.cmd.Env = os.Environ(); o.uuid != "" {
		s.cmd.Env = append(s.cmd.Env, "CUDA_VISIBLE_DEVICES="+o.uuid)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.ended <- s.cmd.Wait() }()
	s.client = control.Dial(socket)
	st, err := s.until(ctx, "inferd's first answer", func(*control.Status) bool { return true })
	if err == nil && st.Runtime.Error != "" {
		err = fmt.Errorf("inferd finds no runtime: %s", st.Runtime.Error)
	}
	if err != nil {
		s.kill()
		return nil, err
	}
	return s, nil
}

func (s *server) models() string { return filepath.Join(s.dir, "models") }

// end asks for the end as a service manager does, and reports whether it exited with 0.
func (s *server) end(ctx context.Context) error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.ended:
		s.ended <- err
		return err
	case <-time.After(time.Minute):
		return errors.New("it did not end within a minute of SIGTERM")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// kill ends it in any case and removes its folders. Its workers die with it.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended //nolint:errcheck // it was killed
	s.client.Close()
	_ = s.log.Close()
	_ = os.RemoveAll(s.dir)
}

// logged is what it wrote so far.
func (s *server) logged() string {
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// until waits for a status that is as wanted. The error has the end of the log.
func (s *server) until(ctx context.Context, what string, ok func(*control.Status) bool) (*control.Status, error) {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		var st *control.Status
		if st, err = s.client.Status(ctx); err == nil && ok(st) {
			return st, nil
		}
		select {
		case gone := <-s.ended:
			s.ended <- gone
			return nil, fmt.Errorf("waiting for %s: inferd ended (%w); its log ends with\n%s", what, errors.Join(gone, err), tail(s.logged()))
		default:
		}
		if e := pause(ctx, 100*time.Millisecond); e != nil {
			return nil, fmt.Errorf("waiting for %s: %w", what, e)
		}
	}
	return nil, fmt.Errorf("%s did not come within %v (%w); the log ends with\n%s", what, patience, errors.Join(err), tail(s.logged()))
}

func tail(text string) string { return text[max(0, len(text)-4000):] }

// publish puts a version into the models directory in one step.
func (s *server) publish(model string, number int64, m *modeltest.Model) error {
	_, err := m.Publish(filepath.Join(s.models(), model), number)
	return err
}

// remove takes the whole model away.
func (s *server) remove(model string) error { return os.RemoveAll(filepath.Join(s.models(), model)) }

func find(st *control.Status, model string, number int64) *control.Version {
	for i := range st.Models {
		for j := range st.Models[i].Versions {
			if v := &st.Models[i].Versions[j]; st.Models[i].Name == model && v.Number == number {
				return v
			}
		}
	}
	return nil
}

// live waits until the version is live with a worker that answers, and returns that. It fails at once where the version is refused.
func (s *server) live(ctx context.Context, model string, number int64) (*control.Worker, error) {
	var refused error
	st, err := s.until(ctx, fmt.Sprintf("model %s version %d", model, number), func(st *control.Status) bool {
		v := find(st, model, number)
		if v != nil && v.Stage == "quarantined" {
			refused = errors.New(v.Message)
		}
		return refused != nil || v != nil && v.Stage == "live" && v.Worker != nil && v.Worker.State == "live" && v.Worker.PID != 0
	})
	if err = errors.Join(err, refused); err != nil {
		return nil, err
	}
	return find(st, model, number).Worker, nil
}

// predict asks for rows over REST.
func (s *server) predict(ctx context.Context, model string, rows ...[]float32) ([][]float32, error) {
	body, err := json.Marshal(map[string]any{"instances": rows})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	code, answer, err := s.client.Do(ctx, http.MethodPost, "/v1/models/"+model+":predict", body)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("HTTP %d: %s", code, bytes.TrimSpace(answer))
	}
	var got struct{ Predictions [][]float32 }
	if err := json.Unmarshal(answer, &got); err != nil || len(got.Predictions) != len(rows) {
		return nil, fmt.Errorf("answer %.200s: %w", answer, errors.Join(err))
	}
	return got.Predictions, nil
}

// twoLayer checks the small model's answer against the same computed here. A GPU multiplies with 10 bits of fraction where it may.
func (s *server) twoLayer(ctx context.Context) error {
	x := make([]float32, 32)
	for i := range x {
		x[i] = float32(i%7)/7 - 0.4
	}
	got, err := s.predict(ctx, "two_layer", x)
	if err != nil {
		return err
	}
	want := modeltest.TwoLayerAnswer(x)
	for i := range want {
		if len(got[0]) != len(want) || math.Abs(float64(got[0][i]-want[i])) > 2e-2 {
			return fmt.Errorf("answers %v, want %v", got[0], want)
		}
	}
	return nil
}

// one checks y for one x of a model with a column in and out.
func (s *server) one(ctx context.Context, model string, x, want float32) error {
	got, err := s.predict(ctx, model, []float32{x})
	if err != nil {
		return err
	}
	if len(got[0]) != 1 || got[0][0] != want {
		return fmt.Errorf("answers %v, want %v", got[0], want)
	}
	return nil
}

// load asks the model from several clients until stop is called, which returns the number of answers and the first failure.
func (s *server) load(ctx context.Context, model string, clients int) (stop func() (int64, error)) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := errors.New("over")
	var answered atomic.Int64
	failures := make(chan error, clients)
	for range clients {
		go func() {
			for {
				_, err := s.predict(context.WithoutCancel(ctx), model, []float32{1})
				if ctx.Err() != nil {
					err = nil
				}
				if err != nil || ctx.Err() != nil {
					failures <- err
					return
				}
				answered.Add(1)
			}
		}()
	}
	return func() (int64, error) {
		cancel(over)
		var first error
		for range clients {
			if err := <-failures; err != nil && first == nil {
				first = err
			}
		}
		return answered.Load(), first
	}
}

// contains reports whether text has any of the words.
func contains(text string, words ...string) bool {
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}
