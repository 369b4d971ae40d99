// pad_test.go: padding of every rank, against a slow and plain definition.
package batch

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/tensor"
)

func TestPadTo(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for rank := 1; rank <= 6; rank++ {
		for range 20 {
			from, most := make(tensor.Shape, rank), make(tensor.Shape, rank)
			for i := range from {
				from[i] = 1 + rng.Int64N(3)
				most[i] = from[i] + rng.Int64N(3)
			}
			most[0] = 99 // rows are not padded here
			n, _ := from.Elements()
			values, words := make([]float32, n), make([][]byte, n)
			for i := range values {
				values[i], words[i] = float32(i+1), []byte(strconv.Itoa(i+1))
			}
			floats := padTo(fake.Floats(from, values...), most)
			in, err := tensor.NewStrings(from, words)
			if err != nil {
				t.Fatal(err)
			}
			strs := padTo(in, most)
			want := plainPad(values, from, floats.Shape)
			if got := fake.Values(floats); len(got) != len(want) || len(strs.Strings) != len(want) {
				t.Fatalf("%v to %v: %d values and %d strings, want %d", from, most, len(got), len(strs.Strings), len(want))
			}
			for i, v := range want {
				if fake.Values(floats)[i] != v || string(strs.Strings[i]) != strconv.Itoa(int(v)) {
					t.Fatalf("%v to %v: element %d is %v and %q, want %v", from, most, i, fake.Values(floats)[i], strs.Strings[i], v)
				}
			}
		}
	}
}

// plainPad looks each element of the result up by its indexes.
func plainPad(values []float32, from, to tensor.Shape) []float32 {
	n, _ := to.Elements()
	out := make([]float32, n)
	for i := range out {
		rest, pos, inside := int64(i), int64(0), true
		index := make([]int64, len(to))
		for d := len(to) - 1; d >= 0; d-- {
			index[d], rest = rest%to[d], rest/to[d]
		}
		for d, x := range index {
			inside = inside && x < from[d]
			pos = pos*from[d] + x
		}
		if out[i] = values[0]; inside {
			out[i] = values[pos]
		}
	}
	return out
}
