// control_test.go: client and server over a real socket, and what may lie where the socket should be.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/inferd/inferd/appliance/access"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shortDir is a temporary directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// door serves o on a socket for the length of the test.
func door(t *testing.T, o Options) (path string) {
	t.Helper()
	path = filepath.Join(shortDir(t), "sub", "c.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if o.REST == nil {
		o.REST = http.NotFoundHandler()
	}
	s := &http.Server{Handler: Handler(o)}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return path
}

func client(t *testing.T, address string) *Client {
	c := Dial(address)
	t.Cleanup(c.Close)
	return c
}

func TestStatusAndRescan(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	want := Status{
		Version: "v9", PID: 7, Since: now, Live: true, GRPC: "127.0.0.1:8500", Runtime: Runtime{Library: "/l.so", Isolation: "version"},
		Conditions: []Condition{{Code: "x", Severity: "warning", Model: "m", Message: "words", Since: now}},
		Models: []Model{{Name: "m", BasePath: "/m", Ready: true, Versions: []Version{
			{Number: 3, State: "AVAILABLE", Stage: "live", Since: now, Worker: &Worker{PID: 8, State: "live", PrivateBytes: 1 << 40, Restarts: 2}}}}},
	}
	var rescans atomic.Int64
	c := client(t, door(t, Options{Status: func() Status { return want }, Rescan: func() { rescans.Add(1) }}))
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
	if err := c.Rescan(t.Context()); err != nil || rescans.Load() != 1 {
		t.Errorf("%v, rescanned %d times", err, rescans.Load())
	}
	// A rescan changes the appliance: looking is not enough.
	if code, _, err := c.Do(t.Context(), http.MethodGet, "/control/rescan", nil); err != nil || code == http.StatusNoContent || rescans.Load() != 1 {
		t.Errorf("GET answers %d, %v; rescanned %d times", code, err, rescans.Load())
	}
}

func TestRESTOnTheSocket(t *testing.T) {
	rest := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		json.NewEncoder(w).Encode(map[string]string{"path": r.URL.Path, "body": string(body), "timeout": r.Header.Get("Request-Timeout")})
	})
	c := client(t, door(t, Options{REST: rest}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	code, answer, err := c.Do(ctx, http.MethodPost, "/v1/models/m:predict", []byte("in"))
	if err != nil || code != http.StatusOK {
		t.Fatal(code, err)
	}
	var got map[string]string
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	if got["path"] != "/v1/models/m:predict" || got["body"] != "in" || !strings.HasPrefix(got["timeout"], "3") {
		t.Errorf("%v: the server must hear the path, the body and a deadline of just under 3600 s", got)
	}
	_, answer, err = c.Do(t.Context(), http.MethodGet, "/x", nil)
	if err != nil || !strings.Contains(string(answer), `"timeout":""`) {
		t.Errorf("no deadline, but: %s, %v", answer, err)
	}
}

func TestListenReplacesOnlyWhatIsDead(t *testing.T) {
	path := filepath.Join(shortDir(t), "c.sock")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v; want 0660", st.Mode(), err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrAnswered) || !strings.Contains(err.Error(), path) {
		t.Errorf("a second one on a live socket: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first one's socket is gone: %v", err)
	} else {
		c.Close()
	}

	// Killed: the file stays, and nobody answers.
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(path)
	if err != nil {
		t.Fatalf("on a dead socket: %v", err)
	}
	second.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays after a clean end: %v", err)
	}
}

func TestListenLeavesOtherFilesAlone(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("on a file: %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Errorf("the file is %q, %v", b, err)
	}
	if _, err := Listen(dir); err == nil {
		t.Error("on a directory")
	}
	if _, err := Listen(filepath.Join(file, "c.sock")); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("below a file: %v", err)
	}
}

func TestLongPaths(t *testing.T) {
	dir := shortDir(t)
	fits := filepath.Join(dir, strings.Repeat("s", MaxPath-len(dir)-1))
	l, err := Listen(fits)
	if err != nil {
		t.Fatalf("%d bytes: %v", len(fits), err)
	}
	l.Close()
	for _, err := range []error{
		func() error { _, err := Listen(fits + "s"); return err }(),
		func() error { _, err := client(t, fits+"s").Status(t.Context()); return err }(),
	} {
		if err == nil || errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "108 bytes") {
			t.Errorf("one byte too many: %v", err)
		}
	}
}

func TestClientSaysWhatToDo(t *testing.T) {
	dir := shortDir(t)
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	talks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer talks.Close()
	for name, c := range map[string]struct{ address, want string }{
		"nothing there":    {filepath.Join(dir, "none"), "no socket"},
		"nobody there":     {dead, "inferd serve"},
		"another server":   {other.URL, "control socket only"},
		"another language": {talks.URL, "is it an inferd?"},
		"no host":          {"http://", "no address"},
		"another scheme":   {"ftp://x", "no address"},
	} {
		if _, err := client(t, c.address).Status(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	if err := client(t, other.URL).Rescan(t.Context()); err == nil || !strings.Contains(err.Error(), "control socket only") {
		t.Errorf("rescan elsewhere: %v", err)
	}
}

func TestClientKeepsItsDeadline(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	asked := make(chan struct{})
	c := client(t, door(t, Options{REST: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-release
	})}))
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, nil)
	defer cancel()
	ctx, end := context.WithCancel(ctx)
	go func() {
		<-asked
		end()
	}()
	if _, _, err := c.Do(ctx, http.MethodGet, "/x", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	over, cancelOver := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancelOver()
	if _, _, err := c.Do(over, http.MethodGet, "/x", nil); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("past its deadline: %v", err)
	}
}

// Reading is for whom the socket's mode lets in; what changes something is for operators, and for nobody whom the kernel does not name.
func TestOperatorsAlone(t *testing.T) {
	var rescans atomic.Int64
	ops, err := access.NewOperators("")
	if err != nil {
		t.Fatal(err)
	}
	h := Handler(Options{Operators: &ops, Status: func() Status { return Status{} }, Rescan: func() { rescans.Add(1) }, Verbs: scripted{},
		REST: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })})
	ask := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, w.Body.String()
	}
	for _, path := range []string{"/control/rescan", "/control/pin?model=m&version=1", "/control/rollback?model=m", "/control/label?model=m&label=l&version=1"} {
		if code, body := ask("POST", path); code != http.StatusForbidden || !strings.Contains(body, "may read and predict over this socket") || !strings.Contains(body, "access.operators") {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _ := ask("GET", "/control/status"); code != http.StatusOK || rescans.Load() != 0 {
		t.Errorf("status: %d; %d rescans", code, rescans.Load())
	}
	if code, _ := ask("POST", "/v1/models/m:predict"); code != http.StatusTeapot {
		t.Errorf("a prediction: %d", code)
	}

	path := filepath.Join(shortDir(t), "c.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ConnContext: access.ConnContext}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() {
		s.Close()
		<-done
	}()
	if err := client(t, path).Rescan(t.Context()); err != nil || rescans.Load() != 1 {
		t.Errorf("the server's own user: %v, %d", err, rescans.Load())
	}
}
