// service_test.go: the checks that every protocol shares, and the status table.
package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// function is a servable made of a function.
type function func(context.Context, *inference.Request) (*inference.Response, error)

func (f function) Predict(ctx context.Context, req *inference.Request) (*inference.Response, error) {
	return f(ctx, req)
}
func (f function) Close() error { return nil }

func scalar(alias string, d tensor.DType, shape ...int64) inference.TensorInfo {
	return inference.TensorInfo{Alias: alias, Tensor: alias + ":0", DType: d, Shape: shape}
}

// predict calls a version that declares x: float [-1,2] and y: string [] with these inputs.
func predict(t *testing.T, change func(*inference.Version), f function, log *slog.Logger, inputs ...*tensor.Tensor) (*inference.Request, error) {
	t.Helper()
	sig := &inference.Signature{Key: "serving_default", Inputs: []inference.TensorInfo{scalar("x", tensor.Float, -1, 2), scalar("y", tensor.String)},
		Outputs: []inference.TensorInfo{scalar("z", tensor.Float, -1)}}
	v := &inference.Version{Model: "m", Number: 3, Signatures: map[string]*inference.Signature{sig.Key: sig}}
	if change != nil {
		change(v)
	}
	c := inference.NewCatalog()
	c.Publish(v, f)
	s := New(c, Options{Log: log})
	h, err := s.Acquire(inference.Spec{Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	req := &inference.Request{Signature: sig, Inputs: inputs, Outputs: AllOutputs(sig)}
	_, err = s.Predict(t.Context(), h, req)
	return req, err
}

func answer(context.Context, *inference.Request) (*inference.Response, error) {
	return inference.NewResponse(nil, nil), nil
}

func TestPredictChecks(t *testing.T) {
	x := &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{1, 2}, Data: make([]byte, 8)}
	y := &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{}, Strings: [][]byte{nil}}
	strict := func(v *inference.Version) { v.StrictShapes = true }
	for name, c := range map[string]struct {
		change func(*inference.Version)
		inputs []*tensor.Tensor
		want   string // empty: accepted
		alone  bool
	}{
		"good":        {nil, []*tensor.Tensor{x, y}, "", false},
		"good strict": {strict, []*tensor.Tensor{x, y}, "", false},
		"too few":     {nil, []*tensor.Tensor{x}, `signature "serving_default" takes 2 inputs, got 1`, false},
		"nil":         {nil, []*tensor.Tensor{x, nil}, `input "y" of signature "serving_default" is missing`, false},
		"type":        {nil, []*tensor.Tensor{y, y}, "Expects arg[0] to be float but string is provided", false},
		"other shape": {nil, []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{3}, Data: make([]byte, 12)}, y}, "", true},
		"other shape, strict": {strict, []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{3}, Data: make([]byte, 12)}, y},
			`input "x" has shape [3], signature "serving_default" of model m version 3 declares [-1,2]; send that shape, or set strict_shapes: false to let the graph decide`, false},
		"bytes too few":   {nil, []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{1, 2}, Data: make([]byte, 7)}, y}, `input "x" of type float and shape [1,2] takes 8 bytes, got 7`, false},
		"strings too few": {nil, []*tensor.Tensor{x, {DType: tensor.String, Shape: tensor.Shape{}}}, `input "y" of type string and shape [] takes 1 strings, got 0`, false},
		"overflow": {nil, []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{math.MaxInt64, 2}}, y},
			`input "x": impossible shape: the product of [9223372036854775807,2] overflows`, false},
		"bytes overflow": {nil, []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{math.MaxInt64 / 2, 2}}, y},
			`input "x": impossible shape: the bytes of DT_FLOAT [4611686018427387903,2] overflow`, false},
		"negative": {nil, []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{-1, 2}}, y},
			`input "x": impossible shape: dimension -1 in [-1,2]`, false},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := predict(t, c.change, answer, nil, c.inputs...)
			if got := ""; err != nil {
				var e *inference.Error
				if !errors.As(err, &e) {
					t.Fatalf("%T: %v", err, err)
				}
				if got = e.Msg; got != c.want || e.Code != inference.InvalidArgument || e.Reason != inference.ReasonInput {
					t.Errorf("got  %v %s %s\nwant %s", e.Code, e.Reason, got, c.want)
				}
			} else if c.want != "" {
				t.Errorf("accepted, want %s", c.want)
			} else if req.Alone != c.alone {
				t.Errorf("alone %v, want %v", req.Alone, c.alone)
			}
		})
	}
}

func TestPredictKeepsTheDeadline(t *testing.T) {
	x := &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{1, 2}, Data: make([]byte, 8)}
	y := &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{}, Strings: [][]byte{nil}}
	hang := func(ctx context.Context, _ *inference.Request) (*inference.Response, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for _, own := range []time.Duration{0, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			_, err := predict(t, func(v *inference.Version) { v.DefaultDeadline = own }, hang, nil, x, y)
			want := own
			if own == 0 {
				want = DefaultDeadline
			}
			if e := inference.AsError(err); e == nil || e.Code != inference.DeadlineExceeded || e.Msg != "Timed out waiting for notification" || time.Since(start) != want {
				t.Errorf("%v after %v, want %v", err, time.Since(start), want)
			}
		})
	}
}

// A cause that nobody gave a code stays in the log, and the client gets the number to find it by.
func TestUnknownErrorsStayInTheLog(t *testing.T) {
	x := &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{1, 2}, Data: make([]byte, 8)}
	y := &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{}, Strings: [][]byte{nil}}
	cause := errors.New("password is hunter2")
	var log bytes.Buffer
	_, err := predict(t, nil, func(context.Context, *inference.Request) (*inference.Response, error) { return nil, cause }, slog.New(slog.NewTextHandler(&log, nil)), x, y)
	e := inference.AsError(err)
	m := regexp.MustCompile(`^internal error ([0-9a-f]{8}) of model m version 3;`).FindStringSubmatch(e.Message())
	if e.Code != inference.Internal || !errors.Is(err, cause) || m == nil || strings.Contains(e.Message(), "hunter2") {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(log.String(), "id="+m[1]) || !strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log has %s", log.String())
	}
	known := inference.Errorf(inference.Unavailable, inference.ReasonQueueFull, "full")
	_, err = predict(t, nil, func(context.Context, *inference.Request) (*inference.Response, error) {
		return nil, fmt.Errorf("batch: %w", known)
	}, nil, x, y)
	if !errors.Is(err, known) {
		t.Errorf("a known error became %v", err)
	}
}

func TestObserveForgetsUnknownModels(t *testing.T) {
	c := inference.NewCatalog()
	c.Add("known")
	var got []string
	s := New(c, Options{Observe: func(o Observation) { got = append(got, o.Model) }})
	s.Observe(Observation{Model: "known"})
	s.Observe(Observation{Model: "stranger"})
	s.Observe(Observation{Model: "just removed", Version: 1})
	if fmt.Sprintf("%q", got) != `["known" "" "just removed"]` {
		t.Errorf("got %q", got)
	}
}

func TestStatus(t *testing.T) {
	c := inference.NewCatalog()
	c.SetStatus("m", inference.VersionStatus{Version: 1, State: inference.StateEnd})
	c.SetStatus("m", inference.VersionStatus{Version: 2, State: inference.StateLoading})
	c.SetLabels("m", map[string]int64{"l": 1, "gone": 9})
	c.Add("empty")
	s := New(c, Options{})
	for name, w := range map[string]struct {
		spec inference.Spec
		want string
	}{
		"all":           {inference.Spec{Model: "m"}, "2 LOADING, 1 END, "},
		"one":           {inference.Spec{Model: "m", Version: 1, HasVersion: true}, "1 END, "},
		"label":         {inference.Spec{Model: "m", Label: "l"}, "1 END, "},
		"no name":       {inference.Spec{}, "INVALID_ARGUMENT: ModelSpec has no name specified."},
		"no model":      {inference.Spec{Model: "n"}, "NOT_FOUND: Could not find any versions of model n"},
		"none yet":      {inference.Spec{Model: "empty"}, "NOT_FOUND: Could not find any versions of model empty"},
		"no version":    {inference.Spec{Model: "m", Version: 3, HasVersion: true}, "NOT_FOUND: Could not find version 3 of model m"},
		"label of none": {inference.Spec{Model: "m", Label: "gone"}, "NOT_FOUND: Could not find version 9 of model m"},
		"no label":      {inference.Spec{Model: "m", Label: "x"}, "INVALID_ARGUMENT: Unrecognized servable version label: x"},
	} {
		t.Run(name, func(t *testing.T) {
			versions, err := s.Status(w.spec)
			got := ""
			for _, v := range versions {
				got += fmt.Sprintf("%d %v, ", v.Version, v.State)
			}
			if err != nil {
				got = err.Error()
			}
			if got != w.want {
				t.Errorf("got %s, want %s", got, w.want)
			}
		})
	}
}

func TestHTTPStatusOfEveryCode(t *testing.T) {
	want := []int{200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401}
	for code, status := range want {
		if got := HTTPStatus(&inference.Error{Code: inference.Code(code)}); got != status {
			t.Errorf("%v: %d, want %d", inference.Code(code), got, status)
		}
	}
	if got := inference.Code(len(want)).String(); !strings.HasPrefix(got, "CODE_") {
		t.Errorf("%s has no line here", got)
	}
	for _, c := range []struct {
		code   inference.Code
		reason string
		want   int
	}{
		{inference.ResourceExhausted, inference.ReasonTooLarge, 413}, {inference.FailedPrecondition, inference.ReasonState, 409},
		{inference.ResourceExhausted, inference.ReasonDisk, 507}, {inference.Unavailable, inference.ReasonDisk, 503},
	} {
		if got := HTTPStatus(&inference.Error{Code: c.code, Reason: c.reason}); got != c.want {
			t.Errorf("%v because of %s: %d, want %d", c.code, c.reason, got, c.want)
		}
	}
}
