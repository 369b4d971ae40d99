// harness_test.go: the whole appliance in the test's process, with real workers, real clients and real TensorFlow.
package appliance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tfrt"
)

// patience bounds every wait of the tests; it is spent only where something is broken.
const patience = 60 * time.Second

// TestMain: the test binary is also the zygote (by its constructor), the workers and, for the tests of a core's death, a core.
func TestMain(m *testing.M) {
	if code, worker := Worker(); worker {
		os.Exit(code)
	}
	if path := os.Getenv(envCore); path != "" {
		os.Exit(coreMain(path))
	}
	goleak.VerifyTestMain(m)
}

// library is the directory of the TensorFlow runtime; without one the test is skipped.
func library(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("LIBTENSORFLOW")
	if dir == "" {
		dir = filepath.Join("..", "build", "runtime")
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		_, err = tfrt.Find(dir)
	}
	if err != nil {
		t.Skipf("no TensorFlow runtime in %s: run `make runtime` or set LIBTENSORFLOW (%v)", dir, err)
	}
	return dir
}

// server is one running appliance and the clients that ask it.
type server struct {
	*Appliance
	t      testing.TB
	models string // the models directory
	http   string // base URL
	conn   *grpc.ClientConn
	client *http.Client
	logs   *logs
	cancel context.CancelFunc
	ended  chan struct{} // closed when Run has returned
	err    error         // what it returned; after ended
}

// testConfig is a configuration for a test: free ports, folders of its own, short times. change may be nil.
func testConfig(t testing.TB, change func(*config.Config)) *config.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "inferd") // not t.TempDir: a unix socket's path has room for 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cfg := config.Default()
	cfg.Listen.GRPC, cfg.Listen.HTTP, cfg.Listen.Control = "127.0.0.1:0", "127.0.0.1:0", filepath.Join(dir, "control.sock")
	cfg.ModelsDir, cfg.StateDir = filepath.Join(dir, "models"), filepath.Join(dir, "state")
	cfg.Runtime.Library = filepath.Join(dir, "no-runtime")
	cfg.Runtime.Isolation = config.IsolationVersion // also where the machine has a GPU
	cfg.Defaults.Probation.Time = 0                 // what is tested elsewhere wants the old version gone at once
	cfg.Defaults.Optimize = config.OptimizeOff      // likewise: it takes a second
	cfg.Runtime.CanaryInterval = 0                  // likewise: runs that no test has asked for
	cfg.Updater.SettleTime, cfg.Updater.EmptyGrace = 200*time.Millisecond, 0
	if err := os.Mkdir(cfg.ModelsDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(cfg)
	}
	return cfg
}

// serve runs an appliance with TensorFlow until the test's end. Its models directory is empty unless change fills it.
func serve(t testing.TB, change func(*config.Config)) *server {
	t.Helper()
	lib := library(t)
	return run(t, testConfig(t, func(cfg *config.Config) {
		cfg.Runtime.Library = lib
		if change != nil {
			change(cfg)
		}
	}))
}

// run runs an appliance until the test's end, which must come without an error and leave no process behind.
func run(t testing.TB, cfg *config.Config) *server {
	t.Helper()
	return runWith(t, cfg, func(*Appliance) {})
}

// runWith is run with a change to the appliance before it starts.
func runWith(t testing.TB, cfg *config.Config, change func(*Appliance)) *server {
	t.Helper()
	s := &server{t: t, models: cfg.ModelsDir, logs: newLogs(), ended: make(chan struct{})}
	type doors struct{ grpc, http net.Addr }
	open := make(chan doors, 1)
	var err error
	s.Appliance, err = New(cfg, Options{
		Version: "test", Log: slog.New(slog.NewJSONHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Ready: func(grpc, http net.Addr) { open <- doors{grpc, http} },
	})
	if err != nil {
		t.Fatal(err)
	}
	change(s.Appliance)
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		defer close(s.ended)
		s.err = s.Run(ctx)
	}()
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("Run ended with %v", err)
		}
		for _, pid := range children(os.Getpid()) {
			t.Errorf("process %d (%s) lives on", pid, comm(pid))
		}
		if t.Failed() {
			t.Logf("the appliance's log:\n%s", s.logs.tail(60))
		}
	})
	select {
	case at := <-open:
		s.http = "http://" + at.http.String()
		s.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
		s.conn, err = grpc.NewClient(at.grpc.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
	case <-s.ended:
		t.Fatalf("Run ended with %v", s.err)
	case <-time.After(patience):
		t.Fatal("the doors did not open")
	}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		_ = s.conn.Close()
	})
	return s
}

// with is s for a subtest.
func (s *server) with(t testing.TB) *server {
	sub := *s
	sub.t = t
	return &sub
}

// listed is a model as the configuration lists it, in the models directory.
func listed(cfg *config.Config, name string) config.Model {
	m, _ := cfg.Model(name)
	return m
}

// ready checks what the readiness endpoint answers about the model, or about the appliance when it is empty.
func (s *server) ready(model string, want int) {
	s.t.Helper()
	for _, path := range []string{"/readyz", "/v2/health/ready"} {
		if model != "" {
			path += "?model=" + model
		}
		if code, body := s.get(path); code != want {
			s.t.Errorf("%s answers %d %q, want %d", path, code, body, want)
		}
	}
}

// stop asks the appliance to end, as SIGTERM does, and returns what Run did.
func (s *server) stop() error {
	s.cancel()
	select {
	case <-s.ended:
		return s.err
	case <-time.After(patience):
		return fmt.Errorf("not within %v", patience)
	}
}

// publish renames a version into place.
func (s *server) publish(model string, version int64, m *modeltest.Model) (dir string) {
	s.t.Helper()
	dir, err := m.Publish(filepath.Join(s.models, model), version)
	if err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// until waits for a status that is as wanted.
func (s *server) until(what string, ok func(*control.Status) bool) *control.Status {
	s.t.Helper()
	end := time.After(patience)
	for {
		changed := s.changed()
		st := s.Status()
		if ok(&st) {
			return &st
		}
		select {
		case <-changed:
		case <-end:
			text, _ := json.MarshalIndent(st, "", "  ")
			s.t.Fatalf("never came: %s\n%s\nlog:\n%s", what, text, s.logs.tail(40))
		}
	}
}

// version is one version in a status, nil when it is not there.
func version(st *control.Status, model string, number int64) *control.Version {
	for i := range st.Models {
		if m := &st.Models[i]; m.Name == model {
			for j := range m.Versions {
				if m.Versions[j].Number == number {
					return &m.Versions[j]
				}
			}
		}
	}
	return nil
}

// live waits until the version is live and its worker answers.
func (s *server) live(model string, number int64) *control.Version {
	s.t.Helper()
	st := s.until(fmt.Sprintf("model %s version %d live", model, number), func(st *control.Status) bool { return isLive(st, model, number) })
	return version(st, model, number)
}

func isLive(st *control.Status, model string, number int64) bool {
	v := version(st, model, number)
	return v != nil && v.Stage == "live" && (v.Worker == nil || v.Worker.State == "live" && v.Worker.PID != 0)
}

// staged waits until the version is in the updater's state and its message contains every one of texts.
func (s *server) staged(model string, number int64, stage string, texts ...string) *control.Version {
	s.t.Helper()
	st := s.until(fmt.Sprintf("model %s version %d %s because of %q", model, number, stage, texts), func(st *control.Status) bool {
		v := version(st, model, number)
		return v != nil && v.Stage == stage && containsAll(v.Message, texts)
	})
	return version(st, model, number)
}

func containsAll(s string, all []string) bool {
	return !slices.ContainsFunc(all, func(part string) bool { return !strings.Contains(s, part) })
}

// failure is an answer that is no prediction.
type failure struct {
	Code codes.Code // of gRPC; REST's status as api.HTTPStatus has it is in HTTP
	HTTP int
	Text string
}

func (f *failure) Error() string { return fmt.Sprintf("%v (HTTP %d): %s", f.Code, f.HTTP, f.Text) }

// rest posts a body to the model and returns status and answer.
func (s *server) rest(ctx context.Context, path, body string, header ...string) (int, []byte, error) {
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, s.http+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// get is a GET whose failure fails the test.
func (s *server) get(path string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	code, answer, err := s.rest(ctx, path, "")
	if err != nil {
		s.t.Fatal(err)
	}
	return code, string(answer)
}

// askREST predicts column x over REST.
func (s *server) askREST(ctx context.Context, model string, x []float32, header ...string) ([]float32, error) {
	rows := make([][]float32, len(x))
	for i, v := range x {
		rows[i] = []float32{v}
	}
	body, err := json.Marshal(map[string]any{"instances": rows})
	if err != nil {
		return nil, err
	}
	code, answer, err := s.rest(ctx, "/v1/models/"+model+":predict", string(body), header...)
	if err != nil {
		return nil, err
	}
	var got struct {
		Predictions [][]float32
		Error       string
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return nil, fmt.Errorf("%d %s: %w", code, answer, err)
	}
	if code != http.StatusOK {
		return nil, &failure{Code: codes.Unknown, HTTP: code, Text: got.Error}
	}
	return slices.Concat(got.Predictions...), nil
}

// askGRPC predicts column x over gRPC.
func (s *server) askGRPC(ctx context.Context, model string, x []float32) ([]float32, error) {
	return s.callGRPC(ctx, model, "", map[string]*tensorpb.TensorProto{"x": column(x...)}, "y")
}

// callGRPC calls a signature and returns the numbers of one output.
func (s *server) callGRPC(ctx context.Context, model, signature string, inputs map[string]*tensorpb.TensorProto, output string) ([]float32, error) {
	req := &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: model, SignatureName: signature}, Inputs: inputs}
	resp := new(pb.PredictResponse)
	if err := s.conn.Invoke(ctx, "/tensorflow.serving.PredictionService/Predict", req, resp); err != nil {
		st := status.Convert(err)
		return nil, &failure{Code: st.Code(), Text: st.Message()}
	}
	return resp.GetOutputs()[output].GetFloatVal(), nil
}

// ask predicts over both protocols in turn and fails the test when one does not answer want.
func (s *server) ask(model string, x, want []float32) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := s.askREST(ctx, model, x)
	if err != nil || !slices.Equal(got, want) {
		s.t.Fatalf("REST: model %s answered %v, %v to %v, want %v", model, got, err, x, want)
	}
	if got, err = s.askGRPC(ctx, model, x); err != nil || !slices.Equal(got, want) {
		s.t.Fatalf("gRPC: model %s answered %v, %v to %v, want %v", model, got, err, x, want)
	}
}

// column is a FLOAT tensor of shape [n,1].
func column(x ...float32) *tensorpb.TensorProto {
	return &tensorpb.TensorProto{
		Dtype: typespb.DataType_DT_FLOAT, FloatVal: x,
		TensorShape: &shapepb.TensorShapeProto{Dim: []*shapepb.TensorShapeProto_Dim{{Size: int64(len(x))}, {Size: 1}}},
	}
}

// logs collects JSON log lines that can be waited for.
type logs struct {
	mu    sync.Mutex
	lines [][]byte      // guarded by mu
	more  chan struct{} // guarded by mu; closed and replaced at each line
}

func newLogs() *logs { return &logs{more: make(chan struct{})} }

// Write implements io.Writer; slog writes one line at a time.
func (l *logs) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes.Contains(line, []byte(`"msg":"request"`)) {
		return len(line), nil // one per request would bury the rest
	}
	l.lines = append(l.lines, bytes.Clone(line))
	close(l.more)
	l.more = make(chan struct{})
	return len(line), nil
}

// wait returns the first line, from the beginning, with these attributes (key, value, ...), a value being a part of the attribute's.
func (l *logs) wait(t testing.TB, want ...string) map[string]any {
	t.Helper()
	end := time.After(patience)
	for next := 0; ; {
		l.mu.Lock()
		lines, more := l.lines[next:], l.more
		next = len(l.lines)
		l.mu.Unlock()
		for _, line := range lines {
			attrs := make(map[string]any)
			if err := json.Unmarshal(line, &attrs); err != nil {
				t.Fatalf("log line %s: %v", line, err)
			}
			ok := true
			for i := 0; i+1 < len(want); i += 2 {
				v, has := attrs[want[i]]
				ok = ok && has && strings.Contains(fmt.Sprint(v), want[i+1])
			}
			if ok {
				return attrs
			}
		}
		select {
		case <-more:
		case <-end:
			t.Fatalf("no log line with %q; the last are\n%s", want, l.tail(40))
		}
	}
}

func (l *logs) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.Join(l.lines[max(0, len(l.lines)-n):], nil))
}

// children are the processes whose parent is pid, zombies too.
func children(pid int) (out []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // state, parent, ...
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			out = append(out, child)
		}
	}
	return out
}

// described says of each process what a failed count of them must be understood by.
func described(pids []int) string {
	var b strings.Builder
	for _, pid := range pids {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it may have ended
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		state := ""
		for _, l := range strings.Split(string(status), "\n") {
			if strings.HasPrefix(l, "State:") {
				state = strings.TrimSpace(strings.TrimPrefix(l, "State:"))
			}
		}
		fmt.Fprintf(&b, " %d %s, %s, %q;", pid, comm(pid), state, bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
	}
	return b.String()
}

func comm(pid int) string {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)) // it may have ended
	return strings.TrimSpace(string(name))
}

// watch opens a process so that its end can be waited for, whatever happens to its number.
func watch(t testing.TB, pid int) (ended func(t testing.TB)) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("watch process %d: %v", pid, err)
	}
	closeOnce := sync.OnceFunc(func() { _ = unix.Close(fd) })
	t.Cleanup(closeOnce)
	return func(t testing.TB) {
		t.Helper()
		defer closeOnce()
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				t.Fatalf("process %d lives on (%v)", pid, err)
			}
			return
		}
	}
}

func kill(t testing.TB, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("send %v to process %d: %v", sig, pid, err)
	}
}
