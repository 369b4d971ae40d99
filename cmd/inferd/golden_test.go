// golden_test.go: answers become cases that the updater reads.
package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func TestAppendGolden(t *testing.T) {
	file := filepath.Join(t.TempDir(), "golden.jsonl")
	for _, c := range []struct{ request, answer string }{
		{`{"instances":[1, 2],"signature_name":"s","other":[1]}`, "{\n    \"predictions\": [2.5, NaN\n    ]\n}"},
		{`{"inputs":{"x":
			[1]}}`, "{\n    \"outputs\": [\n        -Infinity\n    ]\n}"},
	} {
		var members map[string]json.RawMessage
		if err := json.Unmarshal([]byte(c.request), &members); err != nil {
			t.Fatal(err)
		}
		if err := appendGolden(file, members, []byte(c.answer)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"instances":[1,2],"signature_name":"s","predictions": [2.5, NaN]}
{"inputs":{"x":[1]},"outputs": [-Infinity]}
`
	if string(b) != want {
		t.Fatalf("got\n%s", b)
	}
	info := []inference.TensorInfo{{Alias: "x", DType: tensor.Float, UnknownRank: true}}
	sigs := make(map[string]*inference.Signature)
	for _, key := range []string{"s", inference.DefaultSignature} {
		sigs[key] = &inference.Signature{Key: key, Inputs: info, Outputs: info}
	}
	for line := range strings.Lines(want) {
		if g, err := rest.DecodeGolden([]byte(strings.TrimSpace(line)), sigs); err != nil || g.Want[0] == nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if err := appendGolden(file, nil, []byte("no")); err == nil {
		t.Error("an answer that is none became a case")
	}
}
