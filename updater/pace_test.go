// pace_test.go: how a paced reader shares its time, in virtual time.
package updater

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/inference"
)

func TestPacedReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		paced bool
		want  time.Duration
	}{
		// Four pieces of work of 1 ms each, and a rest after each of them: the last one comes with the read that finds the end.
		{paced: true, want: 4 * (1 + paceRest) * time.Millisecond},
		{paced: false, want: 4 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			began := time.Now()
			r := newReader(t.Context(), f, c.paced)
			piece := make([]byte, 1024)
			for {
				n, err := r.Read(piece)
				if errors.Is(err, io.EOF) {
					break
				}
				if n != len(piece) || err != nil {
					t.Fatal(n, err)
				}
				time.Sleep(time.Millisecond) // what is done with it
			}
			if took := time.Since(began); took != c.want {
				t.Errorf("paced %v: took %v, want %v", c.paced, took, c.want)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ctx, cancel := context.WithCancel(t.Context())
		r := newReader(ctx, f, true)
		if _, err := r.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Hour, cancel) // long after the piece was done
		time.Sleep(2 * time.Hour)
		began := time.Now()
		if _, err := r.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) || time.Since(began) != 0 {
			t.Errorf("rested for %v after the end, then %v", time.Since(began), err)
		}
	})
}

// TestStopwatch: what a run waited for a processor is not its time.
func TestStopwatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var had time.Duration
		o := ProbeOptions{Waited: func(inference.Runner) time.Duration { return had }}
		had = time.Hour
		w := o.stopwatch(nil)
		time.Sleep(5 * time.Second)
		had += 3 * time.Second
		if got := w.took(); got != 2*time.Second {
			t.Errorf("took %v, want 2 s", got)
		}
		had = 0 // threads have ended
		if got := w.took(); got != 5*time.Second {
			t.Errorf("took %v, want 5 s", got)
		}
		had = 3 * time.Hour
		if got := w.took(); got != 500*time.Millisecond { // more than there was: threads wait beside each other
			t.Errorf("took %v, want a tenth", got)
		}
		o.Waited = nil
		w = o.stopwatch(nil)
		time.Sleep(time.Second)
		if got := w.took(); got != time.Second {
			t.Errorf("took %v where nobody counts", got)
		}
	})
}
