// validate_test.go: versions that are whole and must not be loaded.
package updater

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tensor"
)

// TestVetRefuses: what Vet refuses is never loaded, says why, and leaves alone what serves; what may still be a copy is waited for first.
func TestVetRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		soon State // after the settle time
	}{
		{"for good", errors.New("not in this house"), StateQuarantined},
		{"as not whole yet", fmt.Errorf("%w: not in this house", savedmodel.ErrIncomplete), StateSettling},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start(t, func(w *world, o *Options) {
				put(t, filepath.Join(w.dir, "1"), "")
				o.Vet = func(m Model, dir string, info *savedmodel.Info) error {
					if m.Name != "m" || info == nil || info.Dir != dir {
						return errors.New("asked about something else")
					}
					if filepath.Base(dir) == "2" {
						return tt.err
					}
					return nil
				}
			}, func(t *testing.T, w *world) {
				w.pass(5 * time.Second)
				w.wantLive(1)
				put(t, filepath.Join(w.dir, "2"), "")
				w.pass(7 * time.Second)
				if v, _ := w.model().Version(2); v.State != tt.soon || !strings.Contains(v.Reason, "not in this house") {
					t.Errorf("soon: %v %q", v.State, v.Reason)
				}
				w.pass(time.Minute)
				if v, _ := w.model().Version(2); v.State != StateQuarantined || !strings.Contains(v.Reason, "not in this house") {
					t.Errorf("in the end: %v %q", v.State, v.Reason)
				}
				w.wantLive(1)
				if n := w.loadCount("2"); n != 0 {
					t.Errorf("it was loaded %d times", n)
				}
			})
		})
	}
}

// TestIncompatibleVersion: in these folders the type of the input is that of the folder's number, odd or even.
func TestIncompatibleVersion(t *testing.T) {
	byNumber := func(w *world, o *Options) {
		o.Read = func(m Model, dir string) (*savedmodel.Info, error) {
			info, err := readFake(m, dir)
			if n, _ := parseVersion(filepath.Base(dir)); err == nil && n%2 == 0 {
				info.Signatures = signatures(signature(inference.DefaultSignature, true, tensor.Double, -1))
			}
			return info, err
		}
		o.Models[0].Compatible = true
		put(t, w.sub(3), "")
	}
	t.Run("a higher number is refused, and serves once it is let", func(t *testing.T) {
		start(t, byNumber, func(t *testing.T, w *world) {
			w.pass(5 * time.Second)
			w.wantLive(3)
			put(t, w.sub(4), "")
			w.pass(time.Minute)
			w.wantLive(3)
			v, _ := w.model().Version(4)
			for _, part := range []string{"compared with version 3", `input "x" is DT_DOUBLE, it was DT_FLOAT`, "compatibility: any"} {
				if v.State != StateQuarantined || !strings.Contains(v.Reason, part) {
					t.Errorf("%v %q, want %q", v.State, v.Reason, part)
				}
			}
			if n := w.loadCount("4"); n != 0 {
				t.Errorf("it was loaded %d times", n)
			}
			put(t, w.sub(5), "")
			w.pass(time.Minute)
			w.wantLive(5)
			if err := w.c.Reconfigure([]Model{{Name: "m", BasePath: w.dir}}); err != nil {
				t.Fatal(err)
			}
			put(t, w.sub(6), "")
			w.pass(time.Minute)
			w.wantLive(6)
		})
	})
	t.Run("a lower number, beside it", func(t *testing.T) {
		start(t, func(w *world, o *Options) {
			byNumber(w, o)
			o.Models[0].Policy.Latest = 2
			put(t, w.sub(2), "")
		}, func(t *testing.T, w *world) {
			w.pass(time.Minute)
			w.wantLive(3, 2)
		})
	})
	t.Run("versions that are listed", func(t *testing.T) {
		start(t, func(w *world, o *Options) {
			byNumber(w, o)
			o.Models[0].Policy.Specific = []int64{3, 4}
		}, func(t *testing.T, w *world) {
			w.pass(5 * time.Second)
			put(t, w.sub(4), "")
			w.pass(time.Minute)
			w.wantLive(4, 3)
		})
	})
	t.Run("the one that serves went live after the check", func(t *testing.T) {
		start(t, func(w *world, o *Options) {
			byNumber(w, o)
			w.during = func(c Candidate) { // a retry: by then another version serves
				if c.Number == 5 {
					w.catalog.Publish(&inference.Version{Model: "m", Number: 4, Signatures: signatures(signature("gone", true, tensor.Float, -1))}, closedServable{})
				}
			}
		}, func(t *testing.T, w *world) {
			w.pass(5 * time.Second)
			put(t, w.sub(5), "")
			w.pass(time.Minute)
			if v, _ := w.model().Version(5); v.State != StateQuarantined || !strings.Contains(v.Reason, `signature "gone" is gone`) {
				t.Errorf("%v %q", v.State, v.Reason)
			}
		})
	})
}

// closedServable holds nothing.
type closedServable struct{ inference.Servable }

func (closedServable) Close() error { return nil }
