// peers_test.go: what counts as a right answer, how a run goes on, and that nothing is left of a server.
package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/tools/measure"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "-child" && os.Args[2] == "guard" {
		if err := guard(os.Args[4:]); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func small() *model {
	return &model{Name: "m", Rows: 2,
		Input:   column{Name: "x", Datatype: "FP32", Shape: []int{2}, Floats: appendFloats(nil, 1, 2, 3, 4)},
		Outputs: []column{{Name: "s", Datatype: bytesType, Strings: []string{"a", "bc"}}, {Name: "y", Datatype: "FP32", Shape: []int{1}, Floats: appendFloats(nil, 10, 20)}}}
}

func TestOnlyRightAnswersCount(t *testing.T) {
	m := small()
	right := []column{{Name: "y", Floats: appendFloats(nil, 10.001, 20)}, {Name: "s", Strings: []string{"a", "bc"}}}
	if d, err := m.compare(right, 0, 2); err != nil || d == 0 {
		t.Errorf("a difference within the tolerance: %v, %v", d, err)
	}
	for name, wrong := range map[string][]column{
		"missing": right[:1],
		"number":  {{Name: "y", Floats: appendFloats(nil, 10.1, 20)}, right[1]},
		"NaN":     {{Name: "y", Floats: appendFloats(nil, float32(math.NaN()), 20)}, right[1]},
		"short":   {{Name: "y", Floats: appendFloats(nil, 10)}, right[1]},
		"string":  {right[0], {Name: "s", Strings: []string{"a", "bd"}}},
		"swapped": {right[0], {Name: "s", Strings: []string{"bc", "a"}}},
	} {
		if _, err := m.compare(wrong, 0, 2); err == nil {
			t.Errorf("%s: passed for right", name)
		}
	}
}

func TestAnswersAreRead(t *testing.T) {
	m := small()
	head := `{"outputs":[{"name":"s","datatype":"BYTES","parameters":{"binary_data_size":11}},{"name":"y","datatype":"FP32","parameters":{"binary_data_size":8}}]}`
	for name, c := range map[string]struct {
		w      wire
		body   string
		binary int
	}{
		"TFS JSON":   {tfsJSON, `{"predictions": [{"y": [10], "s": "a"}, {"y": [20], "s": "bc"}]}`, 0},
		"OIP JSON":   {oipJSON, `{"outputs": [{"name": "s", "datatype": "BYTES", "shape": [2], "data": ["a", "bc"]}, {"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [10, 20]}]}`, 0},
		"OIP binary": {oipBinary, head + string(m.Outputs[0].raw()) + string(m.Outputs[1].raw()), len(head)},
	} {
		got, err := c.w.read(m, []byte(c.body), c.binary)
		if err == nil {
			_, err = m.compare(got, 0, 2)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestARunGoesOnAfterACut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.jsonl")
	s, err := openStore(path, machine{CPU: "a"}, false)
	if err != nil {
		t.Fatal(err)
	}
	c := &cell{Peer: "p", Model: "m", Wire: "w", Connections: 8, Rate: 5}
	if err := s.add(entry{Key: c.key(), Cell: c}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.f.WriteString(`{"Key": "cell cut o`); err != nil {
		t.Fatal(err)
	}
	s.close()
	again, err := openStore(path, machine{CPU: "a"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := again.get(c.key()); !ok || e.Cell.Rate != 5 || len(again.entries) != 2 {
		t.Fatalf("got %+v of %d entries", e, len(again.entries))
	}
	again.close()
	other, err := openStore(path, machine{CPU: "b"}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	if len(other.entries) != 1 {
		t.Errorf("a run of another machine went on: %d entries", len(other.entries))
	}
}

func TestNothingIsLeftOfAServer(t *testing.T) {
	dir := t.TempDir()
	// One child in a session of its own that ignores SIGTERM, and a server that does not wait for it.
	s, err := launch(filepath.Join(dir, "log"), nil, "sh", "-c", "setsid sh -c 'trap : TERM; echo $$ > "+dir+"/pid; while :; do sleep 1; done' & sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	for end := time.Now().Add(30 * time.Second); pid == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		text, _ := os.ReadFile(filepath.Join(dir, "pid"))
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if pid == 0 {
		t.Fatal("the child did not start", s.said())
	}
	s.stop()
	if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
		t.Errorf("process %d is left", pid)
	}
}

func TestPicturesAndTables(t *testing.T) {
	entries := []entry{{Machine: &machine{CPU: "c"}}, {Start: &start{Peer: "inferd", Model: "mlp", ReadySecs: 1, IdleMB: 2}},
		{Cell: &cell{Peer: "inferd", Model: "mlp", Wire: "TFS JSON", Connections: 64, Rate: 12345}},
		{Row: &measure.Ratios{Name: "a / b", Bound: 2, Values: []float64{1, 1, 1}, A: []float64{1}, B: []float64{1}}}}
	text := tablesOf(entries)
	for _, want := range []string{"12,345", "| a / b | ≥ 2 | 1.00 |", "**no**", "TensorFlow Serving: not measured"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table has no %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "fastest") {
		t.Error("something is called fastest")
	}
	if svg := picturesOf(entries)["peers-throughput.svg"]; !strings.Contains(svg, "inferd, TFS JSON") {
		t.Errorf("the picture is %s", svg)
	}
	grown := growthPictures([]*point{{Series: "gRPC", X: 1, Micros: 50}, {Series: "gRPC", X: 1000, Micros: 20}})
	if names := slices.Collect(func(yield func(string) bool) {
		for n := range grown {
			if !yield(n) {
				return
			}
		}
	}); !slices.Equal(names, []string{"growth-connections.svg"}) {
		t.Errorf("pictures: %v", names)
	}
}
