// media_test.go: files in the place of tensors: decoded inside, booked, and refused in words.
package api

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/media"
	"github.com/inferd/inferd/inference/tensor"
)

// share is a share of so many bytes that remembers the most that was taken.
type share struct{ left, taken, most int64 }

func (s *share) TakeRequest(n int64) bool {
	if n > s.left-s.taken {
		return false
	}
	s.taken += n
	s.most = max(s.most, s.taken)
	return true
}

func (s *share) GiveRequest(n int64) { s.taken -= n }

func picture(t *testing.T, w, h int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewRGBA(image.Rect(0, 0, w, h))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func files(shape tensor.Shape, list ...[]byte) *tensor.Tensor {
	return &tensor.Tensor{DType: tensor.String, Shape: shape, Strings: list}
}

// withMedia is a version whose inputs a and b are pictures of 4 by 4.
func withMedia(t *testing.T) *inference.Version {
	t.Helper()
	sig := &inference.Signature{Key: "serving_default", Inputs: []inference.TensorInfo{scalar("a", tensor.Float, -1, 4, 4, 3), scalar("b", tensor.Uint8, -1, 4, 4, 3)}}
	for i := range sig.Inputs {
		in, err := media.Spec{Format: media.PNG, MaxPixels: 1 << 12}.Bind(sig.Inputs[i].DType, sig.Inputs[i].Shape, false)
		if err != nil {
			t.Fatal(err)
		}
		sig.Inputs[i].Media = in
	}
	return &inference.Version{Model: "m", Number: 1, Signatures: map[string]*inference.Signature{sig.Key: sig}}
}

func TestPredictFiles(t *testing.T) {
	v := withMedia(t)
	sig := v.Signatures["serving_default"]
	good, other := picture(t, 9, 5), picture(t, 4, 4)
	numbers := &tensor.Tensor{DType: tensor.Uint8, Shape: tensor.Shape{1, 4, 4, 3}, Data: make([]byte, 48)}
	for _, test := range []struct {
		name   string
		room   int64
		a, b   *tensor.Tensor
		code   inference.Code
		reason string
		says   string
	}{
		{"two inputs", 1 << 20, files(tensor.Shape{2}, good, other), files(tensor.Shape{2}, other, good), inference.OK, "", ""},
		{"one file and numbers", 1 << 20, files(tensor.Shape{}, good), numbers, inference.OK, "", ""},
		{"lists of lists", 1 << 20, files(tensor.Shape{1, 1}, good), numbers, inference.InvalidArgument, inference.ReasonInput, `input "a": files in lists of shape [1,1]; send one file, or one list of files`},
		{"no picture", 1 << 20, files(tensor.Shape{1}, []byte("GIF89a")), numbers, inference.InvalidArgument, inference.ReasonInput, `input "a": it is a GIF file, and this input takes PNG; send such a file`},
		{"the second one", 1 << 20, files(tensor.Shape{2}, good, nil), numbers, inference.InvalidArgument, inference.ReasonInput, `input "a": file 1: it is empty`},
		{"too many pixels", 1 << 20, files(tensor.Shape{1}, picture(t, 65, 64)), numbers, inference.ResourceExhausted, inference.ReasonTooLarge, `input "a": its 65 by 64 pixels are more than the 4096`},
		{"no memory", 1000, files(tensor.Shape{1}, good), numbers, inference.ResourceExhausted, inference.ReasonMemory, "decoding the files takes"},
		{"no memory for the second input", 3000, files(tensor.Shape{1}, good), files(tensor.Shape{1}, picture(t, 60, 60)), inference.ResourceExhausted, inference.ReasonMemory, "decoding the files takes"},
		{"strings too few", 1 << 20, files(tensor.Shape{3}, good), numbers, inference.InvalidArgument, inference.ReasonInput, `input "a" of type string and shape [3] takes 3 strings, got 1`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &share{left: test.room}
			gate := admission.NewGate(admission.Limits{}, s)
			catalog := inference.NewCatalog()
			ran := false
			catalog.Publish(v, function(func(_ context.Context, req *inference.Request) (*inference.Response, error) {
				ran = true
				for i, in := range req.Inputs {
					if in.DType != sig.Inputs[i].DType || !sig.Inputs[i].Accepts(in.Shape) {
						t.Errorf("input %d is %v %v", i, in.DType, in.Shape)
					}
				}
				if s.taken < req.Inputs[0].Bytes() {
					t.Errorf("%d bytes are booked during the run, the tensor has %d", s.taken, req.Inputs[0].Bytes())
				}
				return inference.NewResponse(nil, nil), nil
			}))
			svc := New(catalog, Options{Gate: gate})
			h, err := svc.Acquire(inference.Spec{Model: "m"})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Release()
			_, err = svc.Predict(t.Context(), h, &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{test.a, test.b}})
			if s.taken != 0 {
				t.Errorf("%d bytes are still booked", s.taken)
			}
			if test.says == "" {
				if err != nil || !ran || s.most == 0 {
					t.Errorf("%v, ran %v, booked %d", err, ran, s.most)
				}
				return
			}
			e := inference.AsError(err)
			if e == nil || ran || e.Code != test.code || e.Reason != test.reason || !strings.Contains(e.Msg, test.says) {
				t.Errorf("got %v (ran %v), want %v %s: %s", err, ran, test.code, test.reason, test.says)
			}
			if _, refused := gate.Report(0); test.reason == inference.ReasonMemory && refused[inference.ReasonMemory] != 1 {
				t.Errorf("refusals: %v", refused)
			}
		})
	}
}

// TestCheckFiles: what is accepted for later is held against the headers, and not decoded.
func TestCheckFiles(t *testing.T) {
	v := withMedia(t)
	sig := v.Signatures["serving_default"]
	good := files(tensor.Shape{1}, picture(t, 9, 5))
	if err := check(v, &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{good, good}}); err != nil {
		t.Error(err)
	}
	bad := files(tensor.Shape{1}, []byte("x"))
	err := check(v, &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{good, bad}})
	if e := inference.AsError(err); e == nil || e.Code != inference.InvalidArgument || !strings.HasPrefix(e.Msg, `input "b": it is no file of a known kind`) {
		t.Error(err)
	}
}

// TestFilesAndTheDeadline: nobody is waited for while files are decoded.
func TestFilesAndTheDeadline(t *testing.T) {
	v := withMedia(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	good := files(tensor.Shape{1}, picture(t, 9, 5))
	err := DecodeFiles(ctx, &inference.Request{Signature: v.Signatures["serving_default"], Inputs: []*tensor.Tensor{good, good}}, 0, nil)
	if e := inference.AsError(err); e == nil || e.Code != inference.Canceled {
		t.Error(err)
	}
}
