// Package media turns files and samples into the tensor of an input: a JPEG or PNG picture into its pixels, 16-bit sound into its windows.
//
// Invariants:
//  1. What a file would take of memory is known from its first bytes and refused there, before anything is allocated for it: a picture's
//     pixels, a sound's samples, the tensor, and the memory of decoding itself.
//  2. Whatever the bytes are, the answer is a tensor of the input's own type and shape, or an error that names the file and what to send.
//  3. A [Spec] and an [Input] are immutable, and may be used from any goroutine. A [Windower] has one owner.
//
// JPEG and PNG are read by the standard library and resized by golang.org/x/image/draw: see fit.go for what is promised of the pixels.
// It is not for video, not for other sample rates than the model's own, and knows nothing of signatures but type and shape.
package media

import (
	"errors"
	"fmt"
)

// What a caller tells apart. Every error about a file wraps one of them.
var (
	// ErrTooLarge: a limit is passed; the same file will never be taken.
	ErrTooLarge = errors.New("too large")
	// ErrFile: it is not what the input takes, or it is damaged.
	ErrFile = errors.New("not such a file")
)

// fault is an error of a kind whose text is all that is said.
type fault struct {
	kind error
	text string
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.kind }

func tooLarge(format string, args ...any) error {
	return &fault{ErrTooLarge, fmt.Sprintf(format, args...)}
}

func unfit(format string, args ...any) error {
	return &fault{ErrFile, fmt.Sprintf(format, args...)}
}
