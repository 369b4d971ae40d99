// sockets_test.go: ports that systemd holds, over restarts and beside a configuration that says otherwise.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/systemd"
)

// socketUnit is a listening socket and the descriptor to pass on.
func socketUnit(t *testing.T) (address string, f *os.File) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the descriptor goes on listening
	if f, err = l.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return l.Addr().String(), f
}

// A restart is a pause: every connection is taken, and every prediction answered, before, between and after.
func TestRestartThroughTheSocket(t *testing.T) {
	m := newManager(t)
	address, f := socketUnit(t)
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Listen.HTTP, cfg.Runtime.Library = address, library(t) })
	if _, err := modeltest.HalfPlusTwo().Publish(filepath.Join(cfg.ModelsDir, "m"), 1); err != nil {
		t.Fatal(err)
	}
	start := func() *core {
		return startCoreWith(t, cfg, []*os.File{f}, "NOTIFY_SOCKET="+m.path, "LISTEN_FDS=1", "LISTEN_FDNAMES=http")
	}
	c := start()
	m.until(t, 0, "READY=1")

	var answers atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	go func() {
		for ctx.Err() == nil {
			if err := predictOnce(client, address); err != nil {
				ended <- fmt.Errorf("after %d answers: %w", answers.Load(), err)
				return
			}
			answers.Add(1)
		}
		ended <- nil
	}()
	more := func(n int64) {
		for want, end := answers.Load()+n, time.Now().Add(patience); answers.Load() < want; time.Sleep(time.Millisecond) {
			select {
			case err := <-ended:
				t.Fatal(err)
			default:
			}
			if time.Now().After(end) {
				t.Fatal("no more answers")
			}
		}
	}
	for range 3 {
		more(20)
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := c.cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		c = start()
	}
	more(20)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func predictOnce(c *http.Client, address string) error {
	r, err := c.Post("http://"+address+"/v1/models/m:predict", "application/json", strings.NewReader(`{"instances":[1]}`))
	if err != nil {
		return err
	}
	defer func() { _ = r.Body.Close() }()
	if body, err := io.ReadAll(r.Body); err != nil || r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s %w", r.Status, body, errors.Join(err, errors.New("is no answer")))
	}
	return nil
}

// Where the two differ the configuration counts, and it is said what to do.
func TestSocketAndConfigurationDiffer(t *testing.T) {
	m := newManager(t)
	held, f := socketUnit(t)
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Listen.HTTP = "127.0.0.1:0" }) // any but that
	cfg.Listen.HTTP = freeAddress(t)
	c := startCoreWith(t, cfg, []*os.File{f}, "NOTIFY_SOCKET="+m.path, "LISTEN_FDS=1", "LISTEN_FDNAMES=http")
	if c.http != cfg.Listen.HTTP {
		t.Errorf("serves on %s, configured %s", c.http, cfg.Listen.HTTP)
	}
	c.until(t, cfg, "the condition", func(st *control.Status) bool {
		for _, c := range st.Conditions {
			if c.Code == "socket" && strings.Contains(c.Message, held) && strings.Contains(c.Message, cfg.Listen.HTTP) && strings.Contains(c.Message, "systemctl edit inferd.socket") {
				return true
			}
		}
		return false
	})
}

// freeAddress is one on which nothing listens at the moment.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestListenBesideASocket(t *testing.T) {
	for name, c := range map[string]struct {
		socket, wanted func(port string) string
		serves         bool   // the inherited one
		says           string // in a condition
		fails          string
	}{
		"the same":         {loopback, loopback, true, "", ""},
		"everywhere":       {everywhereOn, everywhereOn, true, "", ""},
		"narrower than it": {loopback, everywhereOn, true, "is all that is served", ""},
		"wider than it":    {everywhereOn, loopback, false, "", "cannot be opened, perhaps because inferd.socket listens on"},
		"another port":     {loopback, func(string) string { return "127.0.0.1:0" }, true, "", ""}, // any will do
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", c.socket("0"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			bound := l.Addr().String()
			_, port, _ := net.SplitHostPort(bound)
			a, err := New(testConfig(t, nil), Options{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := a.take("http", l, c.wanted(port))
			if err == nil {
				defer got.Close()
			}
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("got %v, want %q", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, ours := got.(*heldPort); ours != c.serves || ours && got.Addr().String() != bound {
				t.Errorf("serves on %v, inherited: %v", got.Addr(), ours)
			}
			if text := strings.Join(a.sockets, "\n"); c.says == "" && text != "" || !strings.Contains(text, c.says) {
				t.Errorf("said %q, want %q", text, c.says)
			}
		})
	}
}

func loopback(port string) string     { return "127.0.0.1:" + port }
func everywhereOn(port string) string { return "0.0.0.0:" + port }

// A reload is told only between READY and STOPPING: its own READY would be taken for the start's.
func TestReloadIsTold(t *testing.T) {
	m := newManager(t)
	a, err := New(testConfig(t, nil), Options{Log: slog.New(slog.DiscardHandler), Service: Service{Notifier: systemd.NewNotifier(m.path)}})
	if err != nil {
		t.Fatal(err)
	}
	a.reloading()() // too early
	a.tellUp(true, "READY", (*systemd.Notifier).Ready)
	a.reloading()()
	done := a.reloading()
	a.tellUp(false, "STOPPING", (*systemd.Notifier).Stopping)
	done() // too late
	a.reloading()()
	a.notify("the end", func(n *systemd.Notifier) error { return n.Status("the end") })
	m.until(t, 0, "STATUS=the end")
	want := []string{"READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "STOPPING=1", "STATUS=the end"}
	got := m.all()
	if len(got) != len(want) {
		t.Fatalf("told %q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("told %q", got)
		}
	}
}
