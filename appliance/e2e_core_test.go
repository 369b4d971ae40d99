// e2e_core_test.go: the test binary as a core of its own, to be killed and looked into.
package appliance

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// envCore holds the configuration of the core that the test binary shall be.
const envCore = "INFERD_TEST_CORE"

// coreMain serves until SIGTERM. It prints its HTTP address when the doors are open.
func coreMain(settings string) int {
	cfg := config.Default()
	if err := json.Unmarshal([]byte(settings), cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if os.Getenv("LISTEN_FDS") != "" {
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // whoever starts it cannot know
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	service, err := FromSystemd()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	opened := make(chan struct{})
	ready := func(_, http net.Addr) {
		fmt.Println(http)
		close(opened)
	}
	a, err := New(cfg, Options{Service: service, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Ready: ready, step: stepKiller(opened)})
	if err == nil {
		err = a.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// core is an appliance in a process of its own.
type core struct {
	cmd  *exec.Cmd
	http string // host:port
}

// startCore starts one and waits until its doors are open.
func startCore(t *testing.T, cfg *config.Config) *core {
	t.Helper()
	return startCoreWith(t, cfg, nil)
}

// startCoreWith is startCore with descriptors from 3 on, and with more in its environment.
func startCoreWith(t *testing.T, cfg *config.Config, files []*os.File, env ...string) *core {
	t.Helper()
	settings, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &core{cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env, c.cmd.ExtraFiles = append(append(os.Environ(), envCore+"="+string(settings)), env...), files
	said := new(strings.Builder) // read after Wait
	c.cmd.Stderr = said
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		if t.Failed() {
			t.Logf("the core's log:\n%s", said)
		}
	})
	if c.http, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the core did not open its doors: %v", err)
	}
	c.http = strings.TrimSpace(c.http)
	return c
}

// predict asks until the model answers, which must be want.
func (c *core) predict(t *testing.T, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.http+"/v1/models/m:predict", strings.NewReader(`{"instances":[[1.0]]}`))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			if got := strings.Join(strings.Fields(string(answer)), ""); got != want {
				t.Fatalf("the core answered %s, want %s", got, want)
			}
			return
		}
		if resp.StatusCode != http.StatusNotFound { // not loaded yet
			t.Fatalf("the core answered %d %s %v", resp.StatusCode, answer, err)
		}
	}
}

// ask asks m once for its answer to 1.
func (c *core) ask(ctx context.Context) (float32, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.http+"/v1/models/m:predict", strings.NewReader(`{"instances":[[1.0]]}`))
	if err != nil {
		return 0, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	var got struct{ Predictions [][]float32 }
	if err := json.Unmarshal(answer, &got); err != nil || len(got.Predictions) != 1 || len(got.Predictions[0]) != 1 {
		return 0, fmt.Errorf("%d %s", resp.StatusCode, answer)
	}
	return got.Predictions[0][0], nil
}

// coreConfig has one model, m.
func coreConfig(t *testing.T, isolation config.Isolation) *config.Config {
	lib := library(t)
	return testConfig(t, func(cfg *config.Config) {
		cfg.Runtime.Library, cfg.Runtime.Isolation = lib, isolation
		modeltest.WriteVersion(t, cfg.ModelsDir+"/m", 1, modeltest.HalfPlusTwo())
	})
}

// mapped reports whether the process has TensorFlow in its memory.
func mapped(t *testing.T, pid int) bool {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(maps), "libtensorflow")
}

// TestCoreKilled: a core that is killed leaves no process behind, neither workers nor the zygote; and it had no TensorFlow in it.
func TestCoreKilled(t *testing.T) {
	for _, zygote := range []bool{true, false} {
		t.Run(map[bool]string{true: "forked", false: "fresh"}[zygote], func(t *testing.T) {
			cfg := coreConfig(t, config.IsolationVersion)
			cfg.Runtime.Zygote = zygote
			c := startCore(t, cfg)
			c.predict(t, `{"predictions":[[2.5]]}`)
			pid := c.cmd.Process.Pid
			if mapped(t, pid) {
				t.Error("the core has opened TensorFlow")
			}
			all := children(pid)
			if want := map[bool]int{true: 2, false: 1}[zygote]; len(all) != want {
				t.Errorf("%d processes, want %d", len(all), want)
			}
			var ends []func(testing.TB)
			for _, child := range all {
				if !mapped(t, child) {
					t.Errorf("process %d (%s) has no TensorFlow", child, comm(child))
				}
				ends = append(ends, watch(t, child))
			}
			kill(t, pid, syscall.SIGKILL)
			for _, ended := range ends {
				ended(t)
			}
		})
	}
}

// TestIsolationNone: everything in the core, for debugging, behind the same interface.
func TestIsolationNone(t *testing.T) {
	cfg := coreConfig(t, config.IsolationNone)
	c := startCore(t, cfg)
	c.predict(t, `{"predictions":[[2.5]]}`)
	if !mapped(t, c.cmd.Process.Pid) {
		t.Error("the core has not opened TensorFlow: who answered?")
	}
	for _, child := range children(c.cmd.Process.Pid) {
		t.Errorf("process %d (%s) is not needed", child, comm(child))
	}
	kill(t, c.cmd.Process.Pid, syscall.SIGTERM)
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}
