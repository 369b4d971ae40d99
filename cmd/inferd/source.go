// source.go: what `inferd stream` reads: JSON lines, pictures, and what the model takes of either.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // pictures of these forms are read
	_ "image/png"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/inferd/inferd/appliance/control"
)

// Bounds on what is read for one input.
const (
	maxLine    = 64 << 20
	maxPicture = 64 << 20 // bytes of a file
	maxPixels  = 100e6
)

// open is the source that the flags name.
func (e *env) open(ctx context.Context, address, model string, f streamFlags) (source, error) {
	if f.jsonl != "" {
		in, err := e.input(f.jsonl)
		if err != nil {
			return nil, err
		}
		return &lines{r: bufio.NewReaderSize(in, 64<<10), Closer: in, file: called(f.jsonl)}, nil
	}
	var want taken
	if !f.file {
		var err error
		if want, err = f.takes(ctx, address, model); err != nil {
			return nil, err
		}
	}
	if m := want.media; m != nil { // the appliance decodes: files are a tenth of their numbers
		f.file, f.rate, f.window, f.hop = true, cmp.Or(f.rate, m.Rate), cmp.Or(f.window, m.Window), cmp.Or(f.hop, m.Hop)
	}
	if f.images != "" {
		return openPictures(f, want)
	}
	in, err := e.input(f.wav)
	if err != nil {
		return nil, err
	}
	w, err := openSound(in, called(f.wav), f, want)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return w, nil
}

func (e *env) input(file string) (io.ReadCloser, error) {
	if file == "-" {
		return io.NopCloser(e.in), nil
	}
	return os.Open(file)
}

// lines are JSON values, one on each.
type lines struct {
	io.Closer
	r    *bufio.Reader
	file string
	n    int
}

func (l *lines) next(ctx context.Context) (input, error) {
	for {
		if ctx.Err() != nil {
			return input{}, context.Cause(ctx)
		}
		l.n++
		in := input{name: "line " + strconv.Itoa(l.n)}
		line, err := l.line()
		if err != nil && (len(line) == 0 || !errors.Is(err, io.EOF)) {
			return in, err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var request struct {
			Signature         string          `json:"signature_name"`
			Instances, Inputs json.RawMessage // both are refused by the stream
		}
		if !json.Valid(line) {
			return in, badInput{fmt.Errorf("%s, line %d is no JSON: %.60q", l.file, l.n, line)}
		}
		if line[0] == '{' && json.Unmarshal(line, &request) == nil && (request.Instances != nil || request.Inputs != nil) {
			in.signature, in.instances, in.inputs = request.Signature, request.Instances, request.Inputs
			return in, nil
		}
		in.instances = slices.Concat([]byte("["), line, []byte("]"))
		return in, nil
	}
}

func (l *lines) line() ([]byte, error) {
	var line []byte
	for {
		part, err := l.r.ReadSlice('\n')
		if line = append(line, part...); len(line) > maxLine {
			return nil, fmt.Errorf("%s, line %d is longer than %d bytes", l.file, l.n, maxLine)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// taken is the input that a model takes.
type taken struct {
	name  string
	alone bool // it is the only one
	dtype string
	shape []int64 // -1: any
	media *arrives
}

// arrives is how the configuration says that an input does (models[].media).
type arrives struct {
	Format            string
	Rate, Window, Hop int
	Channels          int
}

// takes asks the model's metadata.
func (f *streamFlags) takes(ctx context.Context, address, model string) (taken, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	c := control.Dial(address)
	defer c.Close()
	path := "/v1/models/" + url.PathEscape(model)
	switch {
	case f.version != 0:
		path += "/versions/" + strconv.FormatInt(f.version, 10)
	case f.label != "":
		path += "/labels/" + url.PathEscape(f.label)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	status, text, err := c.Do(ctx, http.MethodGet, path+"/metadata", nil)
	if err != nil {
		return taken{}, err
	}
	var got struct {
		Error    string
		Metadata struct {
			Defs struct {
				Defs map[string]struct {
					Inputs map[string]struct {
						DType string `json:"dtype"`
						Shape struct {
							Dim []struct{ Size json.Number } `json:"dim"`
							Any bool                         `json:"unknown_rank"`
						} `json:"tensor_shape"`
					} `json:"inputs"`
				} `json:"signature_def"`
			} `json:"signature_def"`
			Media map[string]map[string]*arrives `json:"media"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(text, &got); err != nil {
		return taken{}, fmt.Errorf("the metadata of %s: %w", model, err)
	}
	if status != http.StatusOK {
		return taken{}, fmt.Errorf("%s (HTTP %d)", got.Error, status)
	}
	key := f.signature
	if key == "" {
		key = "serving_default"
	}
	def, ok := got.Metadata.Defs.Defs[key]
	if !ok {
		return taken{}, usagef("model %s has no signature %q; --signature names another of %v", model, key, slices.Sorted(maps.Keys(got.Metadata.Defs.Defs)))
	}
	names := slices.Sorted(maps.Keys(def.Inputs))
	name := f.input
	switch {
	case name == "" && len(names) == 1:
		name = names[0]
	case name == "":
		return taken{}, usagef("signature %q has the inputs %v; --input says which one is streamed", key, names)
	case !slices.Contains(names, name):
		return taken{}, usagef("signature %q has no input %q but %v", key, name, names)
	}
	in := def.Inputs[name]
	t := taken{name: name, alone: len(names) == 1, dtype: strings.TrimPrefix(in.DType, "DT_")}
	// A file alone goes to the one input of the default signature; sound is sent in one channel.
	if m := got.Metadata.Media[key][name]; m != nil && t.alone && f.signature == "" && (m.Format == "pcm_s16le") == (f.wav != "") && m.Channels <= 1 {
		t.media = m
		return t, nil
	}
	if in.Shape.Any {
		return taken{}, usagef("input %q takes any shape; stream it with --jsonl", name)
	}
	for _, d := range in.Shape.Dim {
		n, err := d.Size.Int64()
		if err != nil {
			return taken{}, fmt.Errorf("the metadata of %s: a dimension of %q", model, d.Size)
		}
		t.shape = append(t.shape, n)
	}
	if !slices.Contains([]string{"FLOAT", "DOUBLE", "HALF", "BFLOAT16", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64"}, t.dtype) {
		return taken{}, usagef("input %q is of type %s; sound and pictures are numbers. --as-file sends them as they are, --jsonl anything", name, t.dtype)
	}
	return t, nil
}

func (t taken) float() bool { return !strings.Contains(t.dtype, "INT") }

// request has values in a shape, as the inputs of one request. The first dimension that is open, or one, is the batch.
func (t taken) request(shape []int64, values []float32) json.RawMessage {
	b := appendNested(make([]byte, 0, 8*len(values)), shape, &values, t.float())
	if t.alone {
		return b
	}
	name, err := json.Marshal(t.name)
	if err != nil {
		panic(err) // a string
	}
	return slices.Concat([]byte("{"), name, []byte(":"), b, []byte("}"))
}

func appendNested(b []byte, shape []int64, values *[]float32, float bool) []byte {
	if len(shape) == 0 {
		v := (*values)[0]
		*values = (*values)[1:]
		if float {
			return strconv.AppendFloat(b, float64(v), 'g', 6, 32)
		}
		return strconv.AppendInt(b, int64(v), 10)
	}
	b = append(b, '[')
	for i := range shape[0] {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendNested(b, shape[1:], values, float)
	}
	return append(b, ']')
}

// pictures are the files of a directory.
type pictures struct {
	dir    string
	files  []string
	asFile bool
	want   taken
	shape  []int64
	high   int
	wide   int
	scale  float64
}

func openPictures(f streamFlags, want taken) (*pictures, error) {
	entries, err := os.ReadDir(f.images)
	if err != nil {
		return nil, err
	}
	p := &pictures{dir: f.images, asFile: f.file, want: want, scale: f.scale}
	for _, entry := range entries {
		switch strings.ToLower(filepath.Ext(entry.Name())) {
		case ".jpg", ".jpeg", ".png":
			p.files = append(p.files, entry.Name())
		}
	}
	if len(p.files) == 0 {
		return nil, usagef("%s has no .jpg or .png pictures", f.images)
	}
	if f.file {
		return p, nil
	}
	s := slices.Clone(want.shape)
	if len(s) == 4 && s[0] < 0 {
		s[0] = 1
	}
	inner := s[max(0, len(s)-3):]
	if len(s) < 3 || len(s) > 4 || len(s) == 4 && s[0] != 1 || slices.Min(inner) < 1 || inner[2] != 1 && inner[2] != 3 || inner[0]*inner[1] > maxPixels {
		return nil, usagef("input %q has shape %v; pictures are sent as [1, height, width, 3 or 1]. Stream them with --as-file (models[].media) or --jsonl", want.name, want.shape)
	}
	p.shape, p.high, p.wide = s, int(inner[0]), int(inner[1])
	if p.scale == 0 {
		p.scale = 1
		if want.float() {
			p.scale = 255
		}
	}
	return p, nil
}

func (p *pictures) Close() error { return nil }

func (p *pictures) next(ctx context.Context) (input, error) {
	if ctx.Err() != nil {
		return input{}, context.Cause(ctx)
	}
	if len(p.files) == 0 {
		return input{}, io.EOF
	}
	in := input{name: p.files[0]}
	p.files = p.files[1:]
	data, err := readAtMost(filepath.Join(p.dir, in.name), maxPicture)
	if err != nil {
		return in, badInput{err}
	}
	if p.asFile {
		in.media = data
		return in, nil
	}
	head, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err == nil && float64(head.Width)*float64(head.Height) > maxPixels {
		err = fmt.Errorf("%dx%d pixels are too many", head.Width, head.Height)
	}
	var img image.Image
	if err == nil {
		img, _, err = image.Decode(bytes.NewReader(data))
	}
	if err != nil {
		return in, badInput{fmt.Errorf("%s: %w", in.name, err)}
	}
	in.inputs = p.want.request(p.shape, p.pixels(img))
	return in, nil
}

func readAtMost(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", file, limit)
	}
	return data, err
}

// pixels is the picture in the model's size: each pixel the mean of those that it covers.
func (p *pictures) pixels(img image.Image) []float32 {
	b := img.Bounds()
	channels := int(p.shape[len(p.shape)-1])
	out := make([]float32, 0, p.high*p.wide*channels)
	for y := range p.high {
		y0 := b.Min.Y + y*b.Dy()/p.high
		y1 := max(y0+1, b.Min.Y+(y+1)*b.Dy()/p.high)
		for x := range p.wide {
			x0 := b.Min.X + x*b.Dx()/p.wide
			x1 := max(x0+1, b.Min.X+(x+1)*b.Dx()/p.wide)
			var sum [3]float64
			for yy := y0; yy < y1; yy++ {
				for xx := x0; xx < x1; xx++ {
					r, g, b, _ := img.At(xx, yy).RGBA()
					sum[0], sum[1], sum[2] = sum[0]+float64(r), sum[1]+float64(g), sum[2]+float64(b)
				}
			}
			n := float64((y1-y0)*(x1-x0)) * 257 * p.scale
			if channels == 1 {
				out = append(out, float32((0.299*sum[0]+0.587*sum[1]+0.114*sum[2])/n))
				continue
			}
			for _, s := range sum {
				out = append(out, float32(s/n))
			}
		}
	}
	return out
}
