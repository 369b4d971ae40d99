// sound_test.go: sound: headers, windows, and streams that are cut as the same samples in one file are.
package media

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference/tensor"
)

func TestSoundNumbers(t *testing.T) {
	samples := []byte{0, 0, 0xff, 0x7f, 0, 0x80, 1, 0}
	want := []float32{0, 32767.0 / 32768, -1, 1.0 / 32768}
	for _, test := range []struct {
		name  string
		spec  Spec
		shape tensor.Shape
		got   tensor.Shape
		want  []float32
	}{
		{"mono", Spec{}, tensor.Shape{-1, 4}, tensor.Shape{1, 4}, want},
		{"mono with a channel", Spec{}, tensor.Shape{-1, 4, 1}, tensor.Shape{1, 4, 1}, want},
		{"stereo", Spec{Channels: 2}, tensor.Shape{-1, 2, 2}, tensor.Shape{1, 2, 2}, want},
		{"without rows", Spec{}, tensor.Shape{4}, tensor.Shape{4}, want},
		{"stereo without rows", Spec{Channels: 2}, tensor.Shape{2, 2}, tensor.Shape{2, 2}, want},
		{"a whole file", Spec{}, tensor.Shape{-1, -1}, tensor.Shape{1, 4}, want},
		{"a whole file without rows", Spec{}, tensor.Shape{-1}, tensor.Shape{4}, want},
		{"padded", Spec{}, tensor.Shape{-1, 6}, tensor.Shape{1, 6}, append(slices.Clone(want), 0, 0)},
		{"two windows", Spec{}, tensor.Shape{-1, 3}, tensor.Shape{2, 3}, append(slices.Clone(want), 0, 0)},
		{"windows over each other", Spec{Hop: 1}, tensor.Shape{-1, 3}, tensor.Shape{2, 3}, []float32{want[0], want[1], want[2], want[1], want[2], want[3]}},
		{"scaled", Spec{Scale: 1}, tensor.Shape{-1, 4}, tensor.Shape{1, 4}, []float32{0, 32767, -32768, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.spec.Format, test.spec.Rate = PCM, 8000
			in := bind(t, test.spec, tensor.Float, test.shape...)
			for name, file := range map[string][]byte{"bare": samples, "WAV": wavFile(1, uint16(max(1, test.spec.Channels)), 16, 8000, samples)} {
				got := made(t, in, file)
				if !got.Shape.Equal(test.got) || !slices.Equal(floats(got), test.want) {
					t.Errorf("%s: %v %v", name, got.Shape, floats(got))
				}
			}
		})
	}
	if got := made(t, bind(t, Spec{Format: PCM}, tensor.Int16, -1, 4), samples); got.DType != tensor.Int16 || !bytes.Equal(got.Data, samples) {
		t.Errorf("int16: %v %v", got.DType, got.Data)
	}
}

func TestSoundRefused(t *testing.T) {
	samples := ramp(8)
	wav := wavFile(1, 1, 16, 8000, samples)
	extensible := slices.Concat(wav[:16], []byte{40, 0, 0, 0, 0xfe, 0xff}, wav[22:36], make([]byte, 8), []byte{1, 0}, make([]byte, 14), wav[36:])
	odd := slices.Concat(wav[:36], []byte("LIST\x03\x00\x00\x00abc\x00"), wav[36:]) // a chunk of an odd length is followed by a byte
	piped := bytes.Clone(wav)
	binary.LittleEndian.PutUint32(piped[40:], math.MaxUint32)
	for name, good := range map[string][]byte{"extensible": extensible, "odd": odd, "from a pipe": piped, "from a pipe, cut inside a sample": piped[:len(piped)-1]} {
		if _, err := bind(t, Spec{Format: PCM, Rate: 8000}, tensor.Float, -1, 8).Tensor(t.Context(), [][]byte{good}, Limits{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, test := range []struct {
		name string
		spec Spec
		file []byte
		kind error
		says string
	}{
		{"nothing", Spec{}, nil, ErrFile, "it holds no sample"},
		{"half a sample", Spec{}, samples[:3], ErrFile, "its 3 bytes of samples end inside a frame of 2 bytes"},
		{"half a frame", Spec{Channels: 2}, samples[:6], ErrFile, "end inside a frame of 4 bytes (16 bits for each of 2 channels)"},
		{"too long", Spec{MaxSamples: 7}, samples, ErrTooLarge, "it has 8 samples per channel, at most 7 are allowed (max_samples)"},
		{"another rate", Spec{}, wavFile(1, 1, 16, 44100, samples), ErrFile, "of 44100 samples per second, and this input takes 8000; convert it"},
		{"stereo", Spec{}, wavFile(1, 2, 16, 8000, samples), ErrFile, "of 2 channels, and this input takes 1"},
		{"8 bits", Spec{}, wavFile(1, 1, 8, 8000, samples), ErrFile, "of format 1 with 8 bits"},
		{"floats", Spec{}, wavFile(3, 1, 32, 8000, samples), ErrFile, "of floating-point samples"},
		{"MP3 in WAV", Spec{}, wavFile(85, 1, 16, 8000, samples), ErrFile, "of format 85"},
		{"cut short", Spec{}, wav[:len(wav)-2], ErrFile, "cut short: 14 of 16 bytes"},
		{"no samples", Spec{}, wav[:36], ErrFile, `without samples (no "data")`},
		{"header alone", Spec{}, wav[:12], ErrFile, `without samples`},
		{"no description", Spec{}, slices.Concat(wav[:12], wav[36:]), ErrFile, `before their description`},
		{"a short description", Spec{}, slices.Concat(wav[:16], []byte{4, 0, 0, 0}, wav[20:24], wav[36:]), ErrFile, "description of the samples is cut short"},
		{"MP3", Spec{}, []byte("ID3\x03\x00abcde"), ErrFile, "it is an MP3 file"},
		{"a picture", Spec{}, []byte(pngMagic), ErrFile, "it is a PNG file"},
	} {
		test.spec.Format, test.spec.Rate = PCM, 8000
		in := bind(t, test.spec, tensor.Float, -1, 8, int64(max(1, test.spec.Channels)))
		booked := false
		_, err := in.Tensor(t.Context(), [][]byte{test.file}, Limits{Book: func(int64) error { booked = true; return nil }})
		if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) || booked {
			t.Errorf("%s: got %v (booked %v), want %s", test.name, err, booked, test.says)
		}
	}
}

// TestSoundRows: what several files and many windows may be.
func TestSoundRows(t *testing.T) {
	in := bind(t, Spec{Format: PCM}, tensor.Int16, -1, 4)
	if got := made(t, in, ramp(4), ramp(2)); !got.Shape.Equal(tensor.Shape{2, 4}) || !bytes.Equal(got.Data, append(ramp(4), 0, 0, 1, 0, 0, 0, 0, 0)) {
		t.Errorf("%v %v", got.Shape, got.Data)
	}
	if _, err := in.Tensor(t.Context(), [][]byte{ramp(4), ramp(5)}, Limits{}); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "file 1: it has 5 samples, which are 2 windows; where several files") {
		t.Error(err)
	}
	whole := bind(t, Spec{Format: PCM}, tensor.Int16, -1, -1)
	if _, err := whole.Tensor(t.Context(), [][]byte{ramp(4), ramp(5)}, Limits{}); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "file 1: it has 5 samples and the first one has 4") {
		t.Error(err)
	}
	single := bind(t, Spec{Format: PCM}, tensor.Int16, 4)
	if _, err := single.Tensor(t.Context(), [][]byte{ramp(5)}, Limits{}); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "2 windows, and this input takes one of 4 samples") {
		t.Error(err)
	}
	// A hop of one sample makes a window of each: a few kilobytes would become gigabytes.
	bomb := bind(t, Spec{Format: PCM, Hop: 1}, tensor.Float, -1, 1<<20)
	if _, err := bomb.Tensor(t.Context(), [][]byte{make([]byte, 3<<20)}, Limits{TensorBytes: 256 << 20}); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "524289 rows of 4194304 bytes each") {
		t.Error(err)
	}
}

// TestWindower: however a stream is cut, its windows are those of the same samples in one file.
func TestWindower(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		window := 1 + random.IntN(12)
		spec := Spec{Format: PCM, Channels: 1 + random.IntN(3), Window: window, Hop: 1 + random.IntN(window)}
		in, err := spec.Bind([]tensor.DType{tensor.Float, tensor.Int16}[random.IntN(2)], nil, true)
		if err != nil {
			t.Fatal(err)
		}
		var cuts []byte
		for range random.IntN(20) {
			cuts = append(cuts, byte(random.IntN(9)))
		}
		checkWindower(t, in, ramp(spec.Channels*random.IntN(60)), cuts)
	}
}

// checkWindower holds a stream that is cut after so many bytes each time against the file.
func checkWindower(t *testing.T, in *Input, stream, cuts []byte) {
	t.Helper()
	var want []byte
	if len(stream) > 0 {
		want = made(t, in, stream).Data
	}
	w, err := in.Windower()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a flushed one is as new
		var got []byte
		at := int64(0)
		emit := func(next Window) error {
			if next.At != at || !next.Tensor.Shape[1:].Equal(in.row) || next.Tensor.Shape[0] != 1 {
				t.Fatalf("a window at %d of shape %v, want %d", next.At, next.Tensor.Shape, at)
			}
			at += int64(in.spec.Hop)
			got = append(got, next.Tensor.Data...)
			return nil
		}
		rest := stream
		for i := 0; len(rest) > 0; i++ {
			n := len(rest)
			if i < len(cuts) {
				n = min(n, int(cuts[i]))
			}
			if err := w.Push(rest[:n], emit); err != nil {
				t.Fatal(err)
			}
			if len(w.kept) >= in.spec.Window*in.frameBytes() || cap(w.kept) > in.spec.Window*in.frameBytes() {
				t.Fatalf("keeps %d bytes of %d", len(w.kept), cap(w.kept))
			}
			rest = rest[n:]
		}
		if err := w.Flush(emit); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%+v, %d bytes in cuts %v:\ngot  %v\nwant %v", in.spec, len(stream), cuts, got, want)
		}
	}
}

func TestWindowerEnds(t *testing.T) {
	in := bind(t, Spec{Format: PCM}, tensor.Int16, -1, 4)
	w, err := in.Windower()
	if err != nil {
		t.Fatal(err)
	}
	var at []int64
	emit := func(next Window) error { at = append(at, next.At); return nil }
	if err := errors.Join(w.Push(ramp(5), emit), w.Push([]byte{1}, emit)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(emit); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "the stream ended inside a frame: 1 of 2 bytes") {
		t.Errorf("half a sample: %v", err)
	}
	if err := w.Push(ramp(3), emit); err != nil {
		t.Fatal(err)
	}
	w.Reset()
	if err := errors.Join(w.Push(ramp(4), emit), w.Flush(emit)); err != nil || !slices.Equal(at, []int64{0, 0}) {
		t.Errorf("after a reset: windows at %v, %v", at, err)
	}
	stop := errors.New("stop")
	if err := w.Push(ramp(20), func(Window) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("emit's error: %v", err)
	}
	if got := w.Bytes(); got != 16 {
		t.Errorf("%d bytes", got)
	}
	for _, none := range []*Input{bind(t, Spec{Format: PCM}, tensor.Float, -1, -1), bind(t, Spec{Format: PNG}, tensor.Float, -1, 2, 2, 3)} {
		if _, err := none.Windower(); !errors.Is(err, ErrNoWindow) {
			t.Errorf("%v", err)
		}
	}
}
