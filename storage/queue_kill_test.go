// queue_kill_test.go: processes that use a queue are killed with -9, at random and at every named point.
package storage

import (
	"bufio"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// envKills asks for the long form: how many kills.
const envKills = "INFERD_CRASH_KILLS"

// points are where a child may be told to end.
var points = []string{"append", "lease", "finish", "release", "ack", "commit", "committed"}

// spawn starts a child. What it writes is to be read to its end before it is waited for.
func spawn(t testing.TB, o orders) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd, out := command(t, o)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// command is a child to be started, by way of the command that the prefix is.
func command(t testing.TB, o orders, prefix ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	argv := append(prefix, "/proc/self/exe")
	if len(prefix) > 0 {
		me, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		argv[len(prefix)] = me
	}
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env, cmd.Stderr = append(os.Environ(), envChild+"="+string(text)), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// killed waits for a child that ends by SIGKILL.
func killed(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Wait(); cmd.ProcessState == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %v", err)
	}
}

// TestQueueKilled: whenever a process that uses the queue is killed, what it acknowledged is there, once, and Check is clean.
func TestQueueKilled(t *testing.T) {
	t.Parallel()
	kills := 3 * len(points)
	if n, err := strconv.Atoi(os.Getenv(envKills)); err == nil {
		kills = n
	}
	path := filepath.Join(t.TempDir(), "queue.db")
	seed := uint64(time.Now().UnixNano()) // what the goroutines make of it differs in any case
	a, session := newAccount(), ""
	var again []string
	for i := range kills {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		o := orders{Path: path, Seed: uint64(i), Again: again, Session: session}
		if i%3 == 2 {
			o.After = time.Duration(1+r.IntN(60_000)) * time.Microsecond
		} else {
			o.Point, o.Nth = points[(i-i/3)%len(points)], 1+r.IntN(60)
			if o.Point == "ack" || o.Point == "release" {
				o.Nth = 1 + r.IntN(6)
			}
		}
		cmd, out := spawn(t, o)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			a.event(lines.Text())
		}
		killed(t, cmd)
		for s := range a.sessions {
			session = s
		}
		again = again[:0]
		for _, b := range a.ops {
			if b.what == "append" {
				again = append(again, b.e.key)
			}
		}
		for _, readOnly := range []bool{true, false} {
			q, err := OpenQueue(path, QueueOptions{ReadOnly: readOnly})
			if err != nil {
				t.Fatalf("kill %d, %+v: %v", i, o, err)
			}
			for _, f := range a.verify(t, q, !readOnly) {
				t.Errorf("kill %d, %s %d, read only %t: %s", i, o.Point, o.Nth, readOnly, f)
			}
			if err := q.Close(); err != nil {
				t.Error(err)
			}
		}
		a.killed()
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d kills, %d jobs; %v", kills, len(a.jobs), a.counts)
	for _, what := range []string{"append", "lease", "finish", "release", "cancel", "retry", "delete", "ack"} {
		if a.counts[what] < kills/4 {
			t.Errorf("only %d of %s in %d kills: the test tests little", a.counts[what], what, kills)
		}
	}
}
