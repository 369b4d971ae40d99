// harness_test.go: the built binary, daemons of it, and models for them.
package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// patience bounds every wait; it is spent only where something is broken.
const patience = 90 * time.Second

const packaging = "../../packaging"

// binary is the inferd that is tried.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "inferd-deploy")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "inferd")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", binary, "../../cmd/inferd").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("go build: %v\n%s", err, out))
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// runtime is the directory of the TensorFlow runtime; without one the test is skipped.
func runtime(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("LIBTENSORFLOW")
	if dir == "" {
		dir = "../../build/runtime"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := filepath.Glob(filepath.Join(dir, "libtensorflow*.so*")); err != nil || len(found) == 0 {
		t.Skipf("no TensorFlow runtime in %s: run `make runtime` or set LIBTENSORFLOW", dir)
	}
	return dir
}

// tool is the path of a program that not every machine has; without it the test is skipped.
func tool(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not here: apt-get install %s", name, pkg)
	}
	return path
}

// short is a folder whose paths are short enough for unix sockets, and which other users may enter.
func short(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// models is a folder with the test model half_plus_two in it, as version 1.
func models(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(short(t), "models")
	if _, err := modeltest.HalfPlusTwo().Publish(filepath.Join(dir, "half_plus_two"), 1); err != nil {
		t.Fatal(err)
	}
	return dir
}

// until polls what tells nobody when it changes.
func until(t testing.TB, what string, done func() error) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never came: %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// daemon is one running inferd.
type daemon struct {
	t          testing.TB
	cmd        *exec.Cmd
	socket     string
	http, grpc string // addresses, once it is ready
	ended      chan struct{}
}

// start runs `inferd serve` over the models until the test's end.
func start(t testing.TB, models string, args ...string) *daemon {
	t.Helper()
	lib, dir := runtime(t), short(t)
	d := &daemon{t: t, socket: filepath.Join(dir, "c"), ended: make(chan struct{})}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	d.cmd = exec.Command(binary, append([]string{"serve", "--models-dir", models, "--state-dir", filepath.Join(dir, "state"), "--runtime", lib,
		"--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--listen.control", d.socket, "--updater.settle_time=200ms", "--defaults.optimize=off"}, args...)...)
	d.cmd.Stderr = log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = log.Close() // the child has its own
	go func() {
		_ = d.cmd.Wait() // how it ends is the test's affair
		close(d.ended)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // it may have ended
		<-d.ended
		if t.Failed() {
			text := read(t, log.Name())
			t.Logf("log of pid %d:\n%s", d.cmd.Process.Pid, text[max(0, len(text)-4000):])
		}
	})
	until(t, "a ready inferd", func() error {
		select {
		case <-d.ended:
			t.Fatalf("it ended: %s", read(t, log.Name()))
		default:
		}
		s, err := d.status()
		if err == nil && !s.Ready {
			err = fmt.Errorf("not ready: %v", s.Conditions)
		}
		if err == nil {
			d.http, d.grpc = s.HTTP, s.GRPC
		}
		return err
	})
	return d
}

func (d *daemon) status() (*control.Status, error) {
	c := control.Dial(d.socket)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.Status(ctx)
}

// inferd runs a verb against the daemon.
func (d *daemon) inferd(args ...string) {
	d.t.Helper()
	if out, err := exec.Command(binary, append(args, "--address", d.socket)...).CombinedOutput(); err != nil {
		d.t.Fatalf("inferd %v: %v\n%s", args, err, out)
	}
}

func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
	if s == syscall.SIGKILL || s == syscall.SIGTERM {
		select {
		case <-d.ended:
		case <-time.After(patience):
			d.t.Fatal("it did not end")
		}
	}
}

// freePort is one that nothing has at the moment.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// get is the status and the body of a page.
func get(c *http.Client, url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// half asks half_plus_two for 1 and wants 2.5.
func half(ctx context.Context, c *http.Client, base, model string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/models/"+model+":predict", strings.NewReader(`{"instances": [[1.0]]}`))
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got struct{ Predictions [][]float32 }
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &got); err != nil || resp.StatusCode != http.StatusOK || len(got.Predictions) != 1 || got.Predictions[0][0] != 2.5 {
		return fmt.Errorf("%d %s", resp.StatusCode, bytes.TrimSpace(body))
	}
	return nil
}
