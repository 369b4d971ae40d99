// windower.go: a stream of samples, cut into windows as they come.
package media

import (
	"errors"

	"github.com/inferd/inferd/inference/tensor"
)

// ErrNoWindow: the input takes a whole file, or no sound at all, so a stream cannot be cut into windows.
var ErrNoWindow = errors.New("the input has no window of a fixed number of samples")

// Windower cuts a stream of samples into the windows that the same samples in one file would be. It keeps less than one window. It is for
// one stream, and one goroutine at a time.
type Windower struct {
	in    *Input
	kept  []byte // the begin of the next window
	fresh bool   // kept has samples that no window has had
	at    int64  // the next window's first sample, counted from the stream's begin
}

// Windower is a new one. It fails with [ErrNoWindow].
func (in *Input) Windower() (*Windower, error) {
	if in.spec.Format != PCM || in.spec.Window == 0 {
		return nil, ErrNoWindow
	}
	return &Windower{in: in}, nil
}

// Window is one window of a stream.
type Window struct {
	At     int64 // its first sample, counted from the stream's begin, per channel
	Tensor *tensor.Tensor
}

// Push takes the stream's next bytes, which may end anywhere, and calls emit for each window that they complete. An error of emit is
// returned at once; the rest of p is lost then. p is not kept, and a window's tensor is emit's own.
func (w *Windower) Push(p []byte, emit func(Window) error) error {
	full := w.in.spec.Window * w.in.frameBytes()
	hop := w.in.spec.Hop * w.in.frameBytes()
	for len(p) > 0 {
		if w.kept == nil {
			w.kept = make([]byte, 0, full)
		}
		n := min(full-len(w.kept), len(p))
		w.kept, p = append(w.kept, p[:n]...), p[n:]
		w.fresh = true
		if len(w.kept) < full {
			return nil
		}
		next := w.cut()
		w.kept = w.kept[:copy(w.kept, w.kept[hop:])]
		w.fresh = false
		w.at += int64(w.in.spec.Hop)
		if err := emit(next); err != nil {
			return err
		}
	}
	return nil
}

// cut makes a window of what is kept.
func (w *Windower) cut() Window {
	shape := append(tensor.Shape(nil), w.in.row...)
	if !w.in.single {
		shape = append(tensor.Shape{1}, shape...)
	}
	t := &tensor.Tensor{DType: w.in.dtype, Shape: shape, Data: make([]byte, w.in.rowBytes(0))}
	w.in.window(t.Data, w.kept)
	return Window{At: w.at, Tensor: t}
}

// Flush ends the stream: samples that no window has had become the last one, with silence behind them. The Windower is as new then. It
// fails with [ErrFile] where the stream ended inside a frame, of which nothing is emitted.
func (w *Windower) Flush(emit func(Window) error) error {
	defer w.Reset()
	if !w.fresh {
		return nil
	}
	if extra := len(w.kept) % w.in.frameBytes(); extra != 0 {
		return unfit("the stream ended inside a frame: %d of %d bytes; send whole samples of every channel", extra, w.in.frameBytes())
	}
	return emit(w.cut())
}

// Reset forgets what came, as after a gap in the stream.
func (w *Windower) Reset() { w.kept, w.fresh, w.at = w.kept[:0], false, 0 }

// Bytes bounds what the Windower keeps and makes at once: one window as samples, and one as a tensor.
func (w *Windower) Bytes() int64 {
	return int64(w.in.spec.Window*w.in.frameBytes()) + w.in.rowBytes(0)
}
