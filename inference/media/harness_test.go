// harness_test.go: pictures and sound made for the tests.
package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/inferd/inferd/inference/tensor"
)

// bind binds or ends the test.
func bind(tb testing.TB, s Spec, d tensor.DType, shape ...int64) *Input {
	tb.Helper()
	in, err := s.Bind(d, shape, false)
	if err != nil {
		tb.Fatal(err)
	}
	return in
}

// made makes the tensor or ends the test.
func made(tb testing.TB, in *Input, files ...[]byte) *tensor.Tensor {
	tb.Helper()
	t, err := in.Tensor(context.Background(), files, Limits{})
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// photo is a picture with slopes, edges and noise, as a photograph has.
func photo(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	seed := uint32(1)
	for y := range h {
		for x := range w {
			seed = seed*1664525 + 1013904223
			fx, fy := float64(x)/float64(w), float64(y)/float64(h)
			noise := float64(seed>>24)/16 - 8
			r := 128 + 90*math.Sin(7*fx+3*fy) + noise
			g := 128 + 90*math.Cos(5*fy-2*fx) + noise
			b := 255*fx*fy + noise
			if dx, dy := fx-0.4, fy-0.6; dx*dx+dy*dy < 0.03 {
				r, b = 240, 20
			}
			m.SetRGBA(x, y, color.RGBA{clip(r), clip(g), clip(b), 255})
		}
	}
	return m
}

func clip(v float64) uint8 { return uint8(max(0, min(255, v))) }

func asJPEG(tb testing.TB, m image.Image, quality int) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: quality}); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func asPNG(tb testing.TB, m image.Image) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// stored are the files of testdata, which Pillow wrote.
func stored(tb testing.TB) map[string][]byte {
	tb.Helper()
	paths, err := filepath.Glob("testdata/*.[jp][pn]g")
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no pictures in testdata: %v", err)
	}
	files := make(map[string][]byte)
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			tb.Fatal(err)
		}
		files[filepath.Base(p)] = b
	}
	return files
}

// floats are the tensor's numbers.
func floats(t *tensor.Tensor) []float32 {
	out := make([]float32, len(t.Data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
	}
	return out
}

// ramp are n samples, each its own number.
func ramp(n int) []byte {
	var b []byte
	for i := range n {
		b = binary.LittleEndian.AppendUint16(b, uint16(i))
	}
	return b
}

// wavFile puts a header before samples.
func wavFile(code, channels, bits uint16, rate uint32, samples []byte) []byte {
	le := binary.LittleEndian
	b := append([]byte("RIFF"), le.AppendUint32(nil, uint32(36+len(samples)))...)
	b = append(b, "WAVEfmt \x10\x00\x00\x00"...)
	b = le.AppendUint16(le.AppendUint16(b, code), channels)
	b = le.AppendUint32(le.AppendUint32(b, rate), rate*uint32(channels)*uint32(bits)/8)
	b = le.AppendUint16(le.AppendUint16(b, channels*bits/8), bits)
	b = le.AppendUint32(append(b, "data"...), uint32(len(samples)))
	return append(b, samples...)
}
