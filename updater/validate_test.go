// validate_test.go: versions that are whole and must not be loaded.
package updater

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/savedmodel"
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
