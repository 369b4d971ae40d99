// main_test.go: the test binary as core, worker, zygote and hostile worker, and the helpers of all tests.
package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

const (
	envHostile = "INFERD_TEST_HOSTILE"
	envCore    = "INFERD_TEST_CORE"
	envNoSpin  = "INFERD_TEST_NO_SPIN" // for comparing: neither side polls
)

func TestMain(m *testing.M) {
	if os.Getenv(envNoSpin) != "" {
		canSpin = false
	}
	switch {
	case IsWorker() && os.Getenv(envHostile) != "":
		hostileMain(os.Getenv(envHostile))
		os.Exit(9)
	case IsWorker() && os.Getenv(EnvWorker) != "" && os.Getenv(EnvWorker) != missingLibrary:
		os.Exit(Main(openReal))
	case IsWorker():
		os.Exit(Main(openFake))
	case os.Getenv(envCore) != "":
		coreMain()
		os.Exit(9)
	}
	goleak.VerifyTestMain(m)
}

// fakeSignatures have one input and one output; the key says what the fake does.
func fakeSignatures() map[string]*inference.Signature {
	all := make(map[string]*inference.Signature)
	for _, key := range []string{"echo", "strings", "hang", "segv", "abort", "exit", "fail", "big", "wrongtype", "late", "spin", "grow", "try"} {
		d := tensor.Float
		if key == "strings" || key == "hang" || key == "try" {
			d = tensor.String
		}
		info := []inference.TensorInfo{{Alias: "x", DType: d, UnknownRank: true}}
		all[key] = &inference.Signature{Key: key, Inputs: info, Outputs: info}
	}
	return all
}

type fakeBackend struct{}

var (
	grownMu sync.Mutex
	grown   [][]byte
)

func openFake(l Load) (Backend, error) {
	switch l.Dir {
	case "refuse":
		return nil, inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "no such op")
	case "nodevice":
		return nil, inference.Errorf(inference.FailedPrecondition, inference.ReasonDevice, "no GPU here")
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
		select {} // another thread may be the one that gets it
	case "hang":
		select {}
	case "held": // until somebody writes into the pipe
		if _, err := os.ReadFile(l.Tags[0]); err != nil {
			return nil, err
		}
	case "once": // loads the first time only
		if _, err := os.Stat(l.Tags[0]); err == nil {
			_ = syscall.Kill(os.Getpid(), syscall.SIGBUS)
			select {}
		}
		_ = os.WriteFile(l.Tags[0], nil, 0o600)
	}
	return &fakeBackend{}, nil
}

func (b *fakeBackend) Close() error {
	fmt.Fprintln(os.Stderr, "unloaded")
	return nil
}

// lateFor is freed when it has been asked a number of times, and checks then that nobody has written over the memory.
type lateFor struct {
	asked atomic.Int64
	mem   []byte
	want  float32
}

func (l *lateFor) Freed() bool {
	if l.asked.Add(1) < 3 {
		return false
	}
	if got := floats(l.mem)[0]; got != l.want {
		fmt.Fprintf(os.Stderr, "late input overwritten: %v, was %v\n", got, l.want)
	} else {
		fmt.Fprintln(os.Stderr, "late input intact")
	}
	return true
}

func (b *fakeBackend) Call(sig *inference.Signature, in []*tensor.Tensor, outputs []int, out func(int, *tensor.Tensor) error) (Late, error) {
	x := in[0]
	switch sig.Key {
	case "hang":
		fmt.Fprintln(os.Stderr, string(x.Strings[0]))
		select {}
	case "spin": // stuck as in C: no preemption point that a Go program would have, and no return
		fmt.Fprintln(os.Stderr, "spinning")
		for n := 0; ; n++ {
			_ = n
		}
	case "grow": // by a megabyte for each run
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		grownMu.Lock()
		grown = append(grown, b)
		grownMu.Unlock()
		return nil, out(0, in[0])
	case "segv":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
		select {}
	case "abort":
		_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
		select {}
	case "exit":
		os.Exit(3)
	case "try": // one of attempts, by name: the answer is how it ended
		return nil, out(0, stringTensor(tryCall(string(x.Strings[0]))))
	case "fail":
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonRuntime, "Incompatible shapes: %v", x.Shape)
	case "big": // as many floats as the input says, each its index
		n := int64(floats(x.Data)[0])
		data := make([]byte, 4*n)
		for i := range n {
			binary.LittleEndian.PutUint32(data[4*i:], uint32(i))
		}
		t, err := tensor.New(tensor.Float, tensor.Shape{n}, data)
		if err != nil {
			return nil, err
		}
		for i := range outputs {
			if err := out(i, t); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case "wrongtype":
		return nil, out(0, &tensor.Tensor{DType: tensor.Int32, Shape: x.Shape, Data: x.Data})
	case "late":
		return &lateFor{mem: x.Data, want: floats(x.Data)[0]}, out(0, x)
	}
	for i := range outputs {
		if err := out(i, x); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// floats are the numbers of up to a few elements.
func floats(data []byte) []float32 {
	f := make([]float32, len(data)/4)
	if _, err := binary.Decode(data, binary.LittleEndian, f); err != nil {
		panic(err)
	}
	return f
}

func floatTensor(values ...float32) *tensor.Tensor {
	data, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		panic(err)
	}
	return &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{int64(len(values))}, Data: data}
}

func stringTensor(values ...string) *tensor.Tensor {
	t := &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{int64(len(values))}}
	for _, v := range values {
		t.Strings = append(t.Strings, []byte(v))
	}
	return t
}

func runOf(key string, t *tensor.Tensor) *inference.Run {
	return &inference.Run{Signature: fakeSignatures()[key], Inputs: []tensor.Parts{tensor.One(t)}, Outputs: []int{0}}
}

// testHost is a running Host whose workers' output can be waited for.
type testHost struct {
	*Host
	mu    sync.Mutex
	lines []string
	heard chan struct{} // closed and replaced at each line
}

func startHost(tb testing.TB, zygote bool, env ...string) *testHost {
	tb.Helper()
	return startHostWith(tb, HostOptions{UseZygote: zygote, Env: env})
}

func startHostWith(tb testing.TB, opts HostOptions) *testHost {
	tb.Helper()
	th := &testHost{heard: make(chan struct{})}
	opts.Stderr = func(model string, version int64, line string) {
		th.mu.Lock()
		defer th.mu.Unlock()
		th.lines = append(th.lines, fmt.Sprintf("%s/%d %s", model, version, line))
		close(th.heard)
		th.heard = make(chan struct{})
	}
	th.Host = NewHost(opts)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = th.Run(ctx) })
	tb.Cleanup(func() { stop(); wg.Wait() })
	return th
}

// patience bounds every wait of the tests; it is spent only where something is broken.
const patience = 60 * time.Second

// wait blocks until a worker has written a line that contains text, and forgets the lines up to it.
func (th *testHost) wait(tb testing.TB, text string) string {
	tb.Helper()
	end := time.After(patience)
	for {
		th.mu.Lock()
		for i, line := range th.lines {
			if strings.Contains(line, text) {
				th.lines = th.lines[i+1:]
				th.mu.Unlock()
				return line
			}
		}
		heard := th.heard
		th.mu.Unlock()
		select {
		case <-heard:
		case <-end:
			tb.Fatalf("no worker wrote %q; they wrote %q", text, th.lines)
		}
	}
}

func fakeLoad(name string) Load {
	return Load{Model: name, Version: 7, Dir: "fake", Signatures: fakeSignatures(), Callers: 2}
}

func open(tb testing.TB, h *testHost, l Load, o Options) *Model {
	tb.Helper()
	m, err := h.Open(context.Background(), l, o)
	for end := time.Now().Add(patience); o.Gently && errors.Is(err, inference.ErrStarved) && time.Now().Before(end); {
		m, err = h.Open(context.Background(), l, o) // what else is being tested has had every processor for seconds
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = m.Close() })
	return m
}

// echo checks that m answers.
func echo(tb testing.TB, m *Model, values ...float32) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	res, err := m.Run(ctx, runOf("echo", floatTensor(values...)))
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Release()
	if got := floats(res.Outputs[0].Data); fmt.Sprint(got) != fmt.Sprint(values) {
		tb.Fatalf("echo answered %v, sent %v", got, values)
	}
}

// states is an OnState that can be waited for.
type states chan string

func newStates() states { return make(chan string, 100) } // more than any test makes

func (s states) on(st State, reason string) { s <- st.String() + " " + reason }

func (s states) wait(tb testing.TB, text string) string {
	tb.Helper()
	end := time.After(patience)
	for {
		select {
		case got := <-s:
			if strings.Contains(got, text) {
				return got
			}
		case <-end:
			tb.Fatalf("never reached state %q", text)
		}
	}
}

// pidfd watches a process that need not be a child.
func pidfd(tb testing.TB, pid int) int {
	tb.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		tb.Fatalf("watch process %d: %v", pid, err)
	}
	tb.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func waitEnd(tb testing.TB, fd int) {
	tb.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 || err != nil {
			tb.Fatalf("a process lives on: %d, %v", n, err)
		}
		return
	}
}
