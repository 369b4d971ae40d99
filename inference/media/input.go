// input.go: a spec that fits the input of a signature, and the tensor that files become for it.
package media

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/inferd/inferd/inference/tensor"
)

// Input makes tensors of files for one input. It is made by [Spec.Bind].
type Input struct {
	spec   Spec
	dtype  tensor.DType
	row    tensor.Shape // of one picture or window; -1 for the samples of a whole file
	single bool         // the tensor is one row, without a dimension for rows

	table   *[3][256]float32 // pictures: from a channel's value to the number, by its place in Order; nil for Uint8
	scratch sync.Pool        // of *image.RGBA of the input's size
}

// Bind fits the spec to an input of that type and shape. The error says why no file can become that input, and what to change.
func (s Spec) Bind(d tensor.DType, shape tensor.Shape, unknownRank bool) (*Input, error) {
	in := &Input{spec: s.withDefaults(), dtype: d}
	fault := ""
	s.Check(func(key, why string) { fault = key + ": " + why })
	kind, other := "pictures", tensor.Uint8
	if s.Format == PCM {
		kind, other = "sound", tensor.Int16
	}
	switch {
	case fault != "":
	case d == tensor.String:
		fault = "it takes strings, so the graph itself reads the files; leave its media out and send them as {\"b64\": ...}"
	case d != tensor.Float && d != other:
		fault = fmt.Sprintf("its type is %s, and %s becomes %s or %s only", DTypeName(d), kind, DTypeName(tensor.Float), DTypeName(other))
	case s.DType != tensor.Invalid && s.DType != d:
		fault = fmt.Sprintf("its type is %s and dtype is %s; write dtype: %s, or leave it out", DTypeName(d), DTypeName(s.DType), DTypeName(d))
	case d == other && s.scaled():
		fault = fmt.Sprintf("its type is %s, whose numbers are the file's own; leave scale, mean and std out", DTypeName(d))
	case s.Format == PCM:
		fault = in.bindSound(shape, unknownRank)
	default:
		fault = in.bindPicture(shape, unknownRank)
	}
	if fault != "" {
		return nil, errors.New(fault)
	}
	return in, nil
}

// bindPicture finds the dimensions of a picture in the shape.
func (in *Input) bindPicture(shape tensor.Shape, unknownRank bool) string {
	s := &in.spec
	c := int64(s.channels())
	h, w := int64(max(s.Height, 0)), int64(max(s.Width, 0))
	wanted := func() tensor.Shape {
		if s.Layout == NCHW {
			return tensor.Shape{c, size(h), size(w)}
		}
		return tensor.Shape{size(h), size(w), c}
	}
	switch rank := len(shape); {
	case unknownRank:
		in.row = wanted()
	case rank == 4 && overlap(wanted(), shape[1:]):
		in.row = merge(wanted(), shape[1:])
	case rank == 3 && overlap(wanted(), shape):
		in.row, in.single = merge(wanted(), shape), true
	case rank == 3 && c == 1 && overlap(tensor.Shape{size(h), size(w)}, shape[1:]):
		in.row = merge(tensor.Shape{size(h), size(w)}, shape[1:])
	case rank == 2 && c == 1 && overlap(tensor.Shape{size(h), size(w)}, shape):
		in.row, in.single = merge(tensor.Shape{size(h), size(w)}, shape), true
	default:
		return fmt.Sprintf("its shape is %v, and a picture of order %s and layout %s is %v, with a dimension for rows before that; write the size, layout and order of the model", shape, s.Order, s.Layout, wanted())
	}
	at := 0
	if s.Layout == NCHW && len(in.row) == 3 {
		at = 1
	}
	h, w = in.row[at], in.row[at+1]
	if h <= 0 || w <= 0 {
		return fmt.Sprintf("its shape is %s, which leaves the size open; write size: [height, width]", shapeText(shape, unknownRank))
	}
	if h > MaxSide || w > MaxSide {
		return fmt.Sprintf("its shape is %v; pictures of at most %d by %d can be made", shape, MaxSide, MaxSide)
	}
	s.Height, s.Width = int(h), int(w)
	if in.dtype == tensor.Float {
		in.table = s.numbers()
	}
	return ""
}

// bindSound finds the dimensions of a window in the shape.
func (in *Input) bindSound(shape tensor.Shape, unknownRank bool) string {
	s := &in.spec
	c, w := int64(s.Channels), size(int64(s.Window))
	wide := tensor.Shape{w, c}
	switch rank := len(shape); {
	case unknownRank && c == 1:
		in.row = tensor.Shape{w}
	case unknownRank:
		in.row = wide
	case rank == 3 && overlap(wide, shape[1:]):
		in.row = merge(wide, shape[1:])
	case rank == 2 && c == 1 && overlap(tensor.Shape{w}, shape[1:]):
		in.row = merge(tensor.Shape{w}, shape[1:])
	case rank == 2 && c > 1 && overlap(wide, shape):
		in.row, in.single = merge(wide, shape), true
	case rank == 1 && c == 1 && overlap(tensor.Shape{w}, shape):
		in.row, in.single = merge(tensor.Shape{w}, shape), true
	default:
		return fmt.Sprintf("its shape is %v, and a window is %v, with a dimension for rows before that (one channel may do without its own); write the window and the channels of the model", shape, wide)
	}
	n := in.row[0]
	if n == 0 || n > MaxWindow {
		return fmt.Sprintf("its shape is %v; windows of 1 to %d samples can be made", shape, MaxWindow)
	}
	if n > 0 {
		s.Window = int(n)
		set(&s.Hop, s.Window)
	}
	if s.Hop > s.Window {
		return fmt.Sprintf("hop is %d, and the window has %s samples; write a hop of at most that, and the window where the shape leaves it open", s.Hop, number(s.Window))
	}
	return ""
}

func number(n int) string {
	if n == 0 {
		return "any number of"
	}
	return fmt.Sprint(n)
}

// size is n as a dimension: 0 is open.
func size(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

func shapeText(s tensor.Shape, unknownRank bool) string {
	if unknownRank {
		return "unknown"
	}
	return s.String()
}

// overlap reports whether some shape is both: equal rank, and equal dimensions where neither is open.
func overlap(a, b tensor.Shape) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] >= 0 && b[i] >= 0 && a[i] != b[i] {
			return false
		}
	}
	return true
}

// merge has of each dimension what one of the two says.
func merge(a, b tensor.Shape) tensor.Shape {
	m := make(tensor.Shape, len(a))
	for i := range a {
		m[i] = max(a[i], b[i])
	}
	return m
}

// Spec is the input's spec, with everything that was left open filled in.
func (in *Input) Spec() Spec { return in.spec }

// DType is the type of the tensors.
func (in *Input) DType() tensor.DType { return in.dtype }

// Single reports whether the tensor has no dimension for rows, so that one request is one picture or one window.
func (in *Input) Single() bool { return in.single }

// rowBytes is the size of one row, of n samples where a row is a whole file.
func (in *Input) rowBytes(n int64) int64 {
	total := int64(in.dtype.Size())
	for _, d := range in.row {
		if d < 0 {
			d = n
		}
		if total > math.MaxInt64/max(d, 1) {
			return math.MaxInt64
		}
		total *= d
	}
	return total
}

// Limits of one call of [Input.Tensor].
type Limits struct {
	// TensorBytes bounds the tensor; 0: 1 GiB.
	TensorBytes int64
	// Book is asked once, before anything is allocated, for the memory that the call takes: the tensor and what decoding needs beside it. Its
	// error ends the call. nil: the memory is there.
	Book func(bytes int64) error
}

const (
	defaultTensorBytes = 1 << 30
	// busyPixels is how many times MaxPixels the pictures of one request may have together: decoding takes time too.
	busyPixels = 8
)

// Check says what is wrong with files as far as their headers show it, and allocates nothing for them. Its errors are those of [Input.Tensor].
func (in *Input) Check(files [][]byte, l Limits) error {
	probe := errors.New("they will do")
	l.Book = func(int64) error { return probe }
	if _, err := in.Tensor(context.Background(), files, l); !errors.Is(err, probe) {
		return err
	}
	return nil
}

// Tensor makes the input's tensor of files, which are not kept: each picture is a row, and so is each window of each file of sound. Of
// several files of sound each must be one window, or rows could not be told apart. It blocks while it decodes, and stops between
// two files when ctx ends. Errors wrap [ErrTooLarge], [ErrFile], ctx's or Book's error, and name the file by its place.
func (in *Input) Tensor(ctx context.Context, files [][]byte, l Limits) (*tensor.Tensor, error) {
	if l.TensorBytes <= 0 {
		l.TensorBytes = defaultTensorBytes
	}
	if len(files) == 0 {
		return nil, unfit("no file was sent; send one or more")
	}
	if in.single && len(files) > 1 {
		return nil, unfit("%d files, and this input takes one; send them in requests of their own", len(files))
	}
	if in.spec.Format == PCM {
		return in.sound(ctx, files, l)
	}
	return in.pictures(ctx, files, l)
}

// allocate books and makes the tensor of so many rows, of n samples where a row is a whole file. beside is what else will be needed.
func (in *Input) allocate(rows, n, beside int64, l Limits) (*tensor.Tensor, error) {
	per := in.rowBytes(n)
	if rows > l.TensorBytes/max(per, 1) {
		return nil, tooLarge("%d rows of %d bytes each are more than the %d bytes that one tensor may have; send fewer in one request", rows, per, l.TensorBytes)
	}
	if l.Book != nil {
		if err := l.Book(rows*per + beside); err != nil {
			return nil, err
		}
	}
	shape := make(tensor.Shape, 0, len(in.row)+1)
	if !in.single {
		shape = append(shape, rows)
	}
	for _, d := range in.row {
		if d < 0 {
			d = n
		}
		shape = append(shape, d)
	}
	return &tensor.Tensor{DType: in.dtype, Shape: shape, Data: make([]byte, rows*per)}, nil
}

// nth names a file for a message: nothing when it is the only one.
func nth(files [][]byte, i int, err error) error {
	if len(files) == 1 {
		return err
	}
	return fmt.Errorf("file %d: %w", i, err)
}

// Description is what a client needs to know to send what the input takes.
type Description struct {
	Format Format `json:"format"`
	DType  string `json:"dtype"`
	// Numbers are (v*scale - mean) / std, where v is a channel of a pixel (0 to 255) or a sample.
	Scale float64   `json:"scale,omitempty"`
	Mean  []float64 `json:"mean,omitempty"`
	Std   []float64 `json:"std,omitempty"`

	Height    int    `json:"height,omitempty"`
	Width     int    `json:"width,omitempty"`
	Layout    Layout `json:"layout,omitempty"`
	Order     Order  `json:"order,omitempty"`
	Fit       Fit    `json:"fit,omitempty"`
	Fill      int    `json:"fill,omitempty"`
	MaxPixels int64  `json:"max_pixels,omitempty"`

	Rate       int   `json:"rate,omitempty"` // 0: any
	Channels   int   `json:"channels,omitempty"`
	Window     int   `json:"window,omitempty"` // 0: the whole file is one row
	Hop        int   `json:"hop,omitempty"`
	MaxSamples int64 `json:"max_samples,omitempty"`

	Single bool `json:"single,omitempty"` // one file (and one window) in a request
}

// Describe puts the input into words for clients.
func (in *Input) Describe() Description {
	s := &in.spec
	d := Description{Format: s.Format, DType: DTypeName(in.dtype), Single: in.single}
	if in.dtype == tensor.Float {
		d.Scale, d.Mean, d.Std = s.Scale, s.Mean, s.Std
	}
	if s.Format == PCM {
		d.Rate, d.Channels, d.Window, d.Hop, d.MaxSamples = s.Rate, s.Channels, s.Window, s.Hop, s.MaxSamples
		return d
	}
	d.Height, d.Width, d.Layout, d.Order, d.Fit, d.Fill, d.MaxPixels = s.Height, s.Width, s.Layout, s.Order, s.Fit, s.Fill, s.MaxPixels
	return d
}
