// observe_test.go: the dashboard and the alert rules: each metric that they name is one that a real inferd has.
package deploy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"go.yaml.in/yaml/v3"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// notOurs are series that Prometheus makes itself.
var notOurs = []string{"up"}

var (
	quotedText = regexp.MustCompile(`"[^"]*"`)
	selector   = regexp.MustCompile(`\{[^}]*\}`)
	grouping   = regexp.MustCompile(`\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)`)
	word       = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*(\s*\()?`)
	labelName  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)`)
)

// operators are words of PromQL that are no metrics.
var operators = []string{"unless", "and", "or", "bool", "offset"}

// namesIn are the metrics that an expression names, and the labels that it asks of any of them.
func namesIn(expr string) (metrics, labels []string) {
	for _, s := range selector.FindAllString(quotedText.ReplaceAllString(expr, `""`), -1) {
		for _, m := range labelName.FindAllStringSubmatch(s, -1) {
			labels = append(labels, m[1])
		}
	}
	rest := quotedText.ReplaceAllString(expr, "")
	rest = selector.ReplaceAllString(rest, "")
	rest = grouping.ReplaceAllString(rest, "")
	rest = regexp.MustCompile(`\[[^\]]*\]`).ReplaceAllString(rest, "")
	for _, w := range word.FindAllString(rest, -1) {
		if !strings.HasSuffix(w, "(") && !slices.Contains(operators, w) {
			metrics = append(metrics, w)
		}
	}
	return metrics, labels
}

func TestNamesIn(t *testing.T) {
	metrics, labels := namesIn(`histogram_quantile(0.99, sum by (le, x) (rate(a_bucket{m=~"up|b{"}[5m]))) / on (y) group_left () c:d{} unless on (z) (e{k!="v"}) > 0`)
	if !slices.Equal(metrics, []string{"a_bucket", "c:d", "e"}) || !slices.Equal(labels, []string{"m", "k"}) {
		t.Errorf("found %v and %v", metrics, labels)
	}
}

// scraped are the names of a real inferd's series after it has done everything once.
func scraped(t *testing.T) map[string]bool {
	dir := models(t)
	if _, err := modeltest.Slow(200).Publish(filepath.Join(dir, "slow"), 1); err != nil {
		t.Fatal(err)
	}
	d := start(t, dir)
	if err := half(t.Context(), http.DefaultClient, "http://"+d.http, "half_plus_two"); err != nil {
		t.Fatal(err)
	}
	post := func(path, body string, header ...string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+d.http+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // only the counters are wanted
	}
	post("/v1/models/half_plus_two:predict", `{"instances": [["x"]]}`)                              // an error
	post("/v1/models/half_plus_two:predict", `{"instances": [[1]]}`, "Request-Timeout", "0.000001") // a refusal
	conn, answer, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+d.http+"/v1/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close() // it is the connection's
	_ = conn.Close()        // without a close frame
	for range 20 {
		post("/v1/models/slow:submit", `{"instances": [[1]]}`) // jobs that wait
	}
	var text string
	until(t, "jobs that have ended, jobs that wait, and a closed WebSocket", func() error {
		if _, text, err = get(http.DefaultClient, "http://"+d.http+"/metrics"); err != nil {
			return err
		}
		for _, want := range []string{`inferd_queue_jobs_total{model="slow",state="done"}`, "inferd_queue_depth{", "inferd_queue_oldest_seconds{", "inferd_stream_closed_total{"} {
			if !strings.Contains(text, want) {
				return fmt.Errorf("%s is not in %s", want, text)
			}
		}
		return nil
	})
	names := map[string]bool{}
	for line := range strings.Lines(text) {
		if help, ok := strings.CutPrefix(line, "# TYPE "); ok { // also of what has had no series yet; its parts are those of its type
			name, kind, _ := strings.Cut(strings.TrimSpace(help), " ")
			names[name] = true
			if kind == "histogram" {
				names[name+"_bucket"], names[name+"_sum"], names[name+"_count"] = true, true, true
			}
		}
	}
	return names
}

// unseen are metrics that have a series only once something has gone wrong, or only on some machines. Their names are checked against the source.
var unseen = []string{"inferd_batch_padded_rows_total", "inferd_memory_stall_percent"}

// TestMetricNames: no panel and no alert asks for what is not there.
func TestMetricNames(t *testing.T) {
	type asked struct{ where, expr string }
	var all []asked
	recorded := map[string]bool{}

	var rules struct {
		Groups []struct {
			Rules []struct{ Record, Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, packaging+"/prometheus/inferd.rules.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			all = append(all, asked{"rule " + r.Record + r.Alert, r.Expr})
			recorded[r.Record] = true
		}
	}
	for _, p := range dashboard(t).Panels {
		for _, target := range p.Targets {
			all = append(all, asked{"panel " + p.Title, target.Expr})
		}
	}
	if len(all) < 60 {
		t.Fatalf("%d expressions were found", len(all))
	}
	have, source := scraped(t), source(t)
	for _, a := range all {
		metrics, _ := namesIn(a.expr)
		if len(metrics) == 0 {
			t.Errorf("%s names no metric: %s", a.where, a.expr)
		}
		for _, name := range metrics {
			switch {
			case have[name], recorded[name], slices.Contains(notOurs, name):
			case slices.Contains(unseen, name) && strings.Contains(source, `"`+name+`"`):
			default:
				t.Errorf("%s asks for %s, which inferd does not have", a.where, name)
			}
		}
	}
}

// source is the text of the files that name metrics.
func source(t *testing.T) string {
	files, err := filepath.Glob("../../appliance/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") {
			all.WriteString(read(t, f))
		}
	}
	return all.String()
}

type board struct {
	UID, Title string
	Templating struct {
		List []struct{ Name string }
	}
	Panels []struct {
		ID          int
		Type, Title string
		GridPos     struct{ H, W, X, Y int }
		Targets     []struct{ RefID, Expr string }
	}
}

func dashboard(t *testing.T) (b board) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, packaging+"/grafana/inferd.json")), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDashboard: panels have identifiers and places of their own, and no expression has a variable that is not there.
func TestDashboard(t *testing.T) {
	b := dashboard(t)
	if b.UID == "" || b.Title == "" || len(b.Panels) < 20 {
		t.Errorf("%q, %q, %d panels", b.UID, b.Title, len(b.Panels))
	}
	variables := []string{"__rate_interval"}
	for _, v := range b.Templating.List {
		variables = append(variables, v.Name)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range b.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q: number %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %q of type %s has %d targets", p.Title, p.Type, len(p.Targets))
		}
		g := p.GridPos
		if g.W < 1 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("panel %q lies at %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Fatalf("panels %q and %q lie over each other", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			for _, v := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(target.Expr, -1) {
				if !slices.Contains(variables, v[1]) {
					t.Errorf("panel %q: there is no variable %s", p.Title, v[1])
				}
			}
		}
	}
}

// TestDashboardExpressions: Prometheus' own parser takes every expression of the dashboard.
func TestDashboardExpressions(t *testing.T) {
	promtool := tool(t, "promtool", "prometheus")
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for _, p := range dashboard(t).Panels {
		for _, target := range p.Targets {
			expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
			rules = append(rules, rule{fmt.Sprintf("panel:%d:%d", p.ID, len(rules)), expr})
		}
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "check", "rules", write(t, filepath.Join(t.TempDir(), "r.yaml"), string(text))).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAlerts: Prometheus takes the rules and the scrape configuration, each alert fires on a box that is ill, and none on one that is well.
func TestAlerts(t *testing.T) {
	promtool := tool(t, "promtool", "prometheus")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "inferd.rules.yaml"), read(t, packaging+"/prometheus/inferd.rules.yaml"))
	write(t, filepath.Join(dir, "prometheus.yaml"), read(t, packaging+"/prometheus/prometheus.yaml"))
	tests := write(t, filepath.Join(dir, "rules_test.yaml"), read(t, "testdata/rules_test.yaml"))
	for _, args := range [][]string{{"check", "rules", filepath.Join(dir, "inferd.rules.yaml")}, {"check", "config", filepath.Join(dir, "prometheus.yaml")}, {"test", "rules", tests}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	for _, line := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(read(t, packaging+"/prometheus/inferd.rules.yaml"), -1) {
		if !strings.Contains(read(t, "testdata/rules_test.yaml"), `alertname="`+line[1]+`"`) {
			t.Errorf("no test lets %s fire", line[1])
		}
		if !strings.Contains(read(t, "../../docs/monitoring.md"), line[1]) {
			t.Errorf("docs/monitoring.md does not say what to do at %s", line[1])
		}
	}
}
