// fuzz_test.go: no file panics, takes more than was booked, or becomes anything but the input's tensor.
package media

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/inferd/inferd/inference/tensor"
)

// checkFile holds what a file becomes against what is promised.
func checkFile(t *testing.T, in *Input, file []byte) {
	t.Helper()
	const most = 1 << 22
	booked := int64(-1)
	got, err := in.Tensor(t.Context(), [][]byte{file}, Limits{TensorBytes: most, Book: func(n int64) error { booked = n; return nil }})
	if err != nil {
		if !errors.Is(err, ErrFile) && !errors.Is(err, ErrTooLarge) || err.Error() == "" {
			t.Fatalf("an error of no kind: %v", err)
		}
		return
	}
	want, err := got.Shape.Bytes(got.DType)
	if err != nil || want != int64(len(got.Data)) || want > most || booked < want {
		t.Fatalf("%v of %d bytes, %d booked, %v", got.Shape, len(got.Data), booked, err)
	}
	row := got.Shape
	if !in.Single() {
		row = got.Shape[1:]
	}
	if got.DType != in.DType() || !in.row.Accepts(row) {
		t.Fatalf("%v %v for an input of %v %v", got.DType, got.Shape, in.DType(), in.row)
	}
	if got.DType == tensor.Float {
		for i := 0; i < len(got.Data); i += 4 {
			if f := math.Float32frombits(binary.LittleEndian.Uint32(got.Data[i:])); !(f >= -1 && f <= 256) {
				t.Fatalf("number %d is %v", i/4, f)
			}
		}
	}
}

func FuzzImage(f *testing.F) {
	for _, file := range stored(f) {
		f.Add(file)
	}
	f.Add(pngHeader(1<<20, 1<<20, 8))
	f.Add(withOrientation(asJPEG(f, photo(9, 5), 50), 5, binary.BigEndian))
	var inputs []*Input
	for _, fit := range []Fit{Stretch, Crop, Pad} {
		inputs = append(inputs, bind(f, Spec{Format: JPEGOrPNG, Fit: fit, MaxPixels: 1 << 16}, tensor.Float, -1, 13, 9, 3))
	}
	inputs = append(inputs, bind(f, Spec{Format: JPEGOrPNG, Layout: NCHW, Order: BGR, MaxPixels: 1 << 16}, tensor.Uint8, 3, 36, 52),
		bind(f, Spec{Format: JPEGOrPNG, Order: Gray, MaxPixels: 1 << 16}, tensor.Float, -1, 52, 36))
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, in := range inputs {
			checkFile(t, in, file)
		}
	})
}

func FuzzWAV(f *testing.F) {
	wav := wavFile(1, 1, 16, 8000, ramp(8))
	f.Add(wav)
	f.Add(wav[:20])
	f.Add(wavFile(0xfffe, 2, 16, 8000, ramp(8)))
	f.Add(append(wav[:36:36], "LIST\x03\x00\x00\x00abc\x00data\xff\xff\xff\xffxyz"...))
	f.Add([]byte("RIFF    WAVEdata\x00\x00\x00\x00ab"))
	inputs := []*Input{bind(f, Spec{Format: PCM, Rate: 8000, Hop: 3}, tensor.Float, -1, 5, 1), bind(f, Spec{Format: PCM, Channels: 2, MaxSamples: 99}, tensor.Int16, -1, -1, 2),
		bind(f, Spec{Format: PCM}, tensor.Float, -1)}
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, in := range inputs {
			checkFile(t, in, file)
		}
	})
}

// FuzzPCM: a stream in any pieces has the windows of the same samples in one file.
func FuzzPCM(f *testing.F) {
	f.Add(ramp(20), []byte{1, 2, 3}, byte(0))
	f.Add(ramp(7), []byte{255, 0, 1}, byte(37))
	f.Fuzz(func(t *testing.T, stream, cuts []byte, shape byte) {
		window := 1 + int(shape&7)
		spec := Spec{Format: PCM, Channels: 1 + int(shape>>3&1), Window: window, Hop: 1 + int(shape>>4)%window}
		in, err := spec.Bind(tensor.Float, nil, true)
		if err != nil {
			t.Fatal(err)
		}
		stream = stream[:len(stream)-len(stream)%in.frameBytes()]
		if len(stream) > 1<<12 || isWAV(stream) || isOther(stream) != "" {
			return
		}
		checkWindower(t, in, stream, cuts)
	})
}
