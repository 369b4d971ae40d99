// wav.go: sound for `inferd stream`: a WAV file or a pipe of one, mixed to one channel, at the model's rate, cut into windows.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// Bounds on a WAV file's head and on a window.
const (
	maxChannels = 64
	maxRate     = 1 << 20
	maxChunk    = 1 << 20 // of what is before the samples
	maxWindow   = 1 << 24 // samples
)

// wavReader gives the samples of a WAV file in one channel, from -1 to 1.
type wavReader struct {
	r        *bufio.Reader
	rate     int
	channels int
	bits     int
	float    bool
	left     int64 // bytes of samples; a pipe's head does not know, then it is as good as endless
	frame    []byte
}

func newWAVReader(in io.Reader) (*wavReader, error) {
	w := &wavReader{r: bufio.NewReaderSize(in, 64<<10)}
	var head [12]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil || string(head[:4]) != "RIFF" || string(head[8:]) != "WAVE" {
		return nil, fmt.Errorf("no WAV file: it does not begin with RIFF and WAVE (%w)", orEOF(err))
	}
	for {
		var chunk [8]byte
		if _, err := io.ReadFull(w.r, chunk[:]); err != nil {
			return nil, fmt.Errorf("the WAV file ends before its samples: %w", orEOF(err))
		}
		size := int64(binary.LittleEndian.Uint32(chunk[4:]))
		switch string(chunk[:4]) {
		case "data":
			if w.rate == 0 {
				return nil, errors.New("the WAV file has samples before it says what they are")
			}
			if w.left = size; size == 0 || size >= math.MaxInt32 {
				w.left = math.MaxInt64 // written by a program that did not know the end
			}
			return w, nil
		case "fmt ":
			if size < 16 || size > maxChunk {
				return nil, fmt.Errorf("the WAV file's format has %d bytes", size)
			}
			body := make([]byte, size+size%2)
			if _, err := io.ReadFull(w.r, body); err != nil {
				return nil, fmt.Errorf("the WAV file ends in its format: %w", orEOF(err))
			}
			if err := w.format(body[:size]); err != nil {
				return nil, err
			}
		default:
			if _, err := io.CopyN(io.Discard, w.r, size+size%2); err != nil {
				return nil, fmt.Errorf("the WAV file ends before its samples: %w", orEOF(err))
			}
		}
	}
}

func orEOF(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (w *wavReader) format(b []byte) error {
	kind := binary.LittleEndian.Uint16(b)
	if kind == 0xfffe && len(b) >= 26 { // extensible: the real one begins the GUID
		kind = binary.LittleEndian.Uint16(b[24:])
	}
	w.channels, w.rate, w.bits = int(binary.LittleEndian.Uint16(b[2:])), int(binary.LittleEndian.Uint32(b[4:])), int(binary.LittleEndian.Uint16(b[14:]))
	w.float = kind == 3
	switch {
	case kind != 1 && kind != 3:
		return fmt.Errorf("the WAV file's samples are compressed (form %d); convert them to PCM", kind)
	case w.channels < 1 || w.channels > maxChannels:
		return fmt.Errorf("the WAV file has %d channels", w.channels)
	case w.rate < 1 || w.rate > maxRate:
		return fmt.Errorf("the WAV file has %d samples per second", w.rate)
	case w.float && w.bits != 32 && w.bits != 64, !w.float && !slices.Contains([]int{8, 16, 24, 32}, w.bits):
		return fmt.Errorf("the WAV file's samples have %d bits", w.bits)
	}
	w.frame = make([]byte, w.channels*w.bits/8)
	return nil
}

// sample is the next one, or io.EOF. Half a frame at the end is left.
func (w *wavReader) sample() (float32, error) {
	if w.left < int64(len(w.frame)) {
		return 0, io.EOF
	}
	if _, err := io.ReadFull(w.r, w.frame); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		return 0, err
	}
	w.left -= int64(len(w.frame))
	sum := 0.0
	for b := w.frame; len(b) > 0; b = b[w.bits/8:] {
		switch {
		case w.float && w.bits == 32:
			sum += float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		case w.float:
			sum += math.Float64frombits(binary.LittleEndian.Uint64(b))
		case w.bits == 8:
			sum += (float64(b[0]) - 128) / 128
		case w.bits == 16:
			sum += float64(int16(binary.LittleEndian.Uint16(b))) / (1 << 15)
		case w.bits == 24:
			sum += float64(int32(uint32(b[0])<<8|uint32(b[1])<<16|uint32(b[2])<<24)) / (1 << 31)
		default:
			sum += float64(int32(binary.LittleEndian.Uint32(b))) / (1 << 31)
		}
	}
	return float32(sum / float64(w.channels)), nil
}

// resampler makes another rate of it, by straight lines between samples: enough for speech and alarms; convert with a proper tool for more.
type resampler struct {
	from   func() (float32, error)
	step   float64 // of the source, for one sample
	at     float64 // between a and b
	a, b   float32
	primed bool
}

func (r *resampler) sample() (float32, error) {
	if r.step == 1 {
		return r.from()
	}
	var err error
	if !r.primed {
		if r.a, err = r.from(); err != nil {
			return 0, err
		}
		if r.b, err = r.from(); err != nil {
			return 0, err
		}
		r.primed = true
	}
	for r.at >= 1 {
		r.a = r.b
		if r.b, err = r.from(); err != nil {
			return 0, err
		}
		r.at--
	}
	v := r.a + float32(r.at)*(r.b-r.a)
	r.at += r.step
	return v, nil
}

// sound cuts samples into windows.
type sound struct {
	io.Closer
	from   *resampler
	rate   int
	want   taken
	shape  []int64
	window []float32 // what the next one begins with
	size   int
	hop    int
	at     int64 // the sample that it begins at
	asFile bool
	done   bool
}

func openSound(in io.ReadCloser, name string, f streamFlags, want taken) (*sound, error) {
	w, err := newWAVReader(in)
	if err != nil {
		return nil, usagef("%s: %w", name, err)
	}
	s := &sound{Closer: in, rate: w.rate, want: want, shape: slices.Clone(want.shape), size: f.window, asFile: f.file}
	if f.rate > 0 {
		s.rate = f.rate
	}
	s.from = &resampler{from: w.sample, step: float64(w.rate) / float64(s.rate)}
	if !f.file {
		if err := s.fit(f.window); err != nil {
			return nil, err
		}
	}
	if s.size < 1 || s.size > maxWindow {
		return nil, usagef("a window of %d samples; --window takes 1 to %d", s.size, maxWindow)
	}
	if s.hop = f.hop; s.hop == 0 {
		s.hop = s.size
	}
	if s.hop > maxWindow {
		return nil, usagef("--hop %d: at most %d", s.hop, maxWindow)
	}
	return s, nil
}

// fit finds the window in the input's shape: the product of the dimensions that are given, or the open one where --window says how much.
func (s *sound) fit(window int) error {
	fixed, open := int64(1), []int(nil)
	for i, d := range s.shape {
		switch {
		case d < 0:
			open = append(open, i)
		case d == 0 || fixed > maxWindow/d:
			return usagef("input %q has shape %v, which is no window of sound", s.want.name, s.want.shape)
		default:
			fixed *= d
		}
	}
	switch {
	case len(s.shape) == 0:
		return usagef("input %q is one number; stream it with --jsonl", s.want.name)
	case len(open) > 0 && fixed > 1 && open[0] == 0: // the batch
		s.shape[0], open = 1, open[1:]
	case len(open) == 2 && open[0] == 0:
		s.shape[0], open = 1, open[1:]
	}
	switch {
	case len(open) == 0 && window == 0:
		s.size = int(fixed)
		return nil
	case len(open) == 0 && int64(window) == fixed:
		return nil
	case len(open) == 0:
		return usagef("--window %d: input %q has shape %v, which is %d samples", window, s.want.name, s.want.shape, fixed)
	case len(open) > 1:
		return usagef("input %q has shape %v; stream it with --jsonl", s.want.name, s.want.shape)
	case window == 0:
		return usagef("input %q has shape %v; --window says how many samples", s.want.name, s.want.shape)
	case int64(window)%fixed != 0:
		return usagef("--window %d: input %q has shape %v, which takes a multiple of %d", window, s.want.name, s.want.shape, fixed)
	}
	s.shape[open[0]] = int64(window) / fixed
	return nil
}

// next is a window. The last one is filled up with silence.
func (s *sound) next(ctx context.Context) (input, error) {
	if s.done {
		return input{}, io.EOF
	}
	fresh := 0
	for len(s.window) < s.size {
		if ctx.Err() != nil {
			return input{}, context.Cause(ctx)
		}
		v, err := s.from.sample()
		if errors.Is(err, io.EOF) {
			s.done = true
			break
		}
		if err != nil {
			return input{}, err
		}
		s.window = append(s.window, v)
		fresh++
	}
	if s.done && (fresh == 0 || s.asFile && len(s.window) == 0) {
		return input{}, io.EOF
	}
	whole := append(slices.Clone(s.window), make([]float32, s.size-len(s.window))...)
	in := input{name: fmt.Sprintf("%.2f s", float64(s.at)/float64(s.rate))}
	if s.asFile {
		in.media = make([]byte, 0, 2*len(whole))
		for _, v := range whole {
			in.media = binary.LittleEndian.AppendUint16(in.media, uint16(int16(max(-1<<15, min(1<<15-1, math.Round(float64(v)*(1<<15)))))))
		}
	} else {
		in.inputs = s.want.request(s.shape, whole)
	}
	s.at += int64(s.hop)
	if s.hop < len(s.window) {
		s.window = append(s.window[:0], s.window[s.hop:]...)
	} else {
		for range s.hop - len(s.window) { // a hop that is longer than the window leaves some out
			if _, err := s.from.sample(); err != nil {
				s.done = true
				break
			}
		}
		s.window = s.window[:0]
	}
	return in, nil
}
