// wav_test.go: WAV files of every form, what is no WAV file, rates and windows.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
)

// wavFile is a file of the samples, each written to every channel.
func wavFile(kind, channels, rate, bits int, extra string, samples ...float64) []byte {
	var data []byte
	for _, v := range samples {
		for range channels {
			switch {
			case kind == 3 && bits == 32:
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(v)))
			case kind == 3:
				data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
			case bits == 8:
				data = append(data, byte(128+v*128))
			default:
				n := uint32(int32(v*(1<<31-1))) >> (32 - bits)
				for i := range bits / 8 {
					data = append(data, byte(n>>(8*i)))
				}
			}
		}
	}
	return wavHead(kind, channels, rate, bits, extra, uint32(len(data)), data)
}

func wavHead(kind, channels, rate, bits int, extra string, size uint32, data []byte) []byte {
	b := append([]byte("RIFF\x00\x00\x00\x00WAVE"), extra...)
	b = append(b, "fmt \x10\x00\x00\x00"...)
	b = binary.LittleEndian.AppendUint16(b, uint16(kind))
	b = binary.LittleEndian.AppendUint16(b, uint16(channels))
	b = binary.LittleEndian.AppendUint32(b, uint32(rate))
	b = binary.LittleEndian.AppendUint32(b, uint32(rate*channels*bits/8))
	b = binary.LittleEndian.AppendUint16(b, uint16(channels*bits/8))
	b = binary.LittleEndian.AppendUint16(b, uint16(bits))
	b = append(b, "data"...)
	return append(binary.LittleEndian.AppendUint32(b, size), data...)
}

func allSamples(t testing.TB, next func() (float32, error)) (all []float32) {
	t.Helper()
	for {
		v, err := next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
}

func TestWAVForms(t *testing.T) {
	want := []float64{0, 0.5, -0.5, 0.25}
	for _, f := range []struct {
		kind, channels, bits int
		extra                string
	}{{1, 1, 16, ""}, {1, 2, 16, "LIST\x03\x00\x00\x00abc\x00"}, {1, 1, 8, ""}, {1, 3, 24, ""}, {1, 1, 32, ""}, {3, 2, 32, ""}, {3, 1, 64, ""}} {
		t.Run(fmt.Sprintf("%+v", f), func(t *testing.T) {
			w, err := newWAVReader(bytes.NewReader(wavFile(f.kind, f.channels, 8000, f.bits, f.extra, want...)))
			if err != nil {
				t.Fatal(err)
			}
			got := allSamples(t, w.sample)
			if len(got) != len(want) || w.rate != 8000 {
				t.Fatalf("%v at %d", got, w.rate)
			}
			for i := range want {
				if math.Abs(float64(got[i])-want[i]) > 0.01 {
					t.Errorf("sample %d is %v, not %v", i, got[i], want[i])
				}
			}
		})
	}
	// A pipe's head does not know how much there is, and a pipe may end in the middle of a frame.
	w, err := newWAVReader(bytes.NewReader(wavHead(1, 2, 8000, 16, "", 0xffffffff, []byte{0, 64, 0, 64, 0, 32, 0})))
	if err != nil {
		t.Fatal(err)
	}
	if got := allSamples(t, w.sample); !slices.Equal(got, []float32{0.5}) {
		t.Errorf("%v", got)
	}
}

func TestNoWAV(t *testing.T) {
	good := string(wavFile(1, 1, 8000, 16, "", 0.5))
	for _, c := range []struct{ file, says string }{
		{"", "no WAV file"}, {"RIFX" + good[4:], "no WAV file"}, {good[:20], "ends in its format"}, {good[:12], "ends before its samples"},
		{good[:12] + good[36:], "before it says"}, {strings.Replace(good, "\x10\x00\x00\x00\x01\x00", "\x10\x00\x00\x00\x55\x00", 1), "compressed"},
		{string(wavHead(1, 0, 8000, 16, "", 0, nil)), "0 channels"}, {string(wavHead(1, 1, 0, 16, "", 0, nil)), "0 samples per second"},
		{string(wavHead(1, 1, 8000, 12, "", 0, nil)), "12 bits"}, {string(wavHead(3, 1, 8000, 16, "", 0, nil)), "16 bits"},
		{good[:12] + "fmt \xff\xff\xff\xff", "bytes"},
	} {
		if _, err := newWAVReader(strings.NewReader(c.file)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.40q: %v, want %s", c.file, err, c.says)
		}
	}
}

func FuzzWAV(f *testing.F) {
	f.Add(wavFile(1, 2, 8000, 16, "LIST\x03\x00\x00\x00abc\x00", 0.5, 0.25))
	f.Add(wavFile(3, 1, 44100, 64, "", 0.5))
	f.Fuzz(func(t *testing.T, file []byte) {
		w, err := newWAVReader(bytes.NewReader(file))
		if err != nil {
			return
		}
		if n := len(allSamples(t, w.sample)); n > len(file) {
			t.Errorf("%d samples in %d bytes", n, len(file))
		}
	})
}

func TestResample(t *testing.T) {
	at := func(step float64) []float32 {
		in := []float32{0, 1, 2, 3, 4}
		r := &resampler{step: step, from: func() (float32, error) {
			if len(in) == 0 {
				return 0, io.EOF
			}
			v := in[0]
			in = in[1:]
			return v, nil
		}}
		return allSamples(t, r.sample)
	}
	for _, c := range []struct {
		step float64
		want []float32
	}{{1, []float32{0, 1, 2, 3, 4}}, {2, []float32{0, 2}}, {0.5, []float32{0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5}}} {
		if got := at(c.step); !slices.Equal(got, c.want) {
			t.Errorf("step %v: %v, want %v", c.step, got, c.want)
		}
	}
}

func TestWindows(t *testing.T) {
	file := wavFile(3, 1, 10, 32, "", 0.1, 0.2, 0.3, 0.4, 0.5)
	for _, c := range []struct {
		name   string
		flags  streamFlags
		shape  []int64
		alone  bool
		dtype  string
		says   string
		inputs []string
	}{
		{"the model's", streamFlags{}, []int64{-1, 2, 1}, true, "FLOAT", "", []string{"[[[0.1],[0.2]]]", "[[[0.3],[0.4]]]", "[[[0.5],[0]]]"}},
		{"over", streamFlags{hop: 1}, []int64{1, 3}, false, "FLOAT", "", []string{`{"x":[[0.1,0.2,0.3]]}`, `{"x":[[0.2,0.3,0.4]]}`, `{"x":[[0.3,0.4,0.5]]}`}},
		{"apart", streamFlags{window: 1, hop: 3}, []int64{-1}, true, "FLOAT", "", []string{"[0.1]", "[0.4]"}},
		{"open", streamFlags{window: 5}, []int64{-1, -1}, true, "FLOAT", "", []string{"[[0.1,0.2,0.3,0.4,0.5]]"}},
		{"whole numbers", streamFlags{window: 5}, []int64{5}, true, "INT16", "", []string{"[0,0,0,0,0]"}},
		{"no window", streamFlags{}, []int64{-1}, true, "FLOAT", "--window says", nil},
		{"another window", streamFlags{window: 3}, []int64{-1, 2}, true, "FLOAT", "which is 2 samples", nil},
		{"a scalar", streamFlags{window: 3}, nil, true, "FLOAT", "one number", nil},
		{"three open", streamFlags{window: 3}, []int64{-1, -1, -1}, true, "FLOAT", "--jsonl", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := openSound(io.NopCloser(bytes.NewReader(file)), "x.wav", c.flags, taken{name: "x", alone: c.alone, dtype: c.dtype, shape: c.shape})
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%v, want %s", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for {
				in, err := s.next(t.Context())
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, string(in.inputs))
			}
			if !slices.Equal(got, c.inputs) {
				t.Errorf("%v\nwant %v", got, c.inputs)
			}
		})
	}
	s, err := openSound(io.NopCloser(bytes.NewReader(file)), "x.wav", streamFlags{file: true, window: 2}, taken{})
	if err != nil {
		t.Fatal(err)
	}
	if in, err := s.next(t.Context()); err != nil || !bytes.Equal(in.media, []byte{0xcd, 0x0c, 0x9a, 0x19}) || in.name != "0.00 s" {
		t.Errorf("%x %q %v", in.media, in.name, err)
	}
}
