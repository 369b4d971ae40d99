// fuzz_test.go: saved_model.pb from outside.
package savedmodel

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

func FuzzGraph(f *testing.F) {
	for _, m := range []*modeltest.Model{modeltest.HalfPlusTwo(), modeltest.Functions(), modeltest.Defaults(), withAsset()} {
		f.Add(encode(f, m.Proto()))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMeta(bytes.NewReader(b), int64(len(b)), []string{DefaultTag})
		if err != nil {
			return
		}
		m.graph.ops()
		m.outer(slices.Sorted(maps.Keys(m.signatures)))
		for key, def := range m.signatures {
			s, err := m.graph.signature(key, def)
			if err != nil {
				continue
			}
			if s.Batchable == (s.Unbatchable != "") || s.Batchable && (s.Writes || len(s.Inputs) == 0) || len(s.Outputs) == 0 {
				t.Errorf("%+v", s)
			}
			if err := AssertSignature(def, key, s); err != nil {
				t.Errorf("a signature is not what it says itself: %v", err)
			}
		}
		m.graph.reach([]string{m.restoreOp}, restores)
	})
}
