// service_test.go: what systemd is told, what is asked before a sign of life, and what follows from short lives.
package appliance

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/storage"
	"github.com/inferd/inferd/systemd"
)

// manager is the side of systemd that is told: a datagram socket.
type manager struct {
	path string
	mu   sync.Mutex
	said []string // guarded by mu
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "inferd")
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{path: filepath.Join(dir, "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.said = append(m.said, string(buf[:n]))
			m.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		reading.Wait()
		_ = os.RemoveAll(dir)
	})
	return m
}

func (m *manager) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.said)
}

// until waits for a message that begins so, after the first skip messages, and returns how many there were up to it.
func (m *manager) until(t *testing.T, skip int, begins string) int {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		all := m.all()
		for i := skip; i < len(all); i++ {
			if strings.HasPrefix(all[i], begins) {
				return i + 1
			}
		}
		if time.Now().After(end) {
			t.Fatalf("systemd was never told %q; it was told %q", begins, all)
		}
	}
}

func TestTellsSystemd(t *testing.T) {
	m := newManager(t)
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Runtime.Library = library(t) })
	s := runWith(t, cfg, func(a *Appliance) {
		a.opts.Service = Service{Notifier: systemd.NewNotifier(m.path), Interval: 400 * time.Millisecond}
		a.lives = openLives(cfg, a.log)
	})
	ready := m.until(t, 0, "READY=1")
	for _, early := range m.all()[:ready-1] {
		if strings.HasPrefix(early, "STATUS=") && !strings.HasPrefix(early, "STATUS=starting: ") {
			t.Errorf("told %q before READY", early)
		}
	}
	at := m.until(t, ready, "WATCHDOG=1")
	m.until(t, at, "WATCHDOG=1")
	m.until(t, 0, "STATUS=0 of 0 models answer; 0 jobs wait, 0 run")
	s.publish("m", 1, modeltest.HalfPlusTwo())
	m.until(t, 0, "STATUS=1 of 1 models answer")
	before := len(m.all())
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	at = m.until(t, before, "STOPPING=1")
	m.until(t, at, "EXTEND_TIMEOUT_USEC=")
	l := openLives(cfg, s.log).list
	if len(l) != 1 || l[0].How != endStopped || l[0].Ended.IsZero() {
		t.Errorf("its life is noted as %+v", l)
	}
}

// A worker that does not answer, and a queue whose disk does not, are no reason to end the daemon: the sign of life comes all the same.
func TestWatchdogLeavesOthersAlone(t *testing.T) {
	m := newManager(t)
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Runtime.Library = library(t) })
	stalled, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := runWith(t, cfg, func(a *Appliance) {
		a.opts.Service = Service{Notifier: systemd.NewNotifier(m.path), Interval: 400 * time.Millisecond}
		a.lives = openLives(cfg, a.log)
		a.opts.step = func(point string) {
			if point == "commit" {
				select {
				case <-stalled:
					<-release // as an fsync does that does not return
				default:
				}
			}
		}
	})
	defer once.Do(func() { close(release) })
	s.publish("m", 1, modeltest.HalfPlusTwo())
	st := s.live("m", 1)
	pid := st.Worker.PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	close(stalled)
	q := s.jobs.Queue()
	submit := make(chan error, 1)
	go func() {
		_, _, err := q.Append(context.Background(), storage.Item{Model: "m", Kind: 1, Class: 2, Submitted: time.Now()}, []byte("x"))
		submit <- err
	}()
	for end := time.Now().Add(patience); q.Stalled() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the writer is not at the file")
		}
	}
	at := len(m.all())
	for range 3 {
		at = m.until(t, at, "WATCHDOG=1")
	}
	if _, err := s.statusWithin(time.Second); err != nil {
		t.Error(err)
	}
	once.Do(func() { close(release) })
	if err := <-submit; err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// statusWithin asks for the status in another goroutine, for it must not wait for a disk.
func (s *server) statusWithin(d time.Duration) (st control.Status, err error) {
	done := make(chan control.Status, 1)
	go func() { done <- s.Status() }()
	select {
	case st = <-done:
		return st, nil
	case <-time.After(max(d, patience)):
		return st, context.DeadlineExceeded
	}
}

// Whoever does not turn any more keeps the sign of life back.
func TestWatchdogNotices(t *testing.T) {
	short := func(ask func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return ask(ctx)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(l).(*door)
	if short(d.ping) == nil {
		t.Error("a door from which nobody accepts answers")
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := d.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	})
	if err := d.ping(t.Context()); err != nil {
		t.Error(err)
	}
	_ = d.Close()
	accepting.Wait()
	a, err := New(testConfig(t, nil), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if short(a.updater.Ping) == nil {
		t.Error("an updater that does not run answers")
	}
}

func TestSocketActivation(t *testing.T) {
	m := newManager(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = l.Close(), f.Close() }()
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Listen.HTTP = l.Addr().String() })
	for range 2 { // the address is taken all the time, and a second life has it again
		c := startCoreWith(t, cfg, []*os.File{f}, "NOTIFY_SOCKET="+m.path, "LISTEN_FDS=1", "LISTEN_FDNAMES=http")
		if c.http != cfg.Listen.HTTP {
			t.Errorf("serves on %s", c.http)
		}
		at := m.until(t, 0, "READY=1")
		c.until(t, cfg, "an answer", func(st *control.Status) bool { return st.Live })
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		m.until(t, at, "STOPPING=1")
		if err := c.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	var st *control.Status
	c := startCoreWith(t, cfg, []*os.File{f}, "NOTIFY_SOCKET="+m.path, "LISTEN_FDS=1", "LISTEN_FDNAMES=http")
	c.until(t, cfg, "the run before", func(s *control.Status) bool { st = s; return true })
	if !strings.HasPrefix(st.LastRun, "it was stopped") {
		t.Errorf("the run before: %q", st.LastRun)
	}
}

// Three short lives make a safe start: the version that ends inferd is left alone, the one before serves, and it is said. A change of its files
// has it tried again.
func TestSafeStart(t *testing.T) {
	lib := library(t)
	m := newManager(t)
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Runtime.Library = lib })
	if _, err := modeltest.HalfPlusTwo().Publish(filepath.Join(cfg.ModelsDir, "m"), 1); err != nil {
		t.Fatal(err)
	}
	c := startCoreWith(t, cfg, nil, "NOTIFY_SOCKET="+m.path)
	c.good(t, cfg, 1)
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	dir, err := modeltest.HalfPlusTwo().Publish(filepath.Join(cfg.ModelsDir, "m"), 2)
	if err != nil {
		t.Fatal(err)
	}
	for range safeAfter { // it dies as version 2 is loaded
		c = startCoreWith(t, cfg, nil, "NOTIFY_SOCKET="+m.path, envStep+"=trying:"+dir)
		c.died(t)
	}
	c = startCoreWith(t, cfg, nil, "NOTIFY_SOCKET="+m.path)
	c.predict(t, `{"predictions":[[2.5]]}`)
	var st *control.Status
	c.until(t, cfg, "version 2 is left alone", func(s *control.Status) bool {
		st = s
		v := version(s, "m", 2)
		return v != nil && strings.Contains(v.Message, "safe start")
	})
	if !slices.ContainsFunc(st.Conditions, func(c control.Condition) bool {
		return c.Code == "safe_start" && strings.Contains(c.Message, "killed, or crashed")
	}) {
		t.Errorf("conditions: %+v", st.Conditions)
	}
	if v := version(st, "m", 1); v == nil || v.State != "AVAILABLE" {
		t.Errorf("version 1: %+v", v)
	}
	if err := os.WriteFile(filepath.Join(dir, "assets.extra.txt"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.until(t, cfg, "version 2 serves once its files have changed", func(s *control.Status) bool {
		v := version(s, "m", 2)
		return v != nil && v.State == "AVAILABLE"
	})
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestLives(t *testing.T) {
	boot := storage.BootID()
	cfg := testConfig(t, nil)
	now := time.Now()
	for name, c := range map[string]struct {
		list  []life
		short int
		text  string
	}{
		"none":       {nil, 0, ""},
		"stopped":    {[]life{{Boot: boot, Started: now.Add(-time.Second), Ended: now, How: endStopped}}, 0, "it was stopped after 1s"},
		"killed":     {[]life{{Boot: boot}, {Boot: boot}}, 2, "it was killed, or crashed"},
		"watchdog":   {[]life{{Boot: boot, How: "watchdog"}}, 1, "watchdog"},
		"memory":     {[]life{{Boot: boot, How: "oom-kill"}}, 1, "for memory"},
		"signal":     {[]life{{Boot: boot, How: "signal", Text: "killed KILL"}}, 1, "it ended by signal (killed KILL)"},
		"gave up":    {[]life{{Boot: boot, How: endFailed, Text: "port in use"}}, 1, "gave up: port in use"},
		"long":       {[]life{{Boot: boot}, {Boot: boot, Long: true}}, 0, "killed, or crashed"},
		"then short": {[]life{{Boot: boot, Long: true}, {Boot: boot}}, 1, "killed, or crashed"},
		"power":      {[]life{{Boot: boot}, {Boot: "another"}}, 0, "lost power"},
	} {
		l := &lives{path: filepath.Join(t.TempDir(), livesFile), list: c.list, log: slog.New(slog.DiscardHandler)}
		last, shorts := l.begin("test")
		if shorts != c.short || !strings.Contains(last, c.text) || (c.text == "") != (last == "") {
			t.Errorf("%s: %d short lives, %q", name, shorts, last)
		}
	}
	for n, want := range map[int]time.Duration{0: 0, 1: 0, 2: time.Second, 4: 4 * time.Second, 50: LongestPause} {
		if got := Pause(n); got != want {
			t.Errorf("after %d short lives: %s", n, got)
		}
	}
	l := openLives(cfg, slog.New(slog.DiscardHandler))
	for range 2 * keptLives {
		l.begin("test")
	}
	NoteEnd(cfg, "watchdog", "dumped ABRT", slog.New(slog.DiscardHandler))
	l = openLives(cfg, slog.New(slog.DiscardHandler))
	if n := len(l.list); n != keptLives || l.list[n-1].How != "watchdog" {
		t.Errorf("%d lives, the last %+v", n, l.list[n-1])
	}
	if err := os.WriteFile(filepath.Join(cfg.StateDir, livesFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l = openLives(cfg, slog.New(slog.DiscardHandler)); len(l.list) != 0 || l.shorts() != 0 {
		t.Errorf("a damaged file gives %+v", l.list)
	}
}
