// e2e_reloadlist_test.go: HandleReloadConfigRequest, labels and the history, over the wire and with real workers.
package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	configpb "github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// list asks for another list of models.
func (f *filed) list(ctx context.Context, metrics []string, models ...*configpb.ModelConfig) (*pb.ReloadConfigResponse, error) {
	req := &pb.ReloadConfigRequest{MetricNames: metrics, Config: &configpb.ModelServerConfig{Config: &configpb.ModelServerConfig_ModelConfigList{
		ModelConfigList: &configpb.ModelConfigList{Config: models}}}}
	resp := new(pb.ReloadConfigResponse)
	err := f.conn.Invoke(ctx, "/tensorflow.serving.ModelService/HandleReloadConfigRequest", req, resp)
	return resp, err
}

func (f *filed) model(name, base string, labels map[string]int64, specific ...int64) *configpb.ModelConfig {
	m := &configpb.ModelConfig{Name: name, BasePath: filepath.Join(f.dir, base), ModelPlatform: "tensorflow", VersionLabels: labels}
	if len(specific) > 0 {
		m.ModelVersionPolicy = &configpb.FileSystemStoragePathSourceConfig_ServableVersionPolicy{
			PolicyChoice: &configpb.FileSystemStoragePathSourceConfig_ServableVersionPolicy_Specific_{
				Specific: &configpb.FileSystemStoragePathSourceConfig_ServableVersionPolicy_Specific{Versions: specific}}}
	}
	return m
}

func TestReloadList(t *testing.T) {
	f := serveFile(t, quick+"models: [{name: a, base_path: a}]", func(dir string) {
		for base, numbers := range map[string][]int64{"a": {1}, "b": {1, 2}, "c": {7}} {
			for _, n := range numbers {
				if _, err := modeltest.HalfPlusTwo().Publish(filepath.Join(dir, base), n); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := modeltest.UnknownOp().Publish(filepath.Join(dir, "bad"), 3); err != nil {
			t.Fatal(err)
		}
		if _, err := modeltest.NeverReturns().Publish(filepath.Join(dir, "stuck"), 4); err != nil {
			t.Fatal(err)
		}
	})
	pid := f.live("a", 1).Worker.PID
	clients := f.startLoad("a", 2, halfPlusTwo)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	// It answers when the new models do, labels and all.
	counter := "/tensorflow/serving/request_count"
	resp, err := f.list(ctx, []string{counter, "nobody"}, f.model("a", "a", nil), f.model("b", "b", map[string]int64{"stable": 1, "next": 2}, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	if m := resp.GetMetric(); resp.GetStatus().GetErrorCode() != 0 || len(m) != 2 || m[0].GetName() != counter || m[0].GetInt64ValueIncrease() <= 0 || m[1].GetInt64ValueIncrease() != 0 {
		t.Errorf("%v", resp)
	}
	for _, label := range []string{"stable", "next"} {
		code, answer, err := f.rest(ctx, "/v1/models/b/labels/"+label+":predict", `{"instances": [[1]]}`)
		if err != nil || code != 200 {
			t.Errorf("by label %s: %d %s %v", label, code, answer, err)
		}
	}

	// Whole or not at all.
	before := f.current.Load()
	for _, c := range []struct {
		name   string
		models []*configpb.ModelConfig
		code   codes.Code
		text   string
	}{
		{"a model that does not load", []*configpb.ModelConfig{f.model("c", "c", nil), f.model("bad", "bad", nil)}, codes.Unknown,
			"1 model(s) did not become available: {{name: bad version: 3} due to error: model bad version 3 refused: "},
		{"a base path that is not there", []*configpb.ModelConfig{f.model("none", "none", nil)}, codes.Unknown,
			"1 model(s) did not become available: {{name: none} due to error: base path "},
		{"a version that is not there", []*configpb.ModelConfig{f.model("c", "c", nil, 7, 8)}, codes.Unknown,
			"1 model(s) did not become available: {{name: c version: 8} due to error: version 8 is asked for but not under"},
		{"a label of a version that is not available", []*configpb.ModelConfig{f.model("c", "c", map[string]int64{"x": 9}), f.model("a", "a", nil)}, codes.FailedPrecondition,
			"Request to assign label to version 9 of model c, which is not currently available for inference"},
		{"a model twice", []*configpb.ModelConfig{f.model("c", "c", nil), f.model("c", "c", nil)}, codes.InvalidArgument, "Illegal to list model c multiple times in config list"},
		{"a path from nowhere", []*configpb.ModelConfig{{Name: "c", BasePath: "c"}}, codes.InvalidArgument, "is not an absolute path"},
	} {
		_, err := f.list(ctx, nil, c.models...)
		if status.Code(err) != c.code || !strings.Contains(status.Convert(err).Message(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
		if f.current.Load() != before {
			t.Errorf("%s: the configuration is another", c.name)
		}
	}
	f.until("what was tried is gone again", func(st *control.Status) bool { return !isLive(st, "c", 7) })
	clients.more(20)

	// Bounded by the caller's deadline: this one's first run never ends.
	short, cancelShort := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancelShort()
	if _, err := f.list(short, nil, f.model("stuck", "stuck", nil)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a run that never ends: %v", err)
	}
	f.logs.wait(t, "msg", "list of models refused", "err", "did not become available in time: {{name: stuck version: 4} due to error: ")

	// An operator's reload does not wait for a list that waits.
	failed := make(chan error, 1)
	go func() {
		_, err := f.list(ctx, nil, f.model("stuck2", "stuck", nil))
		failed <- err
	}()
	f.until("it is tried", func(st *control.Status) bool {
		v := version(st, "stuck2", 4)
		return v != nil && v.Stage == "warming"
	})
	if done := f.Reload(ctx, "test"); len(done.Faults) > 0 {
		t.Errorf("%+v", done)
	}
	if err := <-failed; status.Code(err) != codes.Aborted {
		t.Errorf("%v", err)
	}
	// What is omitted is unloaded; the one that stays has kept its process.
	f.until("b, which the file does not list, is gone", func(st *control.Status) bool { return !isLive(st, "b", 1) })
	if v := f.live("a", 1); v.Worker.PID != pid {
		t.Errorf("a has another process")
	}
	if _, refused := clients.end(); refused != 0 {
		t.Errorf("%d refused", refused)
	}
	if _, err := f.list(ctx, nil); err != nil {
		t.Fatal(err)
	}
	f.until("a gone", func(st *control.Status) bool { return !isLive(st, "a", 1) })
	if _, err := f.askGRPC(ctx, "a", []float32{1}); err == nil {
		t.Error("a still answers")
	}
}

func TestMayReload(t *testing.T) {
	from := func(a net.Addr) context.Context { return peer.NewContext(t.Context(), &peer.Peer{Addr: a}) }
	near, far, socket := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, &net.UnixAddr{Net: "unix"}
	for _, c := range []struct {
		ctx  context.Context
		who  config.Callers
		want inference.Code
	}{
		{from(near), config.LocalCallers, inference.OK}, {from(&net.TCPAddr{IP: net.IPv6loopback}), config.LocalCallers, inference.OK}, {from(socket), config.LocalCallers, inference.OK},
		{from(far), config.LocalCallers, inference.PermissionDenied}, {t.Context(), config.LocalCallers, inference.PermissionDenied},
		{from(far), config.AnyCallers, inference.OK}, {from(near), config.NoCallers, inference.Unimplemented}, {from(socket), config.NoCallers, inference.Unimplemented},
	} {
		err := mayReload(c.ctx, c.who)
		var e *inference.Error
		if got := errors.As(err, &e); got != (c.want != inference.OK) || got && e.Code != c.want {
			t.Errorf("%v: %v, want %v", c.who, err, c.want)
		}
	}
}

// TestLabelsAndHistory: a label moves under requests, none fails, and REST tells who moved it.
func TestLabelsAndHistory(t *testing.T) {
	f := serveFile(t, quick+"models: [{name: m, base_path: m, version_policy: {all: {}}, version_labels: {stable: 1}}]", func(dir string) {
		for n := range int64(2) {
			if _, err := modeltest.Affine(0, float32(n+1)).Publish(filepath.Join(dir, "m"), n+1); err != nil {
				t.Fatal(err)
			}
		}
	})
	f.live("m", 1)
	f.live("m", 2)
	c := control.Dial(filepath.Join(f.dir, "ctl"))
	defer c.Close()
	stable := func(want string) {
		t.Helper()
		code, answer, err := f.rest(t.Context(), "/v1/models/m/labels/stable:predict", `{"instances": [[1]]}`)
		if err != nil || code != 200 || !strings.Contains(string(answer), want) {
			t.Fatalf("%d %s, %v; want %s", code, answer, err, want)
		}
	}
	stable("[1.0]")
	for range 10 {
		for _, n := range []int64{2, 1} {
			if _, err := c.Label(t.Context(), "m", "stable", n, false); err != nil {
				t.Fatal(err)
			}
			stable([]string{"", "[1.0]", "[2.0]"}[n])
		}
	}
	if _, err := c.Label(t.Context(), "m", "stable", 3, false); err == nil || !strings.Contains(err.Error(), "not moved to version 3") {
		t.Error(err)
	}
	st := f.Status()
	i := slices.IndexFunc(st.Models, func(m control.Model) bool { return m.Name == "m" })
	if l := st.Models[i].Labels; len(l) != 1 || l[0].Name != "stable" || l[0].Version != 1 || l[0].By == "" || l[0].Held {
		t.Errorf("%+v", l)
	}
	var events []rest.Event
	for end := time.Now().Add(patience); len(events) != 20; time.Sleep(10 * time.Millisecond) { // they are written in their own time
		code, body := f.get("/v1/models/m/history?limit=1000")
		if err := json.Unmarshal([]byte(body), &events); err != nil || code != 200 {
			t.Fatalf("%d %s %v", code, body, err)
		}
		events = slices.DeleteFunc(events, func(e rest.Event) bool { return e.What != "labelled" })
		if time.Now().After(end) {
			t.Fatalf("%d moves of the label are remembered, want 20", len(events))
		}
	}
	for _, e := range events {
		if e.By == "" || e.At.IsZero() || !strings.HasPrefix(e.Reason, "stable") {
			t.Errorf("%+v", e)
		}
	}
	if code, body := f.get("/v1/models/nobody/history"); code != 404 || !strings.Contains(body, "Could not find any versions of model nobody") {
		t.Errorf("%d %s", code, body)
	}
}
