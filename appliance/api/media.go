// media.go: files and samples in the place of a tensor, decoded once the request is let in.
package api

import (
	"context"
	"errors"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/media"
	"github.com/inferd/inferd/inference/tensor"
)

// DefaultMaxTensorBytes bounds the tensor that files are made into.
const DefaultMaxTensorBytes = 256 << 20

// isFiles reports whether t has files for an input that takes them.
func isFiles(info *inference.TensorInfo, t *tensor.Tensor) bool {
	return info.Media != nil && t != nil && t.DType == tensor.String
}

// hasFiles reports whether any of the request's inputs has.
func hasFiles(req *inference.Request) bool {
	for i, t := range req.Inputs {
		if i < len(req.Signature.Inputs) && isFiles(&req.Signature.Inputs[i], t) {
			return true
		}
	}
	return false
}

// DecodeFiles puts tensors in the place of the files in req.Inputs, which is changed, and books the memory for each with book (nil: it is
// there). The files stay as they are. Errors are *inference.Error.
func DecodeFiles(ctx context.Context, req *inference.Request, maxBytes int64, book func(bytes int64) error) error {
	for i, t := range req.Inputs {
		if i >= len(req.Signature.Inputs) || !isFiles(&req.Signature.Inputs[i], t) {
			continue
		}
		info := &req.Signature.Inputs[i]
		if err := flat(info, t); err != nil {
			return err
		}
		made, err := info.Media.Tensor(ctx, t.Strings, media.Limits{TensorBytes: maxBytes, Book: book})
		if err != nil {
			return fileError(info, err)
		}
		req.Inputs[i] = made
	}
	return nil
}

// checkFiles holds files against what the input takes, as far as their headers show it.
func checkFiles(info *inference.TensorInfo, t *tensor.Tensor) error {
	if err := flat(info, t); err != nil {
		return err
	}
	if err := info.Media.Check(t.Strings, media.Limits{}); err != nil {
		return fileError(info, err)
	}
	return nil
}

// flat refuses files in lists of lists: the rows of an input are one list.
func flat(info *inference.TensorInfo, t *tensor.Tensor) error {
	if len(t.Shape) > 1 {
		return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "input %q: files in lists of shape %v; send one file, or one list of files", info.Alias, t.Shape)
	}
	return whole(info.Alias, t)
}

// fileError is what a client is told.
func fileError(info *inference.TensorInfo, err error) *inference.Error {
	var known *inference.Error
	code, reason := inference.InvalidArgument, inference.ReasonInput
	switch {
	case errors.As(err, &known), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return inference.AsError(err)
	case errors.Is(err, media.ErrTooLarge):
		code, reason = inference.ResourceExhausted, inference.ReasonTooLarge
	}
	return inference.Errorf(code, reason, "input %q: %v", info.Alias, err)
}

// noRoom is the answer where the memory for the tensor and its decoding is not there.
func noRoom(bytes int64) *inference.Error {
	e := inference.Errorf(inference.ResourceExhausted, inference.ReasonMemory,
		"decoding the files takes %d bytes, more than the memory that is left for requests in flight; send them again later, or fewer or smaller ones", bytes)
	e.RetryAfter = 100 * time.Millisecond
	return e
}
