// model.go: a model as python/models.py made it, and what is a right answer of it.
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
)

// names of the models, in the order in which they are measured.
var modelNames = []string{"mlp", "mobilenet", "resnet50", "basic-pitch", "text"}

// bytesType is the Open Inference Protocol's name for strings; all else here is FP32.
const bytesType = "BYTES"

// column is one tensor without its first dimension, which counts rows.
type column struct {
	Name     string   `json:"name"`
	Datatype string   `json:"datatype"`
	Shape    []int    `json:"shape"`
	Floats   []byte   `json:"floats,omitempty"` // little-endian, row after row
	Strings  []string `json:"strings,omitempty"`
}

// model is what TensorFlow answers (Outputs) to a few rows (Input).
type model struct {
	Name    string   `json:"name"`
	Rows    int      `json:"rows"`
	Input   column   `json:"input"`
	Outputs []column `json:"outputs"`

	home string // the folder that servers are pointed at: home/Name/1 is the SavedModel
}

func readModel(home string) (*model, error) {
	text, err := os.ReadFile(filepath.Join(home, "answers.json"))
	if err != nil {
		return nil, err
	}
	m := &model{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%s: %w", home, err)
	}
	m.home, err = filepath.Abs(home)
	return m, err
}

// dir is the version folder.
func (m *model) dir() string { return filepath.Join(m.home, m.Name, "1") }

// big says that one run takes milliseconds.
func (m *model) big() bool { return m.Name != "mlp" && m.Name != "text" }

// size is the number of elements of a row.
func (c *column) size() int {
	n := 1
	for _, d := range c.Shape {
		n *= d
	}
	return n
}

// rows are n rows from the given one on.
func (c *column) rows(from, n int) column {
	part := *c
	if c.Datatype == bytesType {
		part.Strings = c.Strings[from*c.size() : (from+n)*c.size()]
	} else {
		part.Floats = c.Floats[4*from*c.size() : 4*(from+n)*c.size()]
	}
	return part
}

func float32s(data []byte) []float32 {
	out := make([]float32, len(data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return out
}

func appendFloats(out []byte, values ...float32) []byte {
	for _, v := range values {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
	}
	return out
}

// tolerance is how far an answer may be from TensorFlow's, over the largest number of that output: other kernels add in another order.
const tolerance = 1e-3

// compare holds the answers of some rows against TensorFlow's and returns the largest difference, over the largest number.
func (m *model) compare(got []column, from, n int) (float64, error) {
	worst := 0.0
	for i := range m.Outputs {
		want := m.Outputs[i].rows(from, n)
		var have *column
		for k := range got {
			if got[k].Name == want.Name || got[k].Name == "" && len(m.Outputs) == 1 {
				have = &got[k]
			}
		}
		if have == nil {
			return 0, fmt.Errorf("the answer has no %q", want.Name)
		}
		d, err := want.differ(have)
		if err != nil {
			return 0, fmt.Errorf("output %q: %w", want.Name, err)
		}
		worst = max(worst, d)
	}
	return worst, nil
}

// differ is the largest difference of a column from the right one, an error where it is above the tolerance.
func (c *column) differ(got *column) (float64, error) {
	if c.Datatype == bytesType {
		if len(got.Strings) != len(c.Strings) {
			return 0, fmt.Errorf("%d strings where %d are right", len(got.Strings), len(c.Strings))
		}
		for i, s := range c.Strings {
			if got.Strings[i] != s {
				return 0, fmt.Errorf("%q where %q is right", got.Strings[i], s)
			}
		}
		return 0, nil
	}
	want, have := float32s(c.Floats), float32s(got.Floats)
	if len(want) != len(have) {
		return 0, fmt.Errorf("%d numbers where %d are right", len(have), len(want))
	}
	largest, worst := 0.0, 0.0
	for i := range want {
		largest = max(largest, math.Abs(float64(want[i])))
		d := math.Abs(float64(have[i]) - float64(want[i]))
		if math.IsNaN(d) {
			d = math.Inf(1)
		}
		worst = max(worst, d)
	}
	if worst > tolerance*largest {
		return 0, fmt.Errorf("differs from TensorFlow's by %.2g where the largest number is %.2g", worst, largest)
	}
	return worst / largest, nil
}
