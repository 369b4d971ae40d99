// conform_test.go: a running appliance with TensorFlow, and every case at every door of it.
package conform

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tfrt"
)

// patience bounds every wait; it is spent only where something is broken.
const patience = 60 * time.Second

// TestMain: the test binary is also the zygote and the workers.
func TestMain(m *testing.M) {
	if code, worker := appliance.Worker(); worker {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// secrets are the tokens by name; "" is what a case has that says nothing.
var secrets = map[string]string{}

func tokens(t *testing.T, file string) {
	t.Helper()
	err := access.Change(file, "", func(all []access.Token) ([]access.Token, error) {
		for _, tok := range []access.Token{{Name: "all", Scopes: access.Predict | access.Submit}, {Name: "other", Scopes: access.Predict | access.Submit, Models: []string{"scalar"}}, {Name: "graph", Scopes: access.Metrics}} {
			secret := access.NewSecret()
			tok.Sum = access.SumOf(secret)
			secrets[tok.Name], all = secret, append(all, tok)
		}
		return all, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	secrets[""], secrets["none"] = secrets["all"], ""
}

// serve runs an appliance with the cases' models until the test's end.
func serve(t *testing.T) *Server {
	t.Helper()
	library := os.Getenv("LIBTENSORFLOW")
	if library == "" {
		library = filepath.Join("..", "..", "build", "runtime")
	}
	library, err := filepath.Abs(library)
	if err == nil {
		_, err = tfrt.Find(library)
	}
	if err != nil {
		t.Skipf("no TensorFlow runtime in %s: run `make runtime` or set LIBTENSORFLOW (%v)", library, err)
	}
	dir, err := os.MkdirTemp("", "inferd") // not t.TempDir: a unix socket's path has room for 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cfg := config.Default()
	cfg.Listen.GRPC, cfg.Listen.HTTP, cfg.Listen.Control, cfg.Listen.GRPCSocket = "127.0.0.1:0", "127.0.0.1:0", filepath.Join(dir, "control.sock"), filepath.Join(dir, "grpc.sock")
	cfg.ModelsDir, cfg.StateDir, cfg.Runtime.Library = filepath.Join(dir, "models"), filepath.Join(dir, "state"), library
	cfg.Runtime.Isolation = config.IsolationVersion
	cfg.Updater.SettleTime = 200 * time.Millisecond
	cfg.Limits.MaxRequestBytes, cfg.Stream.MaxFrame = 4<<20, 4<<20
	cfg.Access.TokensFile = filepath.Join(dir, "tokens.yaml")
	tokens(t, cfg.Access.TokensFile)
	half, _ := cfg.Model("half_plus_two")
	half.VersionLabels = map[string]int64{"stable": 1}
	cfg.Models = append(cfg.Models, half)
	models := map[string]bool{}
	all := modeltest.All()
	for _, c := range allCases() {
		if build := all[c.ask.Model]; build != nil && !models[c.ask.Model] {
			models[c.ask.Model] = true
			if _, err := build().Publish(filepath.Join(cfg.ModelsDir, c.ask.Model), 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	type doors struct{ grpc, http net.Addr }
	open, ended := make(chan doors, 1), make(chan error, 1)
	a, err := appliance.New(cfg, appliance.Options{Version: "conform", Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		Ready: func(grpc, http net.Addr) { open <- doors{grpc, http} }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	var at doors
	select {
	case at = <-open:
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	dial := func(target string) *grpc.ClientConn {
		conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	s := &Server{HTTP: "http://" + at.http.String(), Client: &http.Client{Transport: new(http.Transport)}, HTTP2: &http.Client{Transport: &http.Transport{Protocols: protocols}},
		GRPC: dial(at.grpc.String()), GRPCSocket: dial("unix:" + cfg.Listen.GRPCSocket), GRPCOnHTTP: dial(at.http.String())}
	t.Cleanup(s.Client.CloseIdleConnections)
	t.Cleanup(s.HTTP2.CloseIdleConnections)
	end := time.Now().Add(3 * patience) // every model is tried first
	for _, model := range slices.Sorted(maps.Keys(models)) {
		for {
			resp, err := s.Client.Get(s.HTTP + "/readyz?model=" + model)
			if err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					break
				}
			}
			if time.Now().After(end) {
				t.Fatalf("%s did not come up: %v %v", model, resp, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return s
}

// TestEveryCaseAtEveryDoor is the suite.
func TestEveryCaseAtEveryDoor(t *testing.T) {
	s := serve(t)
	doors := s.Doors()
	tried, left := 0, 0
	needed := map[string]bool{}
	for _, c := range allCases() {
		t.Run(c.name, func(t *testing.T) {
			secret, known := secrets[c.ask.Token]
			if !known {
				t.Fatalf("no token is called %q", c.ask.Token)
			}
			tokenCase := c.ask.Token != ""
			for _, d := range doors {
				e := c.except[d.Kind]
				if e.skip || d.Local && tokenCase {
					left++
					continue
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				ask := c.ask
				ask.Token = secret
				got, err := d.Ask(ctx, &ask)
				cancel()
				tried++
				if err != nil {
					t.Errorf("%s: %v", d.Name, err)
				} else if fault := c.fault(got, e, d, needed); fault != "" {
					t.Errorf("%s: %s\n%v", d.Name, fault, got)
				}
			}
		})
	}
	for _, p := range untold {
		for _, kind := range p.kinds {
			for _, reason := range p.reasons {
				if !needed[fmt.Sprint(kind, p.code, reason)] {
					t.Errorf("%s tells the reason %q whenever it could be left out: it need not be permitted", kind, reason)
				}
			}
		}
	}
	for _, c := range allCases() {
		for kind, e := range c.except {
			if e.why == "" {
				t.Errorf("%s: why %s differs is not said", c.name, kind)
			}
		}
	}
	t.Logf("%d cases at %d doors: %d asked, %d that a protocol cannot say", len(allCases()), len(doors), tried, left)
}

func allCases() []testCase { return slices.Concat(cases, exampleCases, deadlineCases) }

// fault says what is wrong with an answer, "" when nothing is. It notes in needed which permits were.
func (c *testCase) fault(got *Answer, e except, d Door, needed map[string]bool) string {
	if e.wants != "" {
		if !maps.Equal(got.Outputs, map[string]string{"": e.wants}) {
			return "want " + e.wants
		}
		return ""
	}
	if c.rows != "" {
		if !maps.Equal(got.Outputs, map[string]string{"": c.rows}) {
			return "want " + c.rows
		}
		return ""
	}
	if c.want != nil && e.code == 0 {
		want := map[string]string{}
		for name, t := range c.want {
			want[name] = Text(t)
		}
		if _, unnamed := got.Outputs[""]; unnamed && len(want) == 1 { // TensorFlow Serving's REST does not name a single output
			for _, text := range want {
				want = map[string]string{"": text}
			}
		}
		if !maps.Equal(got.Outputs, want) {
			return fmt.Sprintf("want %v", want)
		}
		return ""
	}
	code, reason := c.code, c.reason
	if e.code != 0 {
		code = e.code
	}
	if e.reason != "" {
		reason = e.reason
	}
	status := func(code inference.Code) int { return api.HTTPStatus(&inference.Error{Code: code, Reason: reason}) }
	switch {
	case e.closed != 0 || got.Closed != 0:
		if e.closed != got.Closed {
			return fmt.Sprintf("want it closed with %d", e.closed)
		}
		return ""
	case got.Outputs != nil:
		return "want an error"
	case got.Status == 0 && got.Code == 0 && d.Mute == "":
		return "it tells neither a status nor a code"
	case got.Status != 0 && got.Status != status(code) && (c.or == 0 || got.Status != status(c.or)):
		return fmt.Sprintf("want status %d", status(code))
	case got.Code != 0 && got.Code != code && (c.or == 0 || got.Code != c.or):
		return fmt.Sprintf("want code %v", code)
	case got.Reason != reason && (got.Reason != "" || d.Mute == "" && !permitted(d.Kind, got.Code, reason, needed)):
		return fmt.Sprintf("want reason %q", reason)
	case !strings.Contains(got.Text, c.text) || got.Text == "":
		return fmt.Sprintf("want a text with %q", c.text)
	}
	return ""
}

// permitted reports whether the protocol need not tell the reason, and notes that it does not.
func permitted(kind Kind, code inference.Code, reason string, needed map[string]bool) bool {
	for _, p := range untold {
		if p.why != "" && slices.Contains(p.kinds, kind) && slices.Contains(p.reasons, reason) && (p.code == 0 || p.code == code) {
			needed[fmt.Sprint(kind, p.code, reason)] = true
			return true
		}
	}
	return false
}
