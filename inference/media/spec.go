// spec.go: how an input arrives, as it is configured.
package media

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/inferd/inferd/inference/tensor"
)

// Format is the kind of file.
type Format string

// The formats.
const (
	JPEG      Format = "jpeg"
	PNG       Format = "png"
	JPEGOrPNG Format = "jpeg|png"
	PCM       Format = "pcm_s16le" // interleaved signed 16-bit little-endian samples, with or without a WAV header
)

// Picture reports whether files of the format are pictures.
func (f Format) Picture() bool { return f == JPEG || f == PNG || f == JPEGOrPNG }

// Layout is the order of a picture's dimensions.
type Layout string

// The layouts.
const (
	NHWC Layout = "NHWC"
	NCHW Layout = "NCHW"
)

// Order is which channels a picture has, and in which order.
type Order string

// The orders of channels.
const (
	RGB  Order = "RGB"
	BGR  Order = "BGR"
	Gray Order = "gray"
)

// Fit is what becomes of a picture of another shape.
type Fit string

// The ways to fit.
const (
	Stretch Fit = "stretch" // each side by itself
	Crop    Fit = "crop"    // as large as covers the size, and the middle of it
	Pad     Fit = "pad"     // as large as lies within the size, and Fill around it
)

// Limits of what can be configured, and defaults.
const (
	MaxSide           = 8192 // of what a picture is resized to
	MaxChannels       = 32   // of sound
	MaxRate           = 1 << 20
	MaxWindow         = 1 << 26
	DefaultMaxPixels  = 16 << 20
	MaxMaxPixels      = 256 << 20
	DefaultMaxSamples = 16 << 20
	MaxMaxSamples     = 1 << 30
)

// Spec is how one input arrives. Zero means default.
type Spec struct {
	Format Format
	DType  tensor.DType // Float, for pictures Uint8, for sound Int16; Invalid: the signature's
	// A number is (v*Scale - Mean) / Std, where v is a pixel's channel (0 to 255) or a sample (-32768 to 32767). Scale is 1 for pictures
	// and 1/32768 for sound unless set; Mean and Std are one for all channels, or one for each in the order of Order.
	Scale     float64
	Mean, Std []float64

	Height, Width int // 0: the signature's
	Layout        Layout
	Order         Order
	Fit           Fit
	Fill          int   // what Pad puts around a picture, 0 (black) to 255
	MaxPixels     int64 // of a file; 0: DefaultMaxPixels

	Rate       int   // samples per second and channel; a WAV file of another is refused. 0: any
	Channels   int   // 0: one
	Window     int   // samples of one row, per channel; 0: the signature's, and where that takes any number, the whole file
	Hop        int   // samples from one window's begin to the next one's; 0: Window
	MaxSamples int64 // of a file, per channel; 0: DefaultMaxSamples
}

// withDefaults fills in what is not set.
func (s Spec) withDefaults() Spec {
	set(&s.Layout, NHWC)
	set(&s.Order, RGB)
	set(&s.Fit, Stretch)
	set(&s.MaxPixels, DefaultMaxPixels)
	set(&s.Channels, 1)
	set(&s.MaxSamples, DefaultMaxSamples)
	switch {
	case s.Scale != 0:
	case s.Format == PCM:
		s.Scale = 1.0 / 32768
	default:
		s.Scale = 1
	}
	return s
}

func set[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// channels is the number of channels that a picture becomes, or that sound has.
func (s *Spec) channels() int {
	switch {
	case s.Format == PCM:
		return max(s.Channels, 1)
	case s.Order == Gray:
		return 1
	}
	return 3
}

// Check calls report with the name of each key (as in the configuration) whose value cannot be, and why.
func (s *Spec) Check(report func(key, why string)) {
	sayf := func(key, format string, args ...any) { report(key, fmt.Sprintf(format, args...)) }
	if !s.Format.Picture() && s.Format != PCM {
		sayf("format", "%q is none of jpeg, png, jpeg|png, pcm_s16le", s.Format)
		return
	}
	number := func(key string, n, low, high int64) {
		if n < low || n > high {
			sayf(key, "%d is not between %d and %d", n, low, high)
		}
	}
	s.checkNumbers(sayf)
	if s.Format == PCM {
		only(sayf, s.Format, map[string]bool{"size": s.Height != 0 || s.Width != 0, "layout": s.Layout != "", "order": s.Order != "", "fit": s.Fit != "",
			"fill": s.Fill != 0, "max_pixels": s.MaxPixels != 0, "mean": len(s.Mean) > 0, "std": len(s.Std) > 0})
		number("rate", int64(s.Rate), 0, MaxRate)
		number("channels", int64(s.Channels), 0, MaxChannels)
		number("window", int64(s.Window), 0, MaxWindow)
		number("hop", int64(s.Hop), 0, MaxWindow)
		number("max_samples", s.MaxSamples, 0, MaxMaxSamples)
		if s.Window > 0 && s.Hop > s.Window {
			sayf("hop", "%d is more than window, which is %d: samples between the windows would never be heard", s.Hop, s.Window)
		}
		oneOf(sayf, "dtype", s.DType, tensor.Invalid, tensor.Float, tensor.Int16)
		return
	}
	only(sayf, s.Format, map[string]bool{"rate": s.Rate != 0, "channels": s.Channels != 0, "window": s.Window != 0, "hop": s.Hop != 0, "max_samples": s.MaxSamples != 0})
	number("size", int64(s.Height), 0, MaxSide)
	number("size", int64(s.Width), 0, MaxSide)
	number("fill", int64(s.Fill), 0, 255)
	number("max_pixels", s.MaxPixels, 0, MaxMaxPixels)
	if s.Fill != 0 && s.Fit != Pad {
		sayf("fill", "has a meaning only with fit: pad")
	}
	oneOf(sayf, "layout", s.Layout, "", NHWC, NCHW)
	oneOf(sayf, "order", s.Order, "", RGB, BGR, Gray)
	oneOf(sayf, "fit", s.Fit, "", Stretch, Crop, Pad)
	oneOf(sayf, "dtype", s.DType, tensor.Invalid, tensor.Float, tensor.Uint8)
}

// checkNumbers checks what decides about the numbers of the tensor.
func (s *Spec) checkNumbers(sayf func(key, format string, args ...any)) {
	if !finite(s.Scale) {
		sayf("scale", "%v is not a number that can be multiplied with", s.Scale)
	}
	for _, list := range []struct {
		key    string
		values []float64
	}{{"mean", s.Mean}, {"std", s.Std}} {
		if n := len(list.values); n > 1 && n != s.channels() {
			sayf(list.key, "has %d numbers for %d channels; write one, or one for each channel", n, s.channels())
		}
		for _, v := range list.values {
			if !finite(v) || list.key == "std" && v == 0 {
				sayf(list.key, "%v cannot be calculated with", v)
				break
			}
		}
	}
	if (s.DType == tensor.Uint8 || s.DType == tensor.Int16) && s.scaled() {
		sayf("scale", "numbers of type %s are the file's own; leave scale, mean and std out, or write dtype: float32", DTypeName(s.DType))
	}
}

// scaled reports whether anything is set that changes numbers.
func (s *Spec) scaled() bool { return s.Scale != 0 || len(s.Mean) > 0 || len(s.Std) > 0 }

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// only says which keys have no meaning for the format.
func only(sayf func(key, format string, args ...any), f Format, isSet map[string]bool) {
	var keys []string
	for key, yes := range isSet {
		if yes {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		sayf(key, "has no meaning for format %s", f)
	}
}

func oneOf[T comparable](sayf func(key, format string, args ...any), key string, v T, allowed ...T) {
	if slices.Contains(allowed, v) {
		return
	}
	var words []string
	for _, a := range allowed {
		if d, ok := any(a).(tensor.DType); ok {
			if d != tensor.Invalid {
				words = append(words, DTypeName(d))
			}
		} else if w := fmt.Sprint(a); w != "" {
			words = append(words, w)
		}
	}
	got := fmt.Sprint(v)
	if d, ok := any(v).(tensor.DType); ok {
		got = DTypeName(d)
	}
	sayf(key, "%q is none of %s", got, strings.Join(words, ", "))
}

// DTypeName is the type's name in the configuration, which for float is NumPy's.
func DTypeName(d tensor.DType) string {
	if d == tensor.Float {
		return "float32"
	}
	return d.Name()
}

// ParseDType reads a type's name in the configuration: NumPy's, or TensorFlow's.
func ParseDType(s string) (tensor.DType, bool) {
	if s == "float32" {
		return tensor.Float, true
	}
	return tensor.ParseDType(s)
}
