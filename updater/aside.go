// aside.go: what takes a processor for long beside versions that serve, summing a version's files up and copying them, is done by a process of
// its own at the lowest priority. In the core it could only be done slowly: a thread of low priority there would hold up every collection of
// garbage while other processes keep the processors busy (measured: for 3 seconds).
package updater

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/inferd/inferd/inference/priority"
)

const (
	// envAside in the environment makes a process one that does a chore, see Aside.
	envAside = "INFERD_ASIDE"
	// asideName is what ps shows.
	asideName = "inferd-files"
	// maxChore bounds a chore and its outcome, of which at most maxNamedFiles paths are the most.
	maxChore = 1 << 20
	// asideLook is how often it is looked whether the process gets any processor.
	asideLook = 500 * time.Millisecond
)

// chore is what such a process is to do: to read Dir through and sum it up, or to copy it to To.
type chore struct {
	Dir  string `json:"dir"`
	Sync bool   `json:"sync,omitempty"` // every file and folder is put on disk before it is read
	To   string `json:"to,omitempty"`
}

// outcome is what came of it.
type choreOutcome struct {
	Tree  tree          `json:"tree"`
	Error string        `json:"error,omitempty"`
	Errno syscall.Errno `json:"errno,omitempty"`
}

// choreError is an error that another process had; errors.Is finds its number.
type choreError struct {
	text  string
	errno syscall.Errno
}

func (e *choreError) Error() string { return e.text }
func (e *choreError) Unwrap() error { return e.errno }

// errAside: there was no such process, or it got no processor. What it was for is done in the core, slowly.
var errAside = errors.New("no process beside")

// Aside does a chore when the process was started for one: the second result says so, and the first is the exit code. Every main that runs a
// Controller with Options.Executable calls it before anything else.
func Aside() (code int, isAside bool) {
	if os.Getenv(envAside) == "" {
		return 0, false
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP) // the core ends it, a Ctrl-C to all of the terminal's processes must not
	_ = os.WriteFile("/proc/self/comm", []byte(asideName), 0)      // for ps
	priority.LowerProcess(os.Getpid())
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0) // when memory runs out, it goes before the core
	var c chore
	if err := json.NewDecoder(io.LimitReader(os.Stdin, maxChore)).Decode(&c); err != nil {
		fmt.Fprintf(os.Stderr, "%s: the chore cannot be read: %v\n", asideName, err)
		return 1, true
	}
	if err := json.NewEncoder(os.Stdout).Encode(c.do(context.Background())); err != nil { // it is killed when nobody wants the outcome
		return 1, true
	}
	return 0, true
}

func (c chore) do(ctx context.Context) (out choreOutcome) {
	var err error
	switch {
	case c.To != "":
		err = duplicateTree(ctx, c.Dir, c.To, byCopy, false, 0)
	case c.Sync:
		out.Tree, err = readTree(ctx, c.Dir, false, fsync)
	default:
		out.Tree, err = readTree(ctx, c.Dir, false, nil)
	}
	if err != nil {
		out.Error = err.Error()
		errors.As(err, &out.Errno)
	}
	return out
}

// sumUp is readTree beside what serves. sync is the Controller's, or nil.
func (c *Controller) sumUp(ctx context.Context, dir string, sync func(f *os.File) error) (tree, error) {
	out, err := c.aside(ctx, chore{Dir: dir, Sync: sync != nil})
	if errors.Is(err, errAside) {
		return readTree(ctx, dir, true, sync)
	}
	return out.Tree, err
}

// copyTree is duplicateTree beside what serves; to is not there.
func (c *Controller) copyTree(ctx context.Context, from, to string) error {
	_, err := c.aside(ctx, chore{Dir: from, To: to})
	if errors.Is(err, errAside) {
		return errors.Join(os.RemoveAll(to), duplicateTree(ctx, from, to, byCopy, true, 0))
	}
	return err
}

// aside has a process of its own do the chore. An error wraps errAside where it must be done in another way; any other is the chore's, or ctx's.
func (c *Controller) aside(ctx context.Context, what chore) (out choreOutcome, err error) {
	if c.opts.Executable == "" {
		return out, errAside
	}
	text, err := json.Marshal(what)
	if err != nil {
		return out, err
	}
	// The kernel kills the process when the thread that started it ends (golang/go#27505): not before the core does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var answer, said bytes.Buffer
	cmd := &exec.Cmd{
		Path: c.opts.Executable, Args: []string{asideName}, Env: append(os.Environ(), envAside+"=1", "GOMAXPROCS=1"), Stdin: bytes.NewReader(text), Stdout: &answer, Stderr: &said,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	if err := cmd.Start(); err != nil {
		c.opts.Log.Warn("files are read in the core, slowly: no process could be started for it", "path", what.Dir, "err", err)
		return out, errAside
	}
	starved := make(chan bool, 1)
	over, end := context.WithCancel(ctx)
	go func() { starved <- watchAside(over, cmd.Process) }()
	err = cmd.Wait()
	end()
	switch {
	case <-starved:
		return out, errAside
	case ctx.Err() != nil:
		return out, ctx.Err()
	case err != nil:
		c.opts.Log.Warn("files are read in the core, slowly: the process that should have ended", "path", what.Dir, "err", err, "text", strings.TrimSpace(said.String()))
		return out, errAside
	}
	if err := json.Unmarshal(answer.Bytes(), &out); err != nil {
		return out, err // it is our own
	}
	if out.Error != "" {
		return out, &choreError{out.Error, out.Errno}
	}
	return out, nil
}

// watchAside kills the process when ctx ends, or when others leave it no processor at all, which it reports.
func watchAside(ctx context.Context, p *os.Process) (starved bool) {
	tick := time.NewTicker(asideLook)
	defer tick.Stop()
	var h priority.Hunger
	for {
		select {
		case <-ctx.Done():
			_ = p.Kill() // an error means that it has ended
			return false
		case now := <-tick.C:
			if _, starved = h.Look(now, priority.ReadTurns(p.Pid)); starved {
				_ = p.Kill()
				return true
			}
		}
	}
}
