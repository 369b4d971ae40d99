// picture_test.go: how a result is told: the table, the picture, the keys of its JSON.
package loadgen

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

func told() *Result {
	step := func(rate, good float64, p50 float64, refused int64) Step {
		s := Step{Rate: rate, Seconds: 10, Offered: int64(rate * 10), Sent: int64(rate * 10), Answered: int64(good * 10), Good: int64(good * 10), Refused: refused, RefusedBy: map[string]int64{}, FailedBy: map[string]int64{},
			OfferedRate: rate, AnsweredRate: good, Goodput: good, MostInFlight: 4, Connections: 4}
		s.Latency = Times{Count: s.Answered, Mean: p50, P50: p50, P90: 2 * p50, P99: 5 * p50, P999: 6 * p50, Max: 7 * p50}
		s.Service = s.Latency
		if refused > 0 {
			s.RefusedBy["deadline"], s.RefusedBy["queue_full"] = refused-1, 1
			s.Refusal = Times{Count: refused, P50: 0.2, P99: 1.1}
		}
		return s
	}
	last := step(400, 88, 60, 3118)
	last.Sent, last.Failed, last.FailedBy["reset"] = 3999, 1, 1
	last.Refused, last.LateSends, last.LateMost, last.GeneratorLate, last.Held = 3118, 41, 12.5, true, 3
	return &Result{Target: "127.0.0.1:8501", Model: "res\x1bnet<&>", Protocol: REST, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Arrivals: Poisson, Deadline: 100, Rows: 2, BodyBytes: 1024, Clients: 1, InFlight: 1000,
		Steps: []Step{step(50, 50, 12, 0), step(100, 90, 48, 100), last}}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got:\n%s", file, got)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	told().Table(&b)
	golden(t, "testdata/table.golden", b.Bytes())
	b.Reset()
	r := told()
	r.Arrivals, r.Interrupted, r.Steps = closedLoop, true, []Step{{Callers: 8, Open: 2}}
	r.Table(&b)
	for _, want := range []string{"CALLERS", "with 8 callers: 2 had no answer yet", "interrupted: "} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in:\n%s", want, &b)
		}
	}
}

func TestPicture(t *testing.T) {
	for name, r := range map[string]*Result{"testdata/picture.svg": told(), "": {Arrivals: closedLoop, Steps: []Step{{Callers: 1}}}, " ": {}} {
		var b bytes.Buffer
		if err := r.SVG(&b); err != nil {
			t.Fatal(err)
		}
		if name := strings.TrimSpace(name); name != "" {
			golden(t, name, b.Bytes())
		}
		dec := xml.NewDecoder(bytes.NewReader(b.Bytes()))
		for {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("no XML: %v", err)
			}
		}
		if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
			t.Errorf("%s", &b)
		}
	}
}

// The keys are promised: scripts read them.
func TestKeysStay(t *testing.T) {
	b, err := json.MarshalIndent(told(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/result.json", append(b, '\n'))
}
