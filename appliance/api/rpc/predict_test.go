// predict_test.go: Predict as a client sees it.
package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func TestPredictAnswers(t *testing.T) {
	r := start(t, Options{})
	r.publishHalf(t, 3)
	r.publishHalf(t, 7)
	r.catalog.SetLabels("half_plus_two", map[string]int64{"stable": 3})
	in := x(floats([]int64{2, 1}, 1, 5))
	answer := floats([]int64{2, 1}, 2.5, 4.5)
	response := func(sig string, version int64, outputs map[string]*tensorpb.TensorProto) *pb.PredictResponse {
		spec := modelVersion("half_plus_two", version)
		spec.SignatureName = sig
		return &pb.PredictResponse{ModelSpec: spec, Outputs: outputs}
	}
	y := map[string]*tensorpb.TensorProto{"y": answer}
	raw := []byte{0, 0, 128, 63, 0, 0, 160, 64}
	for _, c := range []struct {
		name string
		req  *pb.PredictRequest
		want *pb.PredictResponse
	}{
		{"latest", ask(modelSpec("half_plus_two"), "", in), response("serving_default", 7, y)},
		{"by number", ask(modelVersion("half_plus_two", 3), "", in), response("serving_default", 3, y)},
		{"by label", ask(modelLabel("half_plus_two", "stable"), "", in), response("serving_default", 3, y)},
		{"tensor_content", ask(modelSpec("half_plus_two"), "", x(content(typespb.DataType_DT_FLOAT, []int64{2, 1}, raw))), response("serving_default", 7, y)},
		{"a shape that disagrees is the kernel's business", ask(modelSpec("half_plus_two"), "", x(floats([]int64{2}, 1, 5))),
			response("serving_default", 7, map[string]*tensorpb.TensorProto{"y": floats([]int64{2}, 2.5, 4.5)})},
		{"signature", ask(modelSpec("half_plus_two"), "two", in), response("two", 7, map[string]*tensorpb.TensorProto{"y": answer, "z": answer})},
		{"output_filter", ask(modelSpec("half_plus_two"), "two", in, "z"), response("two", 7, map[string]*tensorpb.TensorProto{"z": answer})},
		{"no elements", ask(modelSpec("half_plus_two"), "", x(floats([]int64{0, 1}))),
			response("serving_default", 7, map[string]*tensorpb.TensorProto{"y": floats([]int64{0, 1})})},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := r.predict(t.Context(), c.req)
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
		})
	}
	for i, o := range r.finished(t, 8) {
		if o.Protocol != "grpc" || o.Method != "predict" || o.Model != "half_plus_two" || o.Version == 0 || o.Signature == "" || o.Code != inference.OK || o.Reason != "" || o.Took <= 0 {
			t.Errorf("observation %d: %+v", i, o)
		}
	}
}

// The order of output_filter is the order of the request to the model and of the answer.
func TestPredictOutputOrder(t *testing.T) {
	r := start(t, Options{})
	var asked []int
	r.publish(t, &inference.Version{Model: "m", Number: 1, Signatures: map[string]*inference.Signature{
		"serving_default": signature("serving_default", nil, []inference.TensorInfo{info("a", tensor.Int32), info("b", tensor.Int32), info("c", tensor.Int32)}),
	}}, func(_ context.Context, req *inference.Request) ([]*tensor.Tensor, error) {
		asked = req.Outputs
		var out []*tensor.Tensor
		for _, o := range req.Outputs {
			out = append(out, &tensor.Tensor{DType: tensor.Int32, Data: []byte{byte(o), 0, 0, 0}})
		}
		return out, nil
	})
	got, err := r.predict(t.Context(), ask(modelSpec("m"), "", nil, "c", "a"))
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(asked) != "[2 0]" {
		t.Errorf("the model was asked for %v, want [2 0]", asked)
	}
	if len(got.Outputs) != 2 || got.Outputs["c"].IntVal[0] != 2 || got.Outputs["a"].IntVal[0] != 0 {
		t.Errorf("got %v", got)
	}
}

func TestPredictDefaults(t *testing.T) {
	r := start(t, Options{})
	var fed *tensor.Tensor
	s := r.publishHalf(t, 1)
	s.predict = func(ctx context.Context, req *inference.Request) ([]*tensor.Tensor, error) {
		fed = req.Inputs[0].Clone()
		return halfPlusTwo(ctx, &inference.Request{Inputs: req.Inputs[1:], Outputs: req.Outputs})
	}
	one := x(floats([]int64{1, 1}, 1))
	if _, err := r.predict(t.Context(), ask(modelSpec("half_plus_two"), "defaulted", one)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(fed.Data, []byte{0, 0, 128, 63}) {
		t.Errorf("default fed as %v", fed.Data)
	}
	one["w"] = floats([]int64{1}, 2)
	if _, err := r.predict(t.Context(), ask(modelSpec("half_plus_two"), "defaulted", one)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(fed.Data, []byte{0, 0, 0, 64}) {
		t.Errorf("sent value fed as %v", fed.Data)
	}
}

func TestPredictErrors(t *testing.T) {
	one := floats([]int64{1, 1}, 1)
	spec := func() *pb.ModelSpec { return modelSpec("half_plus_two") }
	for _, c := range []struct {
		name string
		req  *pb.PredictRequest
		code codes.Code
		text string
	}{
		{"no spec", ask(nil, "", x(one)), codes.InvalidArgument, "Missing ModelSpec"},
		{"no name", ask(modelSpec(""), "", x(one)), codes.InvalidArgument, "ModelSpec has no name specified."},
		{"unknown model", ask(modelSpec("nobody"), "", x(one)), codes.NotFound, "Servable not found for request: Latest(nobody)"},
		{"unknown version", ask(modelVersion("half_plus_two", 9), "", x(one)), codes.NotFound, "Servable not found for request: Specific(half_plus_two, 9)"},
		{"version zero", ask(modelVersion("half_plus_two", 0), "", x(one)), codes.NotFound, "Servable not found for request: Specific(half_plus_two, 0)"},
		{"unknown label", ask(modelLabel("half_plus_two", "canary"), "", x(one)), codes.InvalidArgument, "Unrecognized servable version label: canary"},
		{"empty label", ask(modelLabel("half_plus_two", ""), "", x(one)), codes.InvalidArgument, "Unrecognized servable version label: "},
		{"unknown signature", ask(spec(), "S", x(one)), codes.FailedPrecondition, `Serving signature key "S" not found.`},
		{"no input", ask(spec(), "", nil), codes.InvalidArgument,
			"input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}."},
		{"too many inputs", ask(spec(), "", map[string]*tensorpb.TensorProto{"x": one, "q": one}), codes.InvalidArgument,
			"input size does not match signature: 2!=1 len({q,x}) != len({x}). Sent extra: {q}. Missing but required: {}."},
		{"one of two", ask(spec(), "pair", map[string]*tensorpb.TensorProto{"c": one}), codes.InvalidArgument,
			"input size does not match signature: 1!=2 len({c}) != len({a,b}). Sent extra: {c}. Missing but required: {a,b}."},
		{"wrong name", ask(spec(), "", map[string]*tensorpb.TensorProto{"q": one}), codes.InvalidArgument,
			"Signature input alias: x(feed name: x:0) not found in request and no default value provided. Inputs expected to be in the request {q}, or default input alias set: "},
		{"wrong name beside a default", ask(spec(), "defaulted", map[string]*tensorpb.TensorProto{"q": one}), codes.InvalidArgument,
			"Signature input alias: x(feed name: x:0) not found in request and no default value provided. Inputs expected to be in the request {q}, or default input alias set: w"},
		{"extra name beside a default", ask(spec(), "defaulted", map[string]*tensorpb.TensorProto{"x": one, "q": one}), codes.InvalidArgument,
			"Inputs contains invalid name. Used request inputs: x, request input: q,x"},
		{"unknown output", ask(spec(), "two", x(one), "q"), codes.InvalidArgument,
			"output tensor alias not found in signature: q Outputs expected to be in the set {y,z}."},
		{"output twice", ask(spec(), "two", x(one), "y", "y"), codes.InvalidArgument, "duplicate output tensor alias: y"},
		{"wrong dtype", ask(spec(), "", x(&tensorpb.TensorProto{Dtype: typespb.DataType_DT_STRING, TensorShape: shapeOf(1), StringVal: [][]byte{nil}})),
			codes.InvalidArgument, "Expects arg[0] to be float but string is provided"},
		{"truncated tensor_content", ask(spec(), "", x(content(typespb.DataType_DT_FLOAT, []int64{2, 1}, make([]byte, 7)))), codes.InvalidArgument,
			"tensor parsing error: x: tensor_content has 7 bytes, but DT_FLOAT [2,1] takes 8"},
		{"content without elements", ask(spec(), "", x(content(typespb.DataType_DT_FLOAT, []int64{0}, make([]byte, 4)))), codes.InvalidArgument,
			"tensor parsing error: x: tensor_content has 4 bytes, but DT_FLOAT [0] takes 0"},
		{"product overflows", ask(spec(), "", x(floats([]int64{1 << 32, 1 << 32}, 1))), codes.InvalidArgument,
			"tensor parsing error: x: impossible shape: the product of [4294967296,4294967296] overflows"},
		{"bytes overflow", ask(spec(), "", x(content(typespb.DataType_DT_FLOAT, []int64{1 << 62}, make([]byte, 4)))), codes.InvalidArgument,
			"tensor parsing error: x: impossible shape: the bytes of DT_FLOAT [4611686018427387904] overflow"},
		{"negative dimension", ask(spec(), "", x(floats([]int64{-1, 1}, 1))), codes.InvalidArgument,
			"tensor parsing error: x: impossible shape: dimension -1 in [-1,1]"},
		{"too many dimensions", ask(spec(), "", x(floats(make([]int64, 300)))), codes.InvalidArgument,
			"tensor parsing error: x: impossible shape: 255 dimensions, at most 254 are allowed"},
		{"unknown rank", ask(spec(), "", x(&tensorpb.TensorProto{Dtype: 1, TensorShape: unknownRank()})), codes.InvalidArgument,
			"tensor parsing error: x: tensor_shape has unknown_rank; send every dimension"},
		{"no dtype", ask(spec(), "", x(&tensorpb.TensorProto{})), codes.InvalidArgument,
			"tensor parsing error: x: dtype DT_INVALID cannot be sent; send the dtype that the signature declares"},
		{"unknown dtype", ask(spec(), "", x(&tensorpb.TensorProto{Dtype: 77})), codes.InvalidArgument,
			"tensor parsing error: x: dtype DT_77 cannot be sent; send the dtype that the signature declares"},
		{"reference dtype", ask(spec(), "", x(&tensorpb.TensorProto{Dtype: 101})), codes.InvalidArgument,
			"tensor parsing error: x: dtype DT_101 cannot be sent; send the dtype that the signature declares"},
		{"handle dtype", ask(spec(), "", x(&tensorpb.TensorProto{Dtype: typespb.DataType_DT_RESOURCE})), codes.InvalidArgument,
			"tensor parsing error: x: dtype DT_RESOURCE cannot be sent; send the dtype that the signature declares"},
		{"too many values", ask(spec(), "", x(floats([]int64{2}, 1, 2, 3))), codes.InvalidArgument,
			"tensor parsing error: x: float_val has 3 values, but DT_FLOAT [2] takes 2"},
		{"values of another type", ask(spec(), "", x(&tensorpb.TensorProto{Dtype: 1, TensorShape: shapeOf(1), IntVal: []int32{3}})), codes.InvalidArgument,
			"tensor parsing error: x: int_val has 1 values, but DT_FLOAT is read from float_val"},
		{"half a complex number", ask(spec(), "", x(&tensorpb.TensorProto{Dtype: 8, ScomplexVal: []float32{3}})), codes.InvalidArgument,
			"tensor parsing error: x: scomplex_val has 1 numbers, but DT_COMPLEX64 takes pairs"},
		{"repeated past the limit", ask(spec(), "", x(floats([]int64{1 << 40}, 1))), codes.ResourceExhausted,
			"tensor parsing error: x: too large: float_val has 1 values for the 1099511627776 elements of DT_FLOAT [1099511627776]; repeating the last one would take more than the 1048576 bytes that are left for the request"},
		{"repeated past the limit together", ask(spec(), "pair", map[string]*tensorpb.TensorProto{"a": floats([]int64{200_000}, 1), "b": floats([]int64{200_000}, 1)}),
			codes.ResourceExhausted, "tensor parsing error: b: too large: float_val has 1 values for the 200000 elements of DT_FLOAT [200000]; repeating the last one would take more than the 248576 bytes that are left for the request"},
		{"long text", ask(spec(), strings.Repeat("é", 600), x(one)), codes.FailedPrecondition,
			`Serving signature key "` + strings.Repeat("é", (1024-23)/2) + "...TRUNCATED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, Options{MaxRequestBytes: 1 << 20})
			r.publishHalf(t, 3)
			_, err := r.predict(t.Context(), c.req)
			if status.Code(err) != c.code || status.Convert(err).Message() != c.text {
				t.Errorf("got  %v\nwant code = %v desc = %s", err, c.code, c.text)
			}
			o := r.finished(t, 1)[0]
			if o.Method != "predict" || o.Code != inference.Code(c.code) || o.Reason == "" || (o.Model != "" && o.Model != "half_plus_two") {
				t.Errorf("observed %+v", o)
			}
		})
	}
}

// What the model answers with reaches the client with its own code and text.
func TestPredictModelErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		code codes.Code
		text string
	}{
		{inference.Errorf(inference.Unavailable, inference.ReasonWorker, "half_plus_two is restarting"), codes.Unavailable, "half_plus_two is restarting"},
		{fmt.Errorf("run: %w", inference.Errorf(inference.ResourceExhausted, inference.ReasonQueueFull, "full")), codes.ResourceExhausted, "full"},
		{errors.New("strange"), codes.Internal, ""}, // the api decides what a client may see of it
	} {
		r := start(t, Options{})
		r.publishHalf(t, 1).predict = func(context.Context, *inference.Request) ([]*tensor.Tensor, error) { return nil, c.err }
		_, err := r.predict(t.Context(), ask(modelSpec("half_plus_two"), "", x(floats([]int64{1}, 1))))
		if status.Code(err) != c.code || (c.text != "" && status.Convert(err).Message() != c.text) {
			t.Errorf("got %v, want code = %v desc = %s", err, c.code, c.text)
		}
		if o := r.finished(t, 1)[0]; o.Code != inference.Code(c.code) || o.Signature != "serving_default" {
			t.Errorf("observed %+v", o)
		}
	}
}

func TestPredictSurvivesPanic(t *testing.T) {
	r := start(t, Options{})
	s := r.publishHalf(t, 1)
	s.predict = func(context.Context, *inference.Request) ([]*tensor.Tensor, error) { panic("broken invariant") }
	req := ask(modelSpec("half_plus_two"), "", x(floats([]int64{1}, 1)))
	if _, err := r.predict(t.Context(), req); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "broken") {
		t.Fatalf("got %v, want INTERNAL without the inside", err)
	}
	s.predict = halfPlusTwo
	if _, err := r.predict(t.Context(), req); err != nil {
		t.Fatalf("the next request: %v", err)
	}
	if _, drained := r.catalog.Retire("half_plus_two", 1); drained == nil {
		t.Fatal("not published")
	} else {
		<-drained // no handle was left behind
	}
	r.finished(t, 2)
}

// A deadline or a cancellation reaches the model, and the answer is the client's own code.
func TestPredictContext(t *testing.T) {
	r := start(t, Options{})
	entered := make(chan time.Time, 1)
	r.publishHalf(t, 1).predict = func(ctx context.Context, _ *inference.Request) ([]*tensor.Tensor, error) {
		deadline, _ := ctx.Deadline()
		entered <- deadline
		<-ctx.Done()
		return nil, ctx.Err()
	}
	req := ask(modelSpec("half_plus_two"), "", x(floats([]int64{1}, 1)))

	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, err := r.predict(ctx, req); status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}

	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.predict(ctx, req); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("timed out: %v", err)
	}
	deadline := <-entered
	if own, _ := ctx.Deadline(); deadline.IsZero() || deadline.After(own.Add(time.Second)) {
		t.Errorf("the model's deadline is %v, the client's %v", deadline, own)
	}
	for i, o := range r.finished(t, 2) {
		if o.Reason != inference.ReasonDeadline {
			t.Errorf("observation %d: %+v", i, o)
		}
	}
}

func TestPredictTooLarge(t *testing.T) {
	r := start(t, Options{MaxRequestBytes: 1000})
	r.publishHalf(t, 1)
	big := ask(modelSpec("half_plus_two"), "", x(content(typespb.DataType_DT_FLOAT, []int64{250, 1}, make([]byte, 1000))))
	size := proto.Size(big)
	_, err := r.predict(t.Context(), big)
	if want := fmt.Sprintf("(%d vs. %d)", size, 1000); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want RESOURCE_EXHAUSTED that names %s", err, want)
	}
	// What is small only while it is compressed is refused too.
	if _, err := r.predict(t.Context(), big, grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("compressed: %v", err)
	}
	small := ask(modelSpec("half_plus_two"), "", x(content(typespb.DataType_DT_FLOAT, []int64{200, 1}, make([]byte, 800))))
	if _, err := r.predict(t.Context(), small, grpc.UseCompressor(gzip.Name)); err != nil {
		t.Errorf("under the limit: %v", err)
	}
	for i, o := range r.finished(t, 3)[:2] {
		if o.Code != inference.ResourceExhausted || o.Reason != inference.ReasonTooLarge {
			t.Errorf("observation %d: %+v", i, o)
		}
	}
}

// A request of many frames and its answer of many frames arrive whole, and concurrent ones never see each other's memory.
func TestPredictLarge(t *testing.T) {
	for _, asContent := range []bool{false, true} {
		r := start(t, Options{SerializeAsTensorContent: asContent})
		r.publish(t, &inference.Version{Model: "echo", Number: 1, Signatures: map[string]*inference.Signature{
			"serving_default": signature("serving_default", []inference.TensorInfo{info("x", tensor.Float, -1)}, []inference.TensorInfo{info("x", tensor.Float, -1)}),
		}}, echo)
		done := make(chan error)
		const callers, calls, elements = 8, 5, 150_000
		for c := range callers {
			go func() {
				var err error
				for i := range calls {
					data := make([]byte, 4*elements)
					for j := range data {
						data[j] = byte(j*7 + c*31 + i)
					}
					var got *pb.PredictResponse
					if got, err = r.predict(context.Background(), ask(modelSpec("echo"), "", x(content(typespb.DataType_DT_FLOAT, []int64{elements}, data)))); err != nil {
						break
					}
					out := got.Outputs["x"]
					if asContent && string(out.TensorContent) != string(data) {
						err = errors.New("tensor_content differs")
					}
					for j, v := range out.FloatVal {
						if math.Float32bits(v) != uint32(data[4*j])|uint32(data[4*j+1])<<8|uint32(data[4*j+2])<<16|uint32(data[4*j+3])<<24 {
							err = fmt.Errorf("caller %d: element %d differs", c, j)
							break
						}
					}
					if !asContent && len(out.FloatVal) != elements {
						err = fmt.Errorf("%d elements", len(out.FloatVal))
					}
					if err != nil {
						break
					}
				}
				done <- err
			}()
		}
		for range callers {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}

// A joined message goes back to its pool once the answer is written, whether there was one or an error, and not before.
func TestPredictFreesMessage(t *testing.T) {
	pool := &countingPool{}
	r := start(t, Options{}, grpc.ForceServerCodecV2(newCodec(pool)))
	s := r.publishHalf(t, 1)
	req := ask(modelSpec("half_plus_two"), "", x(content(typespb.DataType_DT_FLOAT, []int64{50_000, 1}, bytes.Repeat([]byte{0, 0, 128, 63}, 50_000))))
	s.predict = func(ctx context.Context, req *inference.Request) ([]*tensor.Tensor, error) {
		if got, put := pool.counts(); got != 1 || put != 0 {
			t.Errorf("while the model runs: %d buffers lent, %d came back; want 1 and 0", got, put)
		}
		return echo(ctx, req)
	}
	got, err := r.predict(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if v := got.Outputs["y"].FloatVal; len(v) != 50_000 || v[0] != 1 || v[49_999] != 1 {
		t.Errorf("the answer was not written from the message: %v...", v[:1])
	}
	s.predict = func(context.Context, *inference.Request) ([]*tensor.Tensor, error) { return nil, context.Canceled }
	if _, err := r.predict(t.Context(), req); err == nil {
		t.Error("no error")
	}
	r.finished(t, 2)
	if got, put := pool.counts(); got != 2 || put != 2 {
		t.Errorf("%d buffers lent, %d came back", got, put)
	}
}

// Methods run behind an interceptor as they do without one.
func TestPredictIntercepted(t *testing.T) {
	var seen []string
	r := start(t, Options{}, grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		seen = append(seen, info.FullMethod)
		return next(ctx, req)
	}))
	r.publishHalf(t, 1)
	if _, err := r.predict(t.Context(), ask(modelSpec("half_plus_two"), "", x(floats([]int64{1}, 1)))); err != nil {
		t.Fatal(err)
	}
	if err := r.conn.Invoke(t.Context(), "/tensorflow.serving.ModelService/GetModelStatus", &pb.GetModelStatusRequest{ModelSpec: modelSpec("half_plus_two")}, &pb.GetModelStatusResponse{}); err != nil {
		t.Fatal(err)
	}
	r.finished(t, 2)
	if want := "[/tensorflow.serving.PredictionService/Predict /tensorflow.serving.ModelService/GetModelStatus]"; fmt.Sprint(seen) != want {
		t.Errorf("intercepted %v, want %s", seen, want)
	}
}

// A message that is no PredictRequest is answered as by any gRPC server, and counted.
func TestPredictMalformed(t *testing.T) {
	r := start(t, Options{})
	var n int
	err := r.conn.Invoke(t.Context(), "/tensorflow.serving.PredictionService/Predict", []byte{0xff}, &n, grpc.ForceCodecV2(bytesCodec{}))
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), errMalformed.Error()) {
		t.Errorf("got %v", err)
	}
	if o := r.finished(t, 1)[0]; o.Code != inference.Internal || o.Reason != inference.ReasonInput {
		t.Errorf("observed %+v", o)
	}
}
