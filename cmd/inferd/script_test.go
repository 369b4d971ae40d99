// script_test.go: runs testdata/*.txtar against the real command line; here are the words that the scripts have beside testscript's own.
//
//	exits N COMMAND...         runs COMMAND and wants the exit code N
//	model NAME DIR             writes the test model NAME into the version folder DIR
//	answers SOCKET             waits until the inferd behind SOCKET answers, and sets $GRPC and $HTTP
//	ready SOCKET [MODEL N]     the same, and until it is ready (or has version N of MODEL live)
//	refused SOCKET MODEL N     the same, until version N of MODEL has been refused
//	json FILE                  wants FILE (stdout, stderr) to be one JSON value
//	hold VAR                   sets $VAR to an address of this machine that is in use until the script ends
//	freeport VAR               sets $VAR to a port that nothing has at the moment
//	hup SOCKET                 sends SIGHUP to the inferd behind SOCKET
//	condition SOCKET CODE      waits until the inferd behind SOCKET has a condition with that code
//	gone SOCKET MODEL          waits until the inferd behind SOCKET has no live version of MODEL
//	end SIGNAL SOCKET          sends SIGNAL to the inferd behind SOCKET, and waits until nobody answers
//	mode FILE OCTAL            wants FILE's permissions
//	file f32 FILE NUMBERS...   writes little-endian floats; file npy FILE SHAPE NUMBERS... the same as NumPy does; file zeros FILE SIZE
//	                           file png|jpg FILE W H GRAY a picture of one colour; file wav FILE RATE SAMPLES... sound in one channel
//	get URL                    prints the status and the body of a page
//	page URL                   waits until the page is there and answers 200
//	examples PAGE FILE         writes the shell examples of docs/PAGE into FILE, with inferd asked at $CTL
//	exec oldkernel COMMAND...  runs COMMAND where the kernel has no Landlock
//	long VAR DIR N             sets $VAR to a path in DIR of N bytes
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/worker"
)

// patience is how long a script waits for what must come; it is not how long it should take.
const patience = 90 * time.Second

func TestMain(m *testing.M) {
	if code, worker := appliance.Worker(); worker {
		os.Exit(code)
	}
	beBackup()
	run := func() { os.Exit(cli(os.Args, os.Stdin, os.Stdout, os.Stderr)) }
	testscript.Main(m, map[string]func(){"inferd": run, servingName: run, "oldkernel": oldKernel})
}

// tensorflow is the directory with the runtime, "" when there is none.
func tensorflow(t *testing.T) string {
	dir := os.Getenv("LIBTENSORFLOW")
	if dir == "" {
		_, file, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(file), "..", "..", "build", "runtime")
	}
	if found, err := filepath.Glob(filepath.Join(dir, "libtensorflow*.so*")); err != nil || len(found) == 0 {
		t.Logf("no TensorFlow runtime in %s: scripts that need it are skipped; `make runtime` fetches it, LIBTENSORFLOW names another", dir)
		return ""
	}
	return dir
}

func TestScripts(t *testing.T) {
	lib := tensorflow(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			// The machine's own configuration, runtime and sockets are nobody's business here.
			e.Setenv("XDG_RUNTIME_DIR", "")
			e.Setenv("INFERD_RUNTIME", filepath.Join(e.WorkDir, "no-runtime"))
			if lib != "" {
				e.Setenv("INFERD_RUNTIME", lib)
			}
			e.Setenv("CTL", filepath.Join(e.WorkDir, "ctl"))
			e.Setenv("QUICK", "--updater.settle_time=200ms")
			e.Setenv("PLAIN", "--defaults.optimize=off") // measuring takes a second for each model
			e.Setenv("PYTHON", python())
			return writeExamples(e)
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "tensorflow":
				return lib != "", nil
			case "landlock": // and seccomp: models can be confined
				return worker.ProbeConfinement().Full(), nil
			case "root":
				return os.Getuid() == 0, nil
			case "pythonclient": // of the end-to-end tests
				_, err := os.Stat(python())
				return err == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "model": cmdModel, "answers": cmdAnswers, "ready": cmdReady, "refused": cmdRefused, "freeport": cmdFreePort, "json": cmdJSON, "hold": cmdHold, "end": cmdEnd, "hup": cmdHup, "gone": cmdGone, "condition": cmdCondition, "mode": cmdMode,
			"file": cmdFile, "get": cmdGet, "page": cmdPage, "long": cmdLong, "examples": cmdExamples,
		},
	})
}

func want(ts *testscript.TestScript, neg bool, ok bool, usage string) {
	if neg {
		ts.Fatalf("! is not supported here")
	}
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) >= 2, "exits N command ...")
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var ended *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &ended) {
		got = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != code {
		ts.Fatalf("exit code %d, want %d", got, code)
	}
}

func cmdModel(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 2, "model NAME DIR")
	build, ok := modeltest.All()[args[0]]
	if !ok {
		ts.Fatalf("no test model is called %s", args[0])
	}
	ts.Check(build().Save(ts.MkAbs(args[1])))
}

// poll calls f until it is done. What it waits for is a process's state, which tells nobody when it changes.
func poll(ts *testscript.TestScript, what string, f func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}

func cmdAnswers(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1, "answers SOCKET")
	await(ts, args[0], func(*control.Status) error { return nil })
}

func cmdReady(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1 || len(args) == 3, "ready SOCKET [MODEL N]")
	await(ts, args[0], func(s *control.Status) error {
		if len(args) == 3 {
			return versionIs(s, args[1], args[2], func(v control.Version) bool { return v.State == "AVAILABLE" })
		}
		if !s.Ready {
			return fmt.Errorf("not ready: %+v", s.Conditions)
		}
		return nil
	})
}

func cmdRefused(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 3, "refused SOCKET MODEL N")
	await(ts, args[0], func(s *control.Status) error {
		return versionIs(s, args[1], args[2], func(v control.Version) bool { return v.Stage == "quarantined" })
	})
}

// versionIs wants the model's version to be as is says.
func versionIs(s *control.Status, model, number string, is func(control.Version) bool) error {
	for _, m := range s.Models {
		for _, v := range m.Versions {
			if m.Name == model && strconv.FormatInt(v.Number, 10) == number && is(v) {
				return nil
			}
		}
	}
	return fmt.Errorf("version %s of %s is not there yet: %+v", number, model, s.Models)
}

// await asks the inferd behind the socket until it is as is says.
func await(ts *testscript.TestScript, socket string, is func(*control.Status) error) {
	c := control.Dial(ts.MkAbs(socket))
	defer c.Close()
	poll(ts, socket, func(ctx context.Context) error {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		ts.Setenv("GRPC", s.GRPC)
		ts.Setenv("HTTP", s.HTTP)
		return is(s)
	})
}

func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1, "json FILE")
	if text := ts.ReadFile(args[0]); !json.Valid([]byte(text)) {
		ts.Fatalf("%s is no JSON: %q", args[0], text)
	}
}

func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1, "hold VAR")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

func cmdFreePort(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1, "freeport VAR")
	l, err := net.Listen("tcp", ":0")
	ts.Check(err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)
}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 2, "end SIGNAL SOCKET")
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
	c := control.Dial(ts.MkAbs(args[1]))
	defer c.Close()
	s, err := c.Status(context.Background())
	ts.Check(err)
	ts.Check(syscall.Kill(s.PID, signals[args[0]]))
	poll(ts, "the end of "+args[1], func(ctx context.Context) error {
		if _, err := c.Status(ctx); err == nil {
			return errors.New("it still answers")
		}
		return nil
	})
}

func cmdHup(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1, "hup SOCKET")
	c := control.Dial(ts.MkAbs(args[0]))
	defer c.Close()
	s, err := c.Status(context.Background())
	ts.Check(err)
	ts.Check(syscall.Kill(s.PID, syscall.SIGHUP))
}

func cmdCondition(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 2, "condition SOCKET CODE")
	await(ts, args[0], func(s *control.Status) error {
		for _, c := range s.Conditions {
			if c.Code == args[1] {
				return nil
			}
		}
		return fmt.Errorf("conditions: %+v", s.Conditions)
	})
}

func cmdGone(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 2, "gone SOCKET MODEL")
	await(ts, args[0], func(s *control.Status) error {
		for _, m := range s.Models {
			if m.Name == args[1] && m.Ready {
				return errors.New("it is still served")
			}
		}
		return nil
	})
}

func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 2, "mode FILE OCTAL")
	st, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", st.Mode().Perm()); got != args[1] {
		ts.Fatalf("mode %s, want %s", got, args[1])
	}
}

func cmdFile(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) >= 3, "file f32|npy|zeros|png|jpg|wav FILE ...")
	var numbers []byte
	floats := func(words []string) {
		for _, w := range words {
			v, err := strconv.ParseFloat(w, 32)
			ts.Check(err)
			numbers = binary.LittleEndian.AppendUint32(numbers, math.Float32bits(float32(v)))
		}
	}
	switch args[0] {
	case "f32":
		floats(args[2:])
	case "npy":
		floats(args[3:])
		numbers = npy("{'descr': '<f4', 'fortran_order': False, 'shape': ("+args[2]+"), }", numbers)
	case "zeros":
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		numbers = make([]byte, n)
	case "png", "jpg", "wav":
		numbers = mediaFile(ts, args[0], args[2:])
	default:
		ts.Fatalf("no such kind of file: %s", args[0])
	}
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[1])), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), numbers, 0o644))
}

func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1, "get URL")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	ts.Check(err)
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = io.Copy(&body, resp.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d\n%s", resp.StatusCode, &body)
}

func cmdPage(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 1, "page URL")
	poll(ts, args[0], func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
		ts.Check(err)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

func cmdLong(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 3, "long VAR DIR N")
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	dir := ts.MkAbs(args[1])
	ts.Setenv(args[0], dir+"/"+strings.Repeat("x", max(1, n-len(dir)-1)))
}
