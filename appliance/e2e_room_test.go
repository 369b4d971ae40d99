// e2e_room_test.go: real models, real workers and a memory limit that the kernel keeps.
package appliance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/tools/namespace"
)

// plainMemory skips a test that counts megabytes when the race detector has most of them; make memory runs it without.
func plainMemory(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector takes more memory than what is tested; make memory runs this without it")
	}
}

// The limit in force is the cgroup's, and is followed when that changes; what does not fit into it is not loaded, and nothing is killed.
func TestLimitOfACgroup(t *testing.T) {
	plainMemory(t)
	library(t)
	models := madeOutside(t, 4096, "large") // 64 MiB
	g, inside := namespace.InCgroup(t, 240<<20)
	if !inside {
		return
	}
	s := serve(t, func(cfg *config.Config) { cfg.ModelsDir, cfg.Memory.Requests = models, 100<<20 })
	s.staged("large", 1, "seen", "RESOURCE_EXHAUSTED: model large version 1 is not loaded", "of cgroup")
	if l := s.admission().Limit; l.Bytes != 240<<20 || l.Source != admission.FromCgroup1 && l.Source != admission.FromCgroup2 || l.Used <= 0 {
		t.Errorf("%+v", l)
	}
	if err := g.SetLimit(600 << 20); err != nil {
		t.Fatal(err)
	}
	s.live("large", 1)
	if l := s.admission().Limit; l.Bytes != 600<<20 || l.Used > l.Bytes {
		t.Errorf("%+v", l)
	}
	if n := g.Killed(); n > 0 {
		t.Errorf("%v", g)
	}
}

// madeOutside is a models directory with the named models, of 4*side*side bytes each, that was made before the test went into its cgroup:
// making them takes more than serving them.
func madeOutside(t *testing.T, side int, names ...string) string {
	t.Helper()
	const env = "INFERD_TEST_MODELS"
	if dir := os.Getenv(env); dir != "" {
		return dir
	}
	dir := t.TempDir()
	m := modeltest.Dense(side)
	for _, name := range names {
		if _, err := m.Publish(filepath.Join(dir, name), 1); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(env, dir)
	return dir
}

// Ten models under a limit that holds four: all ten answer, by eviction and lazy loading, and nothing is killed.
func TestTenModelsWhereFourFit(t *testing.T) {
	plainMemory(t)
	library(t)
	// 64 MiB are kept back and as many are the requests'; core and zygote take about 80 in a test, and a worker 40 beside its weights.
	const models = 10
	side, limit := 2048, int64(440<<20)
	if os.Getenv("INFERD_LONG") != "" {
		side, limit = 5120, 860<<20 // 100 MiB each
	}
	var names []string
	for i := range models {
		names = append(names, fmt.Sprintf("m%d", i))
	}
	dir := madeOutside(t, side, names...)
	g, inside := namespace.InCgroup(t, limit)
	if !inside {
		return
	}
	s := serve(t, func(cfg *config.Config) { cfg.ModelsDir, cfg.Memory.Requests = dir, 64<<20 })
	for i := range models {
		s.staged(fmt.Sprintf("m%d", i), 1, "live")
	}
	row := "[" + strings.TrimSuffix(strings.Repeat("1,", side), ",") + "]"
	for round := range 2 {
		for i := range models {
			code, body, err := s.rest(t.Context(), fmt.Sprintf("/v1/models/m%d:predict", i), `{"instances": [`+row+`]}`)
			if err != nil || code != 200 {
				t.Fatalf("round %d, model %d: %d %s %v", round, i, code, body, err)
			}
			r := s.admission()
			if r.Limit.Used > r.Limit.Bytes {
				t.Errorf("%d MiB are used of %d", r.Limit.Used>>20, r.Limit.Bytes>>20)
			}
		}
	}
	parked, evictions := 0, int64(0)
	for _, m := range s.admission().Models {
		if m.State == "parked" {
			parked++
		}
		evictions += m.Evictions
	}
	t.Logf("%d of %d are parked, %d evictions, each model has %d MiB of weights; %v", parked, models, evictions, 4*side*side>>20, g)
	if parked < 2 || evictions < models {
		t.Errorf("%d are parked after %d evictions: the limit holds too many for a test", parked, evictions)
	}
	if n := g.Killed(); n > 0 {
		t.Errorf("%v", g)
	}
}

// A model that grows with each request is restarted alone, at what is left of the limit, and nobody's request fails.
func TestGrowingModel(t *testing.T) {
	library(t)
	g, inside := namespace.InCgroup(t, 512<<20)
	if !inside {
		return
	}
	s := serve(t, func(cfg *config.Config) {
		cfg.Memory.Requests = 32 << 20
	})
	s.publish("leaky", 1, modeltest.Leaky(1024))
	s.publish("other", 1, modeltest.HalfPlusTwo())
	s.live("leaky", 1)
	s.live("other", 1)
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if code, body, err := s.rest(t.Context(), "/v1/models/other:predict", `{"instances": [1]}`); err != nil || code != 200 {
				ended <- fmt.Errorf("the other model: %d %s %w", code, body, err)
				return
			}
		}
	}()
	restarts := func(model string) int {
		for _, v := range s.load.live.all() {
			if st, ok := v.stats(); ok && v.model == model {
				return st.Restarts
			}
		}
		return 0
	}
	requests := 0
	for ; restarts("leaky") < 2 && requests < 5000; requests++ {
		if code, body, err := s.rest(t.Context(), "/v1/models/leaky:predict", `{"instances": [[1]]}`); err != nil || code != 200 {
			t.Fatalf("request %d: %d %s %v", requests, code, body, err)
		}
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	t.Logf("%d requests; %v", requests, g)
	if leaky, other := restarts("leaky"), restarts("other"); leaky < 2 || other != 0 || g.Killed() > 0 {
		t.Errorf("%d restarts of the model that grows, %d of the other; %v", leaky, other, g)
	}
}
