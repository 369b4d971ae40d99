// driver_test.go: the driver is asked once, not for long, and not at all where there is none.
package device

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func present() []string { return []string{"/dev/nvidia0"} }

func TestDriverAsksNobodyWithoutADevice(t *testing.T) {
	d := NewDriver(DriverOptions{Nodes: func() []string { return nil }, Ask: func(context.Context, string) (string, error) {
		t.Error("asked")
		return "", nil
	}})
	if gpus, err := d.GPUs(t.Context()); gpus != nil || err != nil {
		t.Errorf("%v, %v", gpus, err)
	}
	if _, at, err := d.Known(); at.IsZero() || err != nil {
		t.Errorf("known at %v: %v", at, err)
	}
}

func TestDriverFallsBackToTheOldQuery(t *testing.T) {
	var asked []string
	d := NewDriver(DriverOptions{Nodes: present, Ask: func(_ context.Context, fields string) (string, error) {
		asked = append(asked, fields)
		for _, name := range []string{"old-driver", "old-driver-again"} {
			if query, answer, err := recorded(t, name); query == fields {
				return answer, err
			}
		}
		return "", errors.New("no such recording")
	}})
	gpus, err := d.GPUs(t.Context())
	if err != nil || len(gpus) != 1 || gpus[0].Name != "Tesla V100-SXM2-16GB" || len(asked) != 2 {
		t.Errorf("%v, %v after asking %v", gpus, err, asked)
	}
	gpus[0].Name = "mine"
	if known, _, _ := d.Known(); known[0].Name == "mine" {
		t.Error("the answer is shared")
	}
}

func TestDriverShowsWhatWorkersSee(t *testing.T) {
	list := "1"
	d := NewDriver(DriverOptions{Nodes: present, VisibleDevices: &list, Ask: func(context.Context, string) (string, error) {
		_, answer, err := recorded(t, "two")
		return answer, err
	}})
	if gpus, err := d.GPUs(t.Context()); err != nil || len(gpus) != 1 || gpus[0].Index != 1 || gpus[0].Ordinal != 0 {
		t.Errorf("%+v, %v", gpus, err)
	}
}

func TestDriverShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		answer := make(chan struct{})
		d := NewDriver(DriverOptions{Nodes: present, Ask: func(context.Context, string) (string, error) {
			asked.Add(1)
			<-answer
			_, text, err := recorded(t, "h200")
			return text, err
		}})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if gpus, err := d.GPUs(t.Context()); err != nil || len(gpus) != 1 {
					t.Errorf("%v, %v", gpus, err)
				}
			})
		}
		synctest.Wait()
		if _, at, _ := d.Known(); !at.IsZero() {
			t.Error("known before there was an answer")
		}
		close(answer)
		wg.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times at once", n)
		}
		if _, err := d.GPUs(t.Context()); err != nil || asked.Load() != 2 {
			t.Errorf("a later caller wants what is free now: %v, asked %d times", err, asked.Load())
		}
	})
}

func TestDriverThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		wake := make(chan struct{})
		d := NewDriver(DriverOptions{Nodes: present, Ask: func(context.Context, string) (string, error) {
			asked.Add(1)
			<-wake // whatever its ctx says: in the driver it cannot be killed
			_, text, err := recorded(t, "h200")
			return text, err
		}})
		begun := time.Now()
		_, err := d.GPUs(t.Context())
		if err == nil || !strings.Contains(err.Error(), "nvidia-smi has said nothing for 10s") || time.Since(begun) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		for range 3 {
			if _, again := d.GPUs(t.Context()); again == nil || time.Since(begun) != 10*time.Second {
				t.Errorf("after %v: %v: the next ones must not wait for it too", time.Since(begun), again)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("%d hang now", n)
		}
		close(wake)
		synctest.Wait()
		if gpus, err := d.GPUs(t.Context()); err != nil || len(gpus) != 1 {
			t.Errorf("when it came back: %v, %v", gpus, err)
		}
	})
}

func TestDriverFailureStandsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		d := NewDriver(DriverOptions{Nodes: present, Ask: func(context.Context, string) (string, error) {
			asked++
			_, text, err := recorded(t, "no-driver")
			return text, err
		}})
		for range 3 {
			if _, err := d.GPUs(t.Context()); err == nil {
				t.Error("no error")
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		time.Sleep(31 * time.Second)
		if _, err := d.GPUs(t.Context()); err == nil || asked != 2 {
			t.Errorf("%v, asked %d times", err, asked)
		}
	})
}

func TestDriverLeavesWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wake := make(chan struct{})
		d := NewDriver(DriverOptions{Nodes: present, Ask: func(context.Context, string) (string, error) { <-wake; return "", nil }})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.GPUs(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(wake)
	})
}

func TestFindsTheProgram(t *testing.T) {
	nowhere := func(string) (string, error) { return "", errors.New("not in PATH") }
	only := func(want string) func(string) (os.FileInfo, error) {
		return func(path string) (os.FileInfo, error) {
			if path == want {
				return nil, nil
			}
			return nil, fs.ErrNotExist
		}
	}
	if got, err := smi(func(string) (string, error) { return "/x/nvidia-smi", nil }, only("")); got != "/x/nvidia-smi" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := smi(nowhere, only("/usr/lib/wsl/lib/nvidia-smi")); got != "/usr/lib/wsl/lib/nvidia-smi" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := smi(nowhere, only("")); err == nil || !strings.Contains(err.Error(), "install") {
		t.Errorf("%q, %v", got, err)
	}
}

// The real thing, run against a program that stands in for nvidia-smi.
func TestRunsTheProgram(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\necho 'WARNING: infoROM is corrupted' >&2\necho \"0, GPU-1, $(echo \"$@\" | tr , +), 100, 50, 9.0, Disabled\"\nexit 14\n"
	if err := os.WriteFile(dir+"/nvidia-smi", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	d := NewDriver(DriverOptions{Nodes: present})
	want := "--query-gpu=" + strings.ReplaceAll(Query, ",", "+") + " --format=csv+noheader+nounits"
	if gpus, err := d.GPUs(t.Context()); err != nil || len(gpus) != 1 || gpus[0].FreeBytes != 50*mib || gpus[0].Name != want {
		t.Errorf("%+v, %v", gpus, err)
	}
	if err := os.WriteFile(dir+"/nvidia-smi", []byte("#!/bin/sh\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if out, err := askSMI(ctx, Query); err == nil {
		t.Errorf("%q", out)
	}
}
