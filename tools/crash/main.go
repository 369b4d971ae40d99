// Command crash kills a serving inferd again and again while clients submit jobs, and holds it to its word: every acknowledged job has exactly
// one result, none is lost, none doubled, the queue's file is clean after each kill, and no more was run than the kills explain.
//
//	crash -inferd build/inferd -runtime build/runtime -kills 500
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/storage"
)

// firstInput keeps the clients' inputs apart from those that inferd makes up to prove a version with.
const firstInput = 1000

func main() {
	r := run{jobs: make(map[int]string)}
	flag.StringVar(&r.inferd, "inferd", "build/inferd", "the binary")
	flag.StringVar(&r.runtime, "runtime", os.Getenv("LIBTENSORFLOW"), "the directory with libtensorflow")
	kills := flag.Int("kills", 20, "how often it is killed")
	clients := flag.Int("clients", 4, "how many submit at once")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the moments")
	flag.Parse()
	if err := r.all(*kills, *clients, *seed); err != nil {
		fmt.Fprintf(os.Stderr, "crash: FAILED (seed %d): %v\n", *seed, err)
		os.Exit(1)
	}
}

type run struct {
	inferd, runtime, dir, address string
	http                          http.Client

	mu   sync.Mutex
	next int
	jobs map[int]string // input -> id, of what was acknowledged
}

func (r *run) all(kills, clients int, seed uint64) (failed error) {
	dir, err := os.MkdirTemp("", "inferd-crash-")
	if err != nil {
		return err
	}
	defer func() {
		if failed == nil {
			failed = os.RemoveAll(dir)
		} else {
			fmt.Fprintln(os.Stderr, "crash: what is left lies in", dir)
		}
	}()
	r.dir, r.next = dir, firstInput
	if _, err := modeltest.Witness(filepath.Join(dir, "runs")).Publish(filepath.Join(dir, "models", "m"), 1); err != nil {
		return err
	}
	if r.address, err = freeAddress(); err != nil {
		return err
	}
	config := fmt.Sprintf("models_dir: %s\nstate_dir: %s\nlisten: {http: %q, grpc: \"\", control: %s}\nqueue: {concurrency: 1}\nruntime: {sandbox: \"off\"}\nmodels:\n- {name: m, allow_ops: [PrintV2]}\n", // its model writes a file
		filepath.Join(dir, "models"), filepath.Join(dir, "state"), r.address, filepath.Join(dir, "control.sock"))
	if err := os.WriteFile(filepath.Join(dir, "inferd.yaml"), []byte(config), 0o600); err != nil {
		return err
	}
	daemon, err := r.start()
	if err != nil {
		return err
	}
	defer func() { _ = daemon.Process.Kill(); _ = daemon.Wait() }()

	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() { r.submit(ctx) })
	}
	random := rand.New(rand.NewPCG(seed, 1))
	for n := 1; n <= kills; n++ {
		time.Sleep(time.Duration(random.IntN(600)) * time.Millisecond)
		if err := daemon.Process.Kill(); err != nil {
			stop()
			return err
		}
		_ = daemon.Wait()
		if err := r.check(); err != nil {
			stop()
			return fmt.Errorf("after kill %d: %w", n, err)
		}
		if daemon, err = r.start(); err != nil {
			stop()
			return fmt.Errorf("after kill %d: %w", n, err)
		}
		if n%10 == 0 || n == kills {
			r.mu.Lock()
			fmt.Printf("crash: %d kills, %d jobs acknowledged\n", n, len(r.jobs))
			r.mu.Unlock()
		}
	}
	stop()
	wg.Wait()
	return r.settle(kills)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start returns once the model answers.
func (r *run) start() (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := exec.Command(r.inferd, "serve", "--config", filepath.Join(r.dir, "inferd.yaml"), "--runtime", r.runtime)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		resp, err := r.http.Get("http://" + r.address + "/readyz?model=m")
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return cmd, nil
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return nil, errors.New("inferd was not ready within a minute; see its log")
}

// check holds the file to the store's invariants while nobody has it open.
func (r *run) check() error {
	q, err := storage.OpenQueue(filepath.Join(r.dir, "state", "queue.db"), storage.QueueOptions{ReadOnly: true, Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = q.Close() }()
	report, err := q.Check(context.Background())
	if err == nil && len(report.Faults) > 0 {
		err = fmt.Errorf("the queue's file is not clean: %s", strings.Join(report.Faults, "; "))
	}
	return err
}

// submit sends job after job, each until it is acknowledged, with one key.
func (r *run) submit(ctx context.Context) {
	for ctx.Err() == nil {
		r.mu.Lock()
		x := r.next
		r.next++
		r.mu.Unlock()
		for ctx.Err() == nil {
			id, err := r.post(ctx, x)
			if err == nil {
				r.mu.Lock()
				r.jobs[x] = id
				r.mu.Unlock()
				time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // about as many as one at a time can be run
				break
			}
			time.Sleep(10 * time.Millisecond) // it is being killed and started
		}
	}
}

func (r *run) post(ctx context.Context, x int) (id string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.address+"/v1/models/m:submit", strings.NewReader(fmt.Sprintf(`{"instances": [[%d]]}`, x)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Idempotency-Key", fmt.Sprint("key-", x))
	var got struct{ ID string }
	status, err := r.do(req, &got)
	if err == nil && (status != http.StatusAccepted && status != http.StatusOK || got.ID == "") {
		err = fmt.Errorf("status %d", status)
	}
	return got.ID, err
}

func (r *run) do(req *http.Request, into any) (int, error) {
	resp, err := r.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, json.Unmarshal(b, into)
}

// settle waits for every acknowledged job's result, and counts what was run for it.
func (r *run) settle(kills int) error {
	ids := make(map[string]int)
	for x, id := range r.jobs {
		if other, twice := ids[id]; twice {
			return fmt.Errorf("inputs %d and %d have one job, %s", x, other, id)
		}
		ids[id] = x
		if again, err := r.post(context.Background(), x); err != nil {
			return fmt.Errorf("job %s, sent again: %w", id, err)
		} else if again != id {
			return fmt.Errorf("the key of job %s stands for job %s now", id, again)
		}
		if err := r.result(id, x); err != nil {
			return fmt.Errorf("job %s of input %d: %w", id, x, err)
		}
	}
	if len(ids) == 0 {
		return errors.New("no job was acknowledged: nothing was shown")
	}
	runs, err := r.runs()
	if err != nil {
		return err
	}
	executions, most := 0, 0
	for x := range r.jobs {
		if runs[x] == 0 {
			return fmt.Errorf("input %d has a result, and nothing was run for it", x)
		}
		executions += runs[x]
		most = max(most, runs[x])
	}
	fmt.Printf("crash: %d kills; %d jobs acknowledged, each has one result; %d runs for them, at most %d for one; the queue was clean after each kill\n", kills, len(ids), executions, most)
	if executions > len(ids)+kills {
		return fmt.Errorf("%d runs for %d jobs and %d kills", executions, len(ids), kills)
	}
	return nil
}

func (r *run) result(id string, x int) error {
	for end := time.Now().Add(2 * time.Minute); ; {
		req, err := http.NewRequest(http.MethodGet, "http://"+r.address+"/v1/jobs/"+id+"?wait=10", nil)
		if err != nil {
			return err
		}
		var job struct{ State, Error string }
		if _, err := r.do(req, &job); err != nil {
			return err
		}
		if job.State == "done" {
			break
		}
		if job.State != "queued" && job.State != "leased" || time.Now().After(end) {
			return fmt.Errorf("it is %s: %s", job.State, job.Error)
		}
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+r.address+"/v1/jobs/"+id+"/result", nil)
	if err != nil {
		return err
	}
	var got struct{ Predictions [][]float64 }
	status, err := r.do(req, &got)
	if err == nil && (status != http.StatusOK || len(got.Predictions) != 1 || got.Predictions[0][0] != float64(x)/2+2) {
		err = fmt.Errorf("its result is %v with status %d", got, status)
	}
	return err
}

// runs counts, per input, the runs that had it.
func (r *run) runs() (map[int]int, error) {
	f, err := os.Open(filepath.Join(r.dir, "runs"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	count := make(map[int]int)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		for word := range strings.SplitSeq(lines.Text(), ",") {
			if x, err := strconv.ParseFloat(strings.TrimSpace(word), 64); err == nil && x >= firstInput {
				count[int(x)]++
			}
		}
	}
	return count, lines.Err()
}
