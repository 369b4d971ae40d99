// e2e_copy_test.go: version folders that arrive in pieces.
package appliance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/worker"
)

const (
	graphFile = "saved_model.pb"
	indexFile = "variables/variables.index"
	shardFile = "variables/variables.data-00000-of-00001"
)

// copying is a version folder on its way into a models directory.
type copying struct {
	t        testing.TB
	from, to string
}

// part copies the file up to that fraction of its size, as a copy in progress has it. A negative fraction stands for a copy that made
// room for the whole first: the rest is zeros.
func (c copying) part(name string, fraction float64) {
	c.t.Helper()
	content, err := os.ReadFile(filepath.Join(c.from, name))
	if err == nil {
		if fraction < 0 {
			clear(content[int(-fraction*float64(len(content))):])
			fraction = 1
		}
		to := filepath.Join(c.to, name)
		if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
			err = os.WriteFile(to, content[:int(fraction*float64(len(content)))], 0o644)
		}
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// TestTornCopies: while a folder is not whole it is not served, the status says what is missing, and what served before goes on; when the
// rest has arrived it is served.
func TestTornCopies(t *testing.T) {
	s := serve(t, nil)
	type step struct {
		name     string
		fraction float64
		stage    string // where the folder stands after this step; empty: not waited for
		why      string // part of the reason, and of no earlier one
	}
	cases := []struct {
		name  string
		steps []step // after them the rest is copied
	}{
		{"an empty folder", nil},
		{"file by file, the graph first", []step{
			{graphFile, 1, "settling", "variables/variables.index is not there"}, {indexFile, 1, "settling", "it names variables/variables.data-00000-of-00001, which is not there"},
			{shardFile, 0.5, "settling", "which has 4"}}},
		{"file by file, the graph last", []step{{shardFile, 0.9, "", ""}, {shardFile, 1, "", ""}, {indexFile, 1, "settling", "neither saved_model.pb"},
			{graphFile, 0.5, "settling", "saved_model.pb: the SavedModel is not whole"}}},
		{"a shard is missing", []step{{indexFile, 1, "", ""}, {graphFile, 1, "settling", "variables.data-00000-of-00001, which is not there"}}},
		{"the index is cut", []step{{indexFile, 0.5, "", ""}, {shardFile, 1, "", ""}, {graphFile, 1, "settling", "it does not end as a table does"}}},
		{"the graph is cut", []step{{indexFile, 1, "", ""}, {shardFile, 1, "", ""}, {graphFile, 0.9, "settling", "saved_model.pb: the SavedModel is not whole"}}},
		{"the graph is empty", []step{{indexFile, 1, "", ""}, {shardFile, 1, "", ""}, {graphFile, 0, "settling", "saved_model.pb: "}}},
		{"room was made first: the graph", []step{{indexFile, 1, "", ""}, {shardFile, 1, "", ""}, {graphFile, -0.5, "settling", "saved_model.pb: "}}},
		{"room was made first: the index", []step{{graphFile, 1, "", ""}, {shardFile, 1, "", ""}, {indexFile, -0.5, "settling", "variables.index: "}}},
		{"room was made first: a shard", []step{{graphFile, 1, "", ""}, {indexFile, 1, "", ""}, {shardFile, -0.25, "quarantined", "Checksum"}}},
	}
	// One that nobody ever finishes, and that has nothing before it.
	stalled := copying{t, modeltest.Write(t, modeltest.Affine(0, 2)), filepath.Join(s.models, "stalled", "2")}
	stalled.part(graphFile, 1)
	stalled.part(shardFile, 0.5)

	s.publish("m", 1, modeltest.Affine(0, 1)) // the answer of version n is n
	s.live("m", 1)
	var lowest, highest atomic.Int64 // versions that are whole
	lowest.Store(1)
	highest.Store(1)
	clients := s.startLoad("m", 1, func(x float32, y []float32, err error) (int64, string) {
		if err != nil || len(y) != 1 || y[0] < float32(lowest.Load()) || y[0] > float32(highest.Load()) {
			return 0, fmt.Sprintf("answered %v, %v to %v while versions %d to %d were whole", y, err, x, lowest.Load(), highest.Load())
		}
		return int64(y[0]), ""
	})
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, n := s.with(t), int64(i+2)
			to := copying{t, modeltest.Write(t, modeltest.Affine(0, float32(n))), filepath.Join(s.models, "m", strconv.Itoa(i+2))}
			if err := os.Mkdir(to.to, 0o755); err != nil {
				t.Fatal(err)
			}
			s.staged("m", n, "settling", "waiting for the rest")
			for _, step := range c.steps {
				to.part(step.name, step.fraction)
				if step.stage != "" {
					v := s.staged("m", n, step.stage, step.why)
					t.Logf("%s %v: %s", step.name, step.fraction, v.Message)
					clients.more(2)
				}
			}
			highest.Store(n)
			for _, name := range []string{shardFile, indexFile, graphFile} {
				to.part(name, 1)
			}
			s.live("m", n)
			clients.more(2) // with one client, the second was sent after the first's answer
			lowest.Store(n)
			clients.more(2)
			s.ask("m", []float32{5}, []float32{float32(n)})
		})
	}
	if good, refused := clients.end(); refused != 0 {
		t.Errorf("%d answers, %d refused", good, refused)
	}
	v := s.staged("stalled", 2, "quarantined", "variables.index")
	t.Log(v.Message)
	if code, body := s.get("/v1/models/stalled"); code != 200 || !containsAll(body, []string{"FAILED_PRECONDITION", "variables.index", `"END"`}) {
		t.Errorf("public status of the stalled version: %d %s", code, body)
	}
	stalled.part(shardFile, 1)
	stalled.part(indexFile, 1)
	s.live("stalled", 2)
	s.ask("stalled", []float32{5}, []float32{2})
	s.until("no worker was lost", func(st *control.Status) bool {
		for _, m := range st.Models {
			for _, v := range m.Versions {
				if v.Worker != nil && v.Worker.Restarts > 0 {
					t.Errorf("model %s version %d: its worker died of %s", m.Name, v.Number, v.Worker.LastDeath)
				}
			}
		}
		return true
	})
}

// TestChangedInPlace: a live version whose files are overwritten goes on from memory. When its worker dies and its files are not kept a
// second time, it cannot be loaded again, and is given up rather than served torn; health says so for the model, and a good version
// brings it back.
func TestChangedInPlace(t *testing.T) {
	s := serve(t, func(cfg *config.Config) {
		cfg.Defaults.KeepLastGood = false
		cfg.Models = []config.Model{listed(cfg, "m")}
	})
	dir := s.publish("m", 1, modeltest.HalfPlusTwo())
	pid := s.live("m", 1).Worker.PID
	copying{t, dir, dir}.part(shardFile, -0.1) // variables that end in zeros
	s.staged("m", 1, "live", "changed after it was loaded")
	s.ask("m", []float32{1}, []float32{2.5})
	if v := s.live("m", 1); v.Worker.PID != pid {
		t.Errorf("the worker was replaced: %+v", v.Worker)
	}
	s.ready("", 200)
	s.ready("m", 200)

	states := s.watchHealth("m")
	kill(t, pid, syscall.SIGKILL)
	s.until("the worker is given up", func(st *control.Status) bool {
		v := version(st, "m", 1)
		return v.Worker != nil && v.Worker.State == worker.GivenUp.String()
	})
	for protocol, ask := range map[string]func() ([]float32, error){
		"REST": func() ([]float32, error) { return s.askREST(t.Context(), "m", []float32{1}) },
		"gRPC": func() ([]float32, error) { return s.askGRPC(t.Context(), "m", []float32{1}) },
	} {
		if y, err := ask(); !unavailable(err) || !strings.Contains(err.Error(), "given up") || !strings.Contains(err.Error(), "did not hold what was loaded from it") {
			t.Errorf("%s: a model whose worker is given up answers %v, %v", protocol, y, err)
		}
	}
	s.ready("", 200) // one model's later failure never clears it
	s.ready("m", 503)

	s.publish("m", 2, modeltest.HalfPlusTwo())
	s.live("m", 2)
	s.ask("m", []float32{1}, []float32{2.5})
	s.ready("m", 200)
	s.until("version 1 is gone", func(st *control.Status) bool {
		v := version(st, "m", 1)
		return v == nil || v.Stage != "live" && v.Stage != "draining"
	})
	const up, down = healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING
	if got := states(); !slices.Equal(got, []healthpb.HealthCheckResponse_ServingStatus{up, down, up}) {
		t.Errorf("health of the model went through %v", got)
	}
}
