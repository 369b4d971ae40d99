// Command soak puts mixed load on an inferd for as long as is wanted: REST, gRPC, a WebSocket with durable and other frames, jobs, and one
// model that is replaced all the time. Every answer is checked, and at the end memory, descriptors, processes and disk must be flat (judge.go
// says what that is).
//
//	soak -inferd build/inferd -runtime build/runtime -for 30m
//
// With -leak memory, descriptors or disk it does something that makes inferd hold more and more, and must then find it: exit code 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

func main() {
	var s soak
	flag.StringVar(&s.inferd, "inferd", "build/inferd", "the binary")
	flag.StringVar(&s.runtime, "runtime", os.Getenv("LIBTENSORFLOW"), "the directory with libtensorflow")
	flag.DurationVar(&s.length, "for", 30*time.Minute, "how long")
	flag.DurationVar(&s.swapEvery, "swap", 5*time.Second, "how often a model is replaced")
	flag.StringVar(&s.leak, "leak", "", "memory, descriptors or disk: have inferd hold more and more of it, to see that it is found")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := s.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "soak: FAILED:", err)
		os.Exit(1) //nolint:gocritic // stop has nothing left to do
	}
}

type soak struct {
	inferd, runtime, leak string
	length, swapEvery     time.Duration

	dir, http, grpc string
	daemon          *exec.Cmd
	ended           chan error
	counts          counts
}

func (s *soak) run(ctx context.Context) (failed error) {
	switch s.leak {
	case "", "memory", "descriptors", "disk":
	default:
		return fmt.Errorf("-leak %s: it is memory, descriptors or disk", s.leak)
	}
	if s.length < 30*time.Second {
		return fmt.Errorf("-for %v: nothing can be said of flatness in less than 30s", s.length)
	}
	dir, err := os.MkdirTemp("", "inferd-soak-")
	if err != nil {
		return err
	}
	defer func() {
		if failed == nil {
			failed = os.RemoveAll(dir)
		} else {
			fmt.Fprintln(os.Stderr, "soak: what is left lies in", dir)
		}
	}()
	s.dir = dir
	if err := s.start(ctx); err != nil {
		return err
	}
	defer s.kill()

	load, stop := context.WithCancel(ctx)
	defer stop()
	began := time.Now()
	faults := s.load(load)
	every := max(time.Second, s.length/600)
	var all []sample
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for time.Since(began) < s.length {
		select {
		case <-ticker.C:
			all = append(all, s.look(began))
			if len(all)%max(1, 60/int(max(1, every/time.Second))) == 0 {
				fmt.Println("soak:", all[len(all)-1], s.counts.String())
			}
		case err := <-faults:
			return fmt.Errorf("after %v: %w", time.Since(began).Round(time.Second), err)
		case err := <-s.ended:
			s.ended <- err
			return fmt.Errorf("inferd ended after %v: %w", time.Since(began).Round(time.Second), err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	stop()
	for err := range faults { // which is closed when everybody has ended
		if err != nil {
			return err
		}
	}
	fmt.Printf("soak: %v, %d samples: %s\n", s.length, len(all), s.counts.String())
	if idle := s.counts.idle(); idle != "" {
		return fmt.Errorf("nothing was shown: no %s in %v", idle, s.length)
	}
	return judge(os.Stdout, all)
}

// start returns once the models answer.
func (s *soak) start(ctx context.Context) (err error) {
	models := filepath.Join(s.dir, "models")
	if _, err := modeltest.HalfPlusTwo().Publish(filepath.Join(models, "half"), 1); err != nil {
		return err
	}
	if _, err := swapped(1).Publish(filepath.Join(models, "swapped"), 1); err != nil {
		return err
	}
	if s.leak == "memory" {
		if _, err := modeltest.Leaky(64).Publish(filepath.Join(models, "leaky"), 1); err != nil {
			return err
		}
	}
	if s.http, err = freeAddress(); err != nil {
		return err
	}
	if s.grpc, err = freeAddress(); err != nil {
		return err
	}
	config := fmt.Sprintf("models_dir: %s\nstate_dir: %s\nlisten: {http: %q, grpc: %q, control: %s}\n",
		models, filepath.Join(s.dir, "state"), s.http, s.grpc, filepath.Join(s.dir, "control.sock"))
	if err := os.WriteFile(filepath.Join(s.dir, "inferd.yaml"), []byte(config), 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	s.daemon = exec.Command(s.inferd, "serve", "--config", filepath.Join(s.dir, "inferd.yaml"), "--runtime", s.runtime)
	s.daemon.Stdout, s.daemon.Stderr = log, log
	if err := s.daemon.Start(); err != nil {
		return err
	}
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.daemon.Wait() }()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if s.ready("half") && s.ready("swapped") {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	s.kill()
	text, _ := os.ReadFile(log.Name()) // said if it can be
	return fmt.Errorf("inferd was not ready within a minute:\n%s", text[max(0, len(text)-2000):])
}

func (s *soak) ready(model string) bool {
	resp, err := http.Get("http://" + s.http + "/readyz?model=" + model)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// kill ends inferd, whose workers end with it.
func (s *soak) kill() {
	_ = s.daemon.Process.Kill()
	err := <-s.ended
	s.ended <- err
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// swapped is the model that is replaced: y = x + its version.
func swapped(version int64) *modeltest.Model { return modeltest.Affine(1, float32(version)) }

// swapPatience is long, for a version that comes beside others loads only while nobody else wants the processors.
const swapPatience = 10 * time.Minute

// swap publishes version after version, each when the one before answers, and removes what it replaced.
func (s *soak) swap(ctx context.Context) error {
	base := filepath.Join(s.dir, "models", "swapped")
	for version := int64(2); ; version++ {
		if !wait(ctx, s.swapEvery) {
			return nil
		}
		if _, err := swapped(version).Publish(base, version); err != nil {
			return err
		}
		for end := time.Now().Add(swapPatience); !s.answers(version); {
			if !wait(ctx, 50*time.Millisecond) {
				return nil
			}
			if time.Now().After(end) {
				return fmt.Errorf("version %d did not go live within %v", version, swapPatience)
			}
		}
		s.counts.swaps.Add(1)
		if err := os.RemoveAll(filepath.Join(base, strconv.FormatInt(version-1, 10))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
}

// wait reports false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
