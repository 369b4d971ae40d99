// systemd_test.go: each protocol against its other side, a socket or a child process.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"golang.org/x/sys/unix"
)

const childEnv = "INFERD_TEST_INHERIT"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}

func TestNotifier(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	for name, addr := range map[string]string{"file": path, "abstract": "@inferd-test-" + fmt.Sprint(os.Getpid())} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			n := NewNotifier(addr)
			if !n.Enabled() {
				t.Error("not enabled")
			}
			for _, c := range []struct {
				send func() error
				want string
			}{
				{n.Ready, "READY=1"},
				{n.Ping, "WATCHDOG=1"},
				{func() error { return n.Status("one line\nREADY=1") }, "STATUS=one line READY=1"},
				{func() error { return n.ExtendTimeout(1500 * time.Millisecond) }, "EXTEND_TIMEOUT_USEC=1500000"},
				{n.Stopping, "STOPPING=1"},
			} {
				if err := c.send(); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 100)
				got, err := conn.Read(buf)
				if err != nil || string(buf[:got]) != c.want {
					t.Errorf("got %q, %v, want %q", buf[:got], err, c.want)
				}
			}
		})
	}
}

// TestReloadingHasItsTime: systemd takes the READY=1 that ends a reload only for one that it knows the begin of, by CLOCK_MONOTONIC.
func TestReloadingHasItsTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	now := func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		return ts.Nano() / 1000
	}
	before := now()
	if err := NewNotifier(path).Reloading(); err != nil {
		t.Fatal(err)
	}
	after := now()
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var at int64
	if _, err := fmt.Sscanf(string(buf[:n]), "RELOADING=1\nMONOTONIC_USEC=%d", &at); err != nil || at < before || at > after {
		t.Errorf("told %q between %d and %d: %v", buf[:n], before, after, err)
	}
}

func TestNotifierWithoutSystemd(t *testing.T) {
	n := NewNotifier("")
	if err := n.Ready(); err != nil || n.Enabled() {
		t.Errorf("%v, enabled %v", err, n.Enabled())
	}
	if err := NewNotifier(filepath.Join(t.TempDir(), "gone")).Ready(); err == nil {
		t.Error("a socket that is not there took a notification")
	}
}

func TestWatchdogPingsOnlyTheLiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 4 * time.Second
		var (
			mu       sync.Mutex
			pings    []time.Time
			silences []error
			stuck    atomic.Bool
		)
		state := func() ([]time.Time, []error) {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(pings), slices.Clone(silences)
		}
		silent := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			silences = append(silences, err)
		}
		w := NewWatchdog(NewNotifier(""), interval, silent,
			Question{"quick", func(context.Context) error { return nil }},
			Question{"loop", func(ctx context.Context) error {
				if stuck.Load() {
					<-ctx.Done()
					return ctx.Err()
				}
				time.Sleep(interval / 2) // as late as allowed, in the bubble's time
				return nil
			}})
		w.ping = func() error {
			mu.Lock()
			defer mu.Unlock()
			pings = append(pings, time.Now())
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()

		time.Sleep(10 * interval)
		sent, silenced := state()
		if len(sent) < 10 || len(silenced) > 0 {
			t.Fatalf("%d pings in 10 intervals, silent: %v", len(sent), silenced)
		}
		for i := 1; i < len(sent); i++ {
			if gap := sent[i].Sub(sent[i-1]); gap >= interval {
				t.Errorf("%v between pings, systemd kills at %v", gap, interval)
			}
		}

		stuck.Store(true)
		time.Sleep(interval) // a round that began before may still ping
		before, _ := state()
		time.Sleep(10 * interval)
		sent, silenced = state()
		if len(sent) != len(before) {
			t.Errorf("%d pings while a loop hung", len(sent)-len(before))
		}
		if len(silenced) == 0 || !strings.Contains(silenced[0].Error(), "loop does not answer") {
			t.Errorf("silent: %v", silenced)
		}

		stuck.Store(false)
		time.Sleep(2 * interval)
		if sent, _ = state(); len(sent) == len(before) {
			t.Error("no ping after the loop had come back")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWatchdogSaysThatItCannotPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		var silences []error
		w := NewWatchdog(NewNotifier(""), time.Second, func(err error) { silences = append(silences, err) })
		w.ping = func() error { return refused }
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
		if len(silences) < 4 || !errors.Is(silences[0], refused) {
			t.Errorf("silent: %v", silences)
		}
	})
}

func TestWatchdogOffWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWatchdog(NewNotifier(""), 0, nil, Question{"never", func(context.Context) error { t.Error("asked"); return nil }})
		w.ping = func() error { t.Error("pinged"); return nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := w.Run(ctx); err != nil || ctx.Err() == nil {
			t.Errorf("returned early: %v", err)
		}
	})
}

func TestWatchdogInterval(t *testing.T) {
	for name, c := range map[string]struct {
		usec, pid string
		want      time.Duration
		fails     bool
	}{
		"off":     {"", "", 0, false},
		"ours":    {"30000000", fmt.Sprint(os.Getpid()), 30 * time.Second, false},
		"another": {"30000000", "1", 0, false},
		"garbage": {"soon", "", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", c.usec)
			t.Setenv("WATCHDOG_PID", c.pid)
			got, err := WatchdogInterval()
			if got != c.want || (err != nil) != c.fails {
				t.Errorf("%v, %v", got, err)
			}
			if _, still := os.LookupEnv("WATCHDOG_USEC"); still {
				t.Error("children would believe themselves watched")
			}
		})
	}
}

// child is the service's side of TestInherit: it says what it got, in the order of its arguments.
func child() int {
	ctx := context.Background()
	l, err := Inherit()
	if err != nil {
		fmt.Println("error:", err)
		return 0
	}
	defer l.Close()
	for _, name := range strings.Split(os.Getenv(childEnv), ",") {
		listener, err := l.Listen(ctx, name, "tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		fmt.Println(name, listener.Addr())
		listener.Close()
	}
	fmt.Println("left", l.Left(), "environment", os.Getenv("LISTEN_FDS")+os.Getenv("LISTEN_FDNAMES")+os.Getenv("LISTEN_PID"))
	return 0
}

// inherit runs child with the files as systemd would, and returns its lines.
func inherit(t *testing.T, names, ask string, files ...*os.File) []string {
	t.Helper()
	// The shell knows the child's process id before it becomes the child.
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+ask, "LISTEN_FDNAMES="+names, fmt.Sprintf("LISTEN_FDS=%d", len(files)))
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestInherit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	var files []*os.File
	for _, l := range []interface{ File() (*os.File, error) }{tcp.(*net.TCPListener), unix.(*net.UnixListener), tcp.(*net.TCPListener)} {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	lines := inherit(t, "http:control:spare", "http,control,grpc", files...)
	if len(lines) != 4 {
		t.Fatalf("lines: %q", lines)
	}
	if want := "http " + tcp.Addr().String(); lines[0] != want {
		t.Errorf("%q, want %q", lines[0], want)
	}
	if want := "control " + path; lines[1] != want {
		t.Errorf("%q, want %q", lines[1], want)
	}
	if !strings.HasPrefix(lines[2], "grpc 127.0.0.1:") || lines[2] == "grpc "+tcp.Addr().String() {
		t.Errorf("a name that was not inherited: %q", lines[2])
	}
	if lines[3] != "left [spare] environment" {
		t.Errorf("%q", lines[3])
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the child removed systemd's socket: %v", err)
	}
}

func TestInheritRefusesWhatIsNoSocket(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := inherit(t, "http", "http", f)
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "error: inherit socket http:") {
		t.Errorf("lines: %q", lines)
	}
}

func TestListenersWithoutSystemd(t *testing.T) {
	for name, l := range map[string]*Listeners{"nil": nil, "none": {byName: map[string][]net.Listener{}}} {
		listener, err := l.Listen(t.Context(), "grpc", "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := errors.Join(listener.Close(), l.Close(), l.Close()); err != nil || !slices.Equal(l.Left(), nil) {
			t.Errorf("%s: %v, left %v", name, err, l.Left())
		}
	}
}
