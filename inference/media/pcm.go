// pcm.go: files of sound: a WAV header, or samples alone, and the windows that they become.
package media

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"

	"github.com/inferd/inferd/inference/tensor"
)

const sampleBytes = 2

// isWAV reports whether the file begins as a WAV file does.
func isWAV(file []byte) bool {
	return len(file) >= 12 && string(file[:4]) == "RIFF" && string(file[8:12]) == "WAVE"
}

// isOther is what the file is where it is surely not bare samples. Only magic that no sound is likely to begin with counts.
func isOther(file []byte) string {
	for _, k := range []struct{ magic, name string }{
		{jpegMagic + "\xe0", "a JPEG file"}, {pngMagic, "a PNG file"}, {"OggS\x00\x02", "an Ogg file"}, {"fLaC\x00\x00", "a FLAC file"}, {"ID3\x03\x00", "an MP3 file"}, {"ID3\x04\x00", "an MP3 file"},
		{"RIFX", "a big-endian WAV file"}, {"RF64", "an RF64 file"},
	} {
		if bytes.HasPrefix(file, []byte(k.magic)) {
			return k.name
		}
	}
	return ""
}

// samples are the interleaved samples of the file, in place: whole frames, at least one and at most MaxSamples.
func (in *Input) samples(file []byte) ([]byte, error) {
	data := file
	if isWAV(file) {
		var err error
		if data, err = in.wav(file); err != nil {
			return nil, err
		}
	} else if k := isOther(file); k != "" {
		return nil, unfit("it is %s, and this input takes 16-bit sound: a WAV file, or its samples alone", k)
	}
	frame := in.frameBytes()
	n := int64(len(data) / frame)
	switch {
	case n == 0:
		return nil, unfit("it holds no sample; send at least one for each of %d channels", in.spec.Channels)
	case len(data)%frame != 0:
		return nil, unfit("its %d bytes of samples end inside a frame of %d bytes (16 bits for each of %d channels); send whole ones", len(data), frame, in.spec.Channels)
	case n > in.spec.MaxSamples:
		return nil, tooLarge("it has %d samples per channel, at most %d are allowed (max_samples); send it in parts", n, in.spec.MaxSamples)
	}
	return data, nil
}

func (in *Input) frameBytes() int { return sampleBytes * in.spec.Channels }

// WAV's codes of formats.
const (
	wavPCM        = 1
	wavFloat      = 3
	wavExtensible = 0xfffe
)

// wav finds the samples of a WAV file that are of the configured kind.
func (in *Input) wav(file []byte) ([]byte, error) {
	known := false
	for b := file[12:]; len(b) >= 8; {
		id, n := string(b[:4]), uint64(binary.LittleEndian.Uint32(b[4:]))
		b = b[8:]
		body := b[:min(n, uint64(len(b)))]
		switch id {
		case "fmt ":
			if err := in.checkFormat(body); err != nil {
				return nil, err
			}
			known = true
		case "data":
			if !known {
				return nil, unfit("it is a WAV file whose samples come before their description (\"fmt \"); save it again")
			}
			// Who writes to a pipe cannot know the length, and says 0 or the most that there is.
			if n == 0 || n >= math.MaxUint32-64 {
				body = b[:len(b)-len(b)%in.frameBytes()]
			} else if uint64(len(b)) < n {
				return nil, unfit("it is a WAV file that is cut short: %d of %d bytes of samples are there", len(b), n)
			}
			return body, nil
		}
		b = b[min(n+n%2, uint64(len(b))):]
	}
	return nil, unfit("it is a WAV file without samples (no \"data\"); it is cut short or damaged")
}

// checkFormat holds a WAV file's description against the configuration.
func (in *Input) checkFormat(b []byte) error {
	if len(b) < 16 {
		return unfit("it is a WAV file whose description of the samples is cut short; save it again")
	}
	le := binary.LittleEndian
	code, channels, rate, bits := le.Uint16(b), int(le.Uint16(b[2:])), le.Uint32(b[4:]), le.Uint16(b[14:])
	if code == wavExtensible && len(b) >= 26 {
		code = le.Uint16(b[24:]) // the first bytes of the GUID are the code
	}
	switch {
	case code == wavFloat:
		return unfit("it is a WAV file of floating-point samples, and this input takes 16-bit integers; convert it (ffmpeg -i IN -c:a pcm_s16le OUT.wav)")
	case code != wavPCM || bits != 16:
		return unfit("it is a WAV file of format %d with %d bits, and this input takes 16-bit PCM; convert it (ffmpeg -i IN -c:a pcm_s16le OUT.wav)", code, bits)
	case channels != in.spec.Channels:
		return unfit("it is a WAV file of %d channels, and this input takes %d; convert it (ffmpeg -i IN -ac %d OUT.wav)", channels, in.spec.Channels, in.spec.Channels)
	case in.spec.Rate != 0 && rate != uint32(in.spec.Rate):
		return unfit("it is a WAV file of %d samples per second, and this input takes %d; convert it (ffmpeg -i IN -ar %d OUT.wav)", rate, in.spec.Rate, in.spec.Rate)
	}
	return nil
}

// windows is the number of windows of n samples: they begin a hop apart, and the last one is the first that reaches the end.
func (s *Spec) windows(n int64) int64 {
	w, hop := int64(s.Window), int64(s.Hop)
	if w == 0 || n <= w {
		return 1
	}
	return 1 + (n-w+hop-1)/hop
}

// sound makes rows of the windows of each file.
func (in *Input) sound(ctx context.Context, files [][]byte, l Limits) (*tensor.Tensor, error) {
	var rows, frames int64
	data := make([][]byte, len(files))
	for i, file := range files {
		d, err := in.samples(file)
		if err != nil {
			return nil, nth(files, i, err)
		}
		n := int64(len(d) / in.frameBytes())
		windows := in.spec.windows(n)
		switch {
		case windows > 1 && in.single:
			return nil, unfit("it has %d samples, which are %d windows, and this input takes one of %d samples; send them in requests of their own", n, windows, in.spec.Window)
		case windows > 1 && len(files) > 1:
			return nil, nth(files, i, unfit("it has %d samples, which are %d windows; where several files come in one request each must be one window, of %d samples at most", n, windows, in.spec.Window))
		case in.spec.Window == 0 && i > 0 && n != frames:
			return nil, nth(files, i, unfit("it has %d samples and the first one has %d; files of different lengths go in requests of their own", n, frames))
		}
		data[i], rows, frames = d, rows+windows, n
	}
	t, err := in.allocate(rows, frames, 0, l)
	if err != nil {
		return nil, err
	}
	per := int64(len(t.Data)) / rows
	row := int64(0)
	for i, d := range data {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for range in.spec.windows(int64(len(d) / in.frameBytes())) {
			in.window(t.Data[row*per:(row+1)*per], d)
			d = d[min(in.spec.Hop*in.frameBytes(), len(d)):]
			row++
		}
		data[i] = nil
	}
	return t, nil
}

// window writes the samples that fill row; where there are fewer the rest stays as it is, zero.
func (in *Input) window(row, samples []byte) {
	if in.dtype == tensor.Int16 {
		copy(row, samples)
		return
	}
	for i := 0; 4*i < len(row) && 2*i+1 < len(samples); i++ {
		v := int16(binary.LittleEndian.Uint16(samples[2*i:]))
		binary.LittleEndian.PutUint32(row[4*i:], math.Float32bits(float32(float64(v)*in.spec.Scale)))
	}
}
