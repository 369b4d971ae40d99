// bench: the figures that the project is held to, as ratios against something run in the same minute on the same machine.
//
//	bench -inferd build/inferd [-only rest,grpc] [-pairs 10] [-seconds 2]
//	bench -inferd build/inferd -versus build/inferd.before
//
// Each line is the median of the pairs with its distribution-free 95 % interval; a bound holds when the interval touches it.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/tools/measure"
)

// quiet keeps TensorFlow's notes, where it runs in the measured process itself, out of the figures.
const quiet = "TF_CPP_MIN_LOG_LEVEL=2"

// bench is one run of the tool.
type bench struct {
	inferd  string
	versus  string // another binary, to judge a change by
	runtime string // directory of libtensorflow
	work    string
	n       int
	each    time.Duration
	callers int

	swapCount int // how often the swaps figure replaces the model
	jobs      int // of the queue-churn figure
}

func main() {
	if code, worker := appliance.Worker(); worker {
		os.Exit(code)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	b := &bench{runtime: os.Getenv("LIBTENSORFLOW"), callers: runtime.NumCPU()}
	if b.runtime == "" {
		b.runtime = filepath.Join("build", "runtime")
	}
	flag.StringVar(&b.inferd, "inferd", "build/inferd", "the binary to measure")
	flag.IntVar(&b.n, "pairs", 10, "alternating pairs per figure, at least 10 for a figure that counts")
	seconds := flag.Float64("seconds", 2, "length of one side of a pair")
	flag.StringVar(&b.versus, "versus", "", "without -only: measure the small model against this binary, with flags after a space. With -only p99-load: measure it too")
	flag.IntVar(&b.swapCount, "swaps", 20, "how often the swaps figure replaces the model")
	flag.IntVar(&b.jobs, "jobs", 20_000, "how many jobs the queue-churn figure runs through")
	only := flag.String("only", "", "figures to measure, with commas: "+strings.Join(names(), ","))
	child := flag.String("child", "", "internal: what this process is to be")
	flag.Parse()
	b.each = time.Duration(*seconds * float64(time.Second))
	if *child != "" {
		return b.child(*child, flag.Args())
	}
	var err error
	if b.work, err = os.MkdirTemp("", "inferd-bench-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.work) }()
	if err := b.models(); err != nil {
		return err
	}
	fmt.Printf("%s, %d cores; %d pairs of %s each\n", cpuModel(), runtime.NumCPU(), b.n, b.each)
	if b.versus != "" && *only == "" {
		return b.against()
	}
	for _, f := range figures {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), f.name) {
			continue
		}
		if err := f.run(b); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// figures in the order in which they are printed.
var figures = []struct {
	name string
	run  func(*bench) error
}{
	{"rest", (*bench).rest}, {"grpc", (*bench).grpc}, {"mobilenet", (*bench).mobilenet}, {"rest-memory", (*bench).atRest}, {"fork", (*bench).fork},
	{"latency", (*bench).latency}, {"idle", (*bench).idle}, {"denormals", (*bench).denormals}, {"isolation", (*bench).isolation}, {"swaps", (*bench).swaps},
	{"p99-load", (*bench).p99Load}, {"overload", (*bench).overload}, {"quota", (*bench).quota}, {"clients", (*bench).clients}, {"arrival", (*bench).arrival}, {"stream", (*bench).stream}, {"many-models", (*bench).manyModels}, {"queue", (*bench).queue}, {"queue-million", (*bench).million}, {"queue-churn", (*bench).queueChurn},
	{"oip", (*bench).oip}, {"oip-stream", (*bench).oipStream}, {"cold", (*bench).cold},
}

func names() (all []string) {
	for _, f := range figures {
		all = append(all, f.name)
	}
	return all
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "model name\t: "); ok {
			return rest
		}
	}
	return runtime.GOARCH
}

// models writes the small model; MobileNetV2 is made by tools/bench/export.py when it is first needed.
func (b *bench) models() error {
	_, err := modeltest.TwoLayer().Publish(filepath.Join(b.work, "models", "two_layer"), 1)
	return err
}

// server is a child process that serves.
type server struct {
	cmd        *exec.Cmd
	stdin      io.Closer
	http, grpc string
	control    string  // the operators' socket
	cpu, calls float64 // seconds that it and its children took for that many calls
}

// rate drives the server and books the processor time that it took.
func (s *server) rate(n int, d time.Duration, open measure.Caller) (float64, error) {
	before := measure.TreeCPU(s.cmd.Process.Pid)
	rate, err := measure.Drive(n, d, open)
	s.cpu += measure.TreeCPU(s.cmd.Process.Pid) - before
	s.calls += rate * d.Seconds()
	return rate, err
}

// cost is the processor time per call in microseconds.
func (s *server) cost() float64 { return s.cpu / s.calls * 1e6 }

func (s *server) stop() {
	if s.stdin != nil {
		_ = s.stdin.Close()
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// serve starts inferd on a models directory and waits until it is ready.
func (b *bench) serve(models string, args ...string) (*server, error) {
	return b.serveBy(http.DefaultClient, "http://", models, args...)
}

// serveBy is serve with a client that asks whether it is ready, at the scheme's door.
func (b *bench) serveBy(client *http.Client, scheme, models string, args ...string) (*server, error) {
	s, err := b.start(b.runtime, models, args...)
	if err != nil {
		return nil, err
	}
	if err := waitReadyBy(client, scheme+s.http+"/readyz", 120*time.Second); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// start starts inferd with the runtime in a directory; empty: with none.
func (b *bench) start(runtime, models string, args ...string) (*server, error) {
	state, err := os.MkdirTemp(b.work, "state-")
	if err != nil {
		return nil, err
	}
	s := &server{http: freeAddress(), grpc: freeAddress(), control: filepath.Join(state, "control.sock")}
	library := runtime
	if library == "" {
		library = filepath.Join(state, "no-runtime")
	}
	binary := strings.Fields(b.inferd)
	args = append(args, binary[1:]...)
	s.cmd = exec.Command(binary[0], append([]string{"serve", "--models-dir", models, "--runtime", library, "--state-dir", state,
		"--listen.control", s.control, "--http", s.http, "--grpc", s.grpc, "--log-level", "warn", "--updater.settle_time", "200ms"}, args...)...)
	s.cmd.Stderr, s.cmd.Env = os.Stderr, append(os.Environ(), quiet)
	if runtime == "" {
		s.cmd.Stderr = nil // every version is refused, in a line of its own
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

func waitReady(url string, limit time.Duration) error {
	return waitReadyBy(http.DefaultClient, url, limit)
}

func waitReadyBy(client *http.Client, url string, limit time.Duration) error {
	end := time.Now().Add(limit)
	for time.Now().Before(end) {
		if resp, err := client.Get(url); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("%s was not ready within %s", url, limit)
}

// given are the addresses that freeAddress has returned: the kernel may offer a port again as soon as it is closed.
var given = make(map[string]bool)

func freeAddress() string {
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err) // loopback has no port left: nothing can be measured
		}
		_ = l.Close()
		if address := l.Addr().String(); !given[address] {
			given[address] = true
			return address
		}
	}
}

// self starts this binary as a child that prints its addresses (or figures) on one line.
func (b *bench) self(ctx context.Context, what string, args ...string) (*server, []string, error) {
	me, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, me, append([]string{"-seconds", strconv.FormatFloat(b.each.Seconds(), 'f', -1, 64), "-child", what}, args...)...)
	cmd.Stderr, cmd.Env = os.Stderr, append(os.Environ(), quiet)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, nil, fmt.Errorf("%s ended early: %w", what, err)
	}
	return &server{cmd: cmd, stdin: in}, strings.Fields(line), nil
}

// child is what a process started by self does.
func (b *bench) child(what string, args []string) error {
	switch what {
	case "noop":
		h, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		g, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return noop(h, g)
	case "bare":
		return b.bare(args)
	case "bare-open":
		return bareOpen(args[0])
	case "bare-http":
		return bareHTTP(args)
	default:
		return fmt.Errorf("no child is called %q", what)
	}
}
