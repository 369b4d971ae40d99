// reference_test.go: pictures and sound held against Pillow, NumPy and Python's wave module, where the venv of the end-to-end tests has them.
package media

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/inferd/inferd/inference/tensor"
)

// python is the interpreter of the end-to-end tests; without it the test is skipped.
func python(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../build/venv/bin/python")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Skipf("no Python to compare with: %v; `make e2e` makes it", err)
	}
	if err := exec.Command(path, "-c", "import numpy, PIL").Run(); err != nil {
		t.Skipf("%s has no Pillow and NumPy: %v", path, err)
	}
	return path
}

// work is one file and what it becomes.
type work struct {
	File string      `json:"file"`
	Spec Description `json:"spec"`
}

// run gives testdata/reference.py its work, and returns the numbers that it wrote, one after the other.
func run(t *testing.T, python string, list []work) []float32 {
	t.Helper()
	doc, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "testdata/reference.py")
	cmd.Stdin = bytes.NewReader(doc)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("reference.py: %v %s", err, stderrOf(err))
	}
	numbers := make([]float32, len(out)/4)
	for i := range numbers {
		numbers[i] = math.Float32frombits(binary.LittleEndian.Uint32(out[4*i:]))
	}
	return numbers
}

func stderrOf(err error) []byte {
	if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as exec returns it
		return e.Stderr
	}
	return nil
}

// TestAgainstPillow: the same pixels become the same numbers within 1 of 255, and those of a JPEG file within what its decoders differ by.
func TestAgainstPillow(t *testing.T) {
	python := python(t)
	files := stored(t)
	delete(files, "cmyk.jpg")   // Pillow makes RGB of CMYK in another way: the decoded inks are the same
	delete(files, "gray16.png") // Pillow makes 8 bits of 16 by clipping
	dir := t.TempDir()
	large := photo(640, 400)
	files["large.png"], files["large.jpg"] = asPNG(t, large), asJPEG(t, large, 90)
	var (
		list []work
		ours [][]float32
	)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, files[name], 0o644); err != nil {
			t.Fatal(err)
		}
		for _, spec := range []Spec{
			{Height: 20, Width: 30}, {Height: 64, Width: 48, Fit: Crop}, {Height: 48, Width: 64, Fit: Pad, Fill: 114}, {Height: 24, Width: 24, Order: Gray, Fit: Pad},
			{Height: 36, Width: 52, Order: BGR}, {Height: 16, Width: 16, Layout: NCHW, Fit: Crop},
		} {
			spec.Format = JPEGOrPNG
			in, err := spec.Bind(tensor.Float, nil, true)
			if err != nil {
				t.Fatal(err)
			}
			list, ours = append(list, work{path, in.Describe()}), append(ours, floats(made(t, in, files[name])))
		}
	}
	all := run(t, python, list)
	for i, got := range ours {
		if len(got) > len(all) {
			t.Fatalf("the reference has too few numbers at %s", list[i].File)
		}
		want := all[:len(got)]
		all = all[len(got):]
		most, sum := 0.0, 0.0
		for k := range got {
			d := math.Abs(float64(got[k]) - float64(want[k]))
			most, sum = max(most, d), sum+d
		}
		name, spec, mean := filepath.Base(list[i].File), list[i].Spec, sum/float64(len(got))
		t.Logf("%-24s %4dx%-4d %-8s %-4s %-4s largest %4.0f mean %.3f", name, spec.Height, spec.Width, spec.Fit, spec.Order, spec.Layout, most, mean)
		allowed, allowedMean := 1.0, 0.5
		switch name {
		case "baseline444.jpg", "turned.jpg": // the decoders round colours otherwise
			allowed = 3
		case "baseline420.jpg", "progressive.jpg":
			// Colour at half the resolution is spread by libjpeg and repeated by Go. In these, which have hard edges of pure colour and few
			// pixels, that shows; in a photograph (large.jpg) it does not.
			allowed, allowedMean = 255, 8
		}
		if most > allowed || mean > allowedMean {
			t.Errorf("%s %+v: differs by %.0f, by %.3f in the mean", name, spec, most, mean)
		}
	}
	if len(all) > 0 {
		t.Errorf("the reference has %d numbers more", len(all))
	}
}

// TestNumbersAgainstNumPy: scale, mean and standard deviation, bit for bit.
func TestNumbersAgainstNumPy(t *testing.T) {
	python := python(t)
	path := filepath.Join(t.TempDir(), "p.png")
	file := asPNG(t, photo(32, 32))
	if err := os.WriteFile(path, file, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, spec := range []Spec{
		{Scale: 1.0 / 255}, {Scale: 1.0 / 127.5, Mean: []float64{1}}, {Mean: []float64{103.939, 116.779, 123.68}, Order: BGR},
		{Scale: 1.0 / 255, Mean: []float64{0.485, 0.456, 0.406}, Std: []float64{0.229, 0.224, 0.225}, Layout: NCHW},
	} {
		spec.Format, spec.Height, spec.Width = PNG, 32, 32
		in, err := spec.Bind(tensor.Float, nil, true)
		if err != nil {
			t.Fatal(err)
		}
		got, want := floats(made(t, in, file)), run(t, python, []work{{path, in.Describe()}})
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("%+v: number %d is %v, NumPy has %v", spec, i, got[i], want[i])
			}
		}
	}
}

// TestSoundAgainstPython: the samples of a WAV file that Python reads, and its windows.
func TestSoundAgainstPython(t *testing.T) {
	python := python(t)
	path := filepath.Join(t.TempDir(), "s.wav")
	samples := ramp(2 * 1000)
	file := wavFile(1, 2, 16, 22050, samples)
	if err := os.WriteFile(path, file, 0o644); err != nil {
		t.Fatal(err)
	}
	in := bind(t, Spec{Format: PCM, Rate: 22050, Channels: 2, Hop: 100}, tensor.Float, -1, 256, 2)
	got, want := floats(made(t, in, file)), run(t, python, []work{{path, in.Describe()}})
	if len(got) != len(want) {
		t.Fatalf("%d numbers, %d in the reference", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("number %d is %v, Python has %v", i, got[i], want[i])
		}
	}
}
