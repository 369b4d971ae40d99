// refused.go: starts that come to nothing, under a systemd that tries for ever.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/systemd"
)

const (
	refusedFile  = "refused.json" // in systemd's RuntimeDirectory=, which lives as long as systemd tries
	refusedBytes = 64 << 10
	longestRest  = appliance.LongestPause
)

// refused is what the starts before this one ended with.
type refused struct {
	Why   string `json:"why"`
	Times int    `json:"times"`
}

// restAfter is how long a start waits that ends as the one before did. The first ends at once, so that `systemctl start` says so.
func (r refused) restAfter() time.Duration {
	return appliance.Pause(r.Times)
}

// slowly returns err, which keeps the appliance from starting. Where systemd would try again at once and for ever, and the start before ended
// with the same words, it waits first, longer each time and until ctx ends. A nil err ends the series.
func slowly(ctx context.Context, err error) error {
	dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	notifier := systemd.NewNotifier(os.Getenv("NOTIFY_SOCKET"))
	if dir == "" || !notifier.Enabled() {
		return err
	}
	path := filepath.Join(dir, refusedFile)
	if err == nil {
		_ = os.Remove(path) // it is not there, mostly
		return nil
	}
	r := readRefused(path)
	if r.Why != err.Error() {
		r = refused{Why: err.Error()}
	}
	r.Times++
	if text, e := json.Marshal(r); e == nil {
		_ = os.WriteFile(path, text, 0o600) // without it nothing waits
	}
	if rest := r.restAfter(); rest > 0 {
		_ = notifier.Status(fmt.Sprintf("cannot start, tries again in %s: %v", rest, err)) // the journal has it in any case
		t := time.NewTimer(rest)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return err
}

func readRefused(path string) (r refused) {
	f, err := os.Open(path)
	if err != nil {
		return refused{}
	}
	defer func() { _ = f.Close() }()
	if json.NewDecoder(io.LimitReader(f, refusedBytes)).Decode(&r) != nil || r.Times < 0 {
		return refused{}
	}
	return r
}
