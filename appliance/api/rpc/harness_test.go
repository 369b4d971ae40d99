// harness_test.go: a real client and server over an in-memory connection, in front of a real catalog with scripted models.
package rpc

import (
	"context"
	"encoding/binary"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	corepb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// servable answers with a function and counts what it lent.
type servable struct {
	predict func(ctx context.Context, req *inference.Request) ([]*tensor.Tensor, error)
	lent    atomic.Int64 // responses not yet released
}

func (s *servable) Predict(ctx context.Context, req *inference.Request) (*inference.Response, error) {
	if err := ctx.Err(); err != nil { // a call whose time is over may come this far: grpc's reader takes what is there as readily as the end
		return nil, inference.AsError(err)
	}
	out, err := s.predict(ctx, req)
	if err != nil {
		return nil, err
	}
	s.lent.Add(1)
	return inference.NewResponse(out, func() {
		for _, t := range out { // whoever reads it after the release shall see it
			clear(t.Data)
		}
		s.lent.Add(-1)
	}), nil
}

func (s *servable) Close() error { return nil }

// halfPlusTwo computes y = x/2 + 2 for floats.
func halfPlusTwo(_ context.Context, req *inference.Request) ([]*tensor.Tensor, error) {
	x := req.Inputs[0]
	data := make([]byte, len(x.Data))
	for i := 0; i < len(data); i += 4 {
		v := math.Float32frombits(binary.LittleEndian.Uint32(x.Data[i:]))
		binary.LittleEndian.PutUint32(data[i:], math.Float32bits(v/2+2))
	}
	y := &tensor.Tensor{DType: tensor.Float, Shape: x.Shape, Data: data}
	out := make([]*tensor.Tensor, len(req.Outputs))
	for i := range out {
		out[i] = y
	}
	return out, nil
}

// echo answers with its inputs, in the memory of the request; a signature with as many outputs as inputs is meant for it.
func echo(_ context.Context, req *inference.Request) ([]*tensor.Tensor, error) {
	out := make([]*tensor.Tensor, len(req.Outputs))
	for i, o := range req.Outputs {
		out[i] = req.Inputs[o]
	}
	return out, nil
}

// signature has inputs and outputs sorted by alias.
func signature(key string, inputs, outputs []inference.TensorInfo) *inference.Signature {
	return &inference.Signature{Key: key, Method: "tensorflow/serving/predict", Inputs: inputs, Outputs: outputs}
}

func info(alias string, d tensor.DType, shape ...int64) inference.TensorInfo {
	return inference.TensorInfo{Alias: alias, Tensor: alias + ":0", DType: d, Shape: shape}
}

// rig is one appliance front end with a client.
type rig struct {
	catalog *inference.Catalog
	conn    *grpc.ClientConn
	server  *grpc.Server

	mu       sync.Mutex
	observed []api.Observation
}

// start serves with opts. Everything ends with the test, which fails when a lent response was not released by then.
func start(t testing.TB, opts Options, extra ...grpc.ServerOption) *rig {
	t.Helper()
	r := &rig{catalog: inference.NewCatalog()}
	svc := api.New(r.catalog, api.Options{Observe: func(o api.Observation) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.observed = append(r.observed, o)
	}})
	if opts.OIP == nil {
		opts.OIP = oip.New(svc, oip.Options{Version: "1.2.3"})
	}
	r.server = grpc.NewServer(append(ServerOptions(opts), extra...)...)
	Register(r.server, svc, opts)
	l := bufconn.Listen(1 << 20)
	done := make(chan error, 1)
	go func() { done <- r.server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	r.conn = conn
	t.Cleanup(func() {
		conn.Close()
		r.server.Stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

// publish makes a version answer with predict.
func (r *rig) publish(t testing.TB, v *inference.Version, predict func(context.Context, *inference.Request) ([]*tensor.Tensor, error)) *servable {
	t.Helper()
	s := &servable{predict: predict}
	r.catalog.Publish(v, s)
	t.Cleanup(func() {
		// Who serves a stream that was ended gives back what it has a moment after the client has learned of the end.
		n := s.lent.Load()
		for end := time.Now().Add(30 * time.Second); n != 0 && time.Now().Before(end); n = s.lent.Load() {
			time.Sleep(time.Millisecond)
		}
		if n != 0 {
			t.Errorf("%d responses of %s version %d were not released", n, v.Model, v.Number)
		}
	})
	return s
}

// publishHalf publishes half_plus_two with a few more signatures.
func (r *rig) publishHalf(t testing.TB, number int64) *servable {
	t.Helper()
	x, y := info("x", tensor.Float, -1, 1), info("y", tensor.Float, -1, 1)
	z := info("z", tensor.Float, -1, 1)
	withDefault := info("w", tensor.Float, 1)
	withDefault.Default = &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{1}, Data: []byte{0, 0, 128, 63}}
	return r.publish(t, &inference.Version{Model: "half_plus_two", Number: number, Signatures: map[string]*inference.Signature{
		"serving_default": signature("serving_default", []inference.TensorInfo{x}, []inference.TensorInfo{y}),
		"two":             signature("two", []inference.TensorInfo{x}, []inference.TensorInfo{y, z}),
		"pair":            signature("pair", []inference.TensorInfo{info("a", tensor.Float, -1), info("b", tensor.Float, -1)}, []inference.TensorInfo{y}),
		"defaulted":       signature("defaulted", []inference.TensorInfo{withDefault, x}, []inference.TensorInfo{y}),
	}, Defs: halfDefs()}, halfPlusTwo)
}

// halfDefs are definitions for the metadata of half_plus_two.
func halfDefs() map[string]*corepb.SignatureDef {
	return map[string]*corepb.SignatureDef{
		"serving_default":       {MethodName: "tensorflow/serving/predict", Inputs: map[string]*corepb.TensorInfo{"x": {Encoding: &corepb.TensorInfo_Name{Name: "x:0"}, Dtype: typespb.DataType_DT_FLOAT}}},
		"defaulted":             {MethodName: "tensorflow/serving/predict", Defaults: map[string]*tensorpb.TensorProto{"w": floats([]int64{1}, 1)}},
		"__saved_model_init_op": {Outputs: map[string]*corepb.TensorInfo{"__saved_model_init_op": {Encoding: &corepb.TensorInfo_Name{Name: "NoOp"}}}},
	}
}

// finished waits for n observations and returns them: a client has its answer a moment before the last one is recorded.
func (r *rig) finished(t *testing.T, n int) []api.Observation {
	t.Helper()
	r.server.GracefulStop() // every handler has returned
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.observed) != n {
		t.Fatalf("%d observations, want %d: %+v", len(r.observed), n, r.observed)
	}
	return r.observed
}

func (r *rig) predict(ctx context.Context, req *pb.PredictRequest, opts ...grpc.CallOption) (*pb.PredictResponse, error) {
	resp := new(pb.PredictResponse)
	if err := r.conn.Invoke(ctx, "/tensorflow.serving.PredictionService/Predict", req, resp, opts...); err != nil {
		return nil, err
	}
	return resp, nil
}

func shapeOf(dims ...int64) *shapepb.TensorShapeProto {
	s := new(shapepb.TensorShapeProto)
	for _, d := range dims {
		s.Dim = append(s.Dim, &shapepb.TensorShapeProto_Dim{Size: d})
	}
	return s
}

func floats(dims []int64, values ...float32) *tensorpb.TensorProto {
	return &tensorpb.TensorProto{Dtype: typespb.DataType_DT_FLOAT, TensorShape: shapeOf(dims...), FloatVal: values}
}

func content(d typespb.DataType, dims []int64, b []byte) *tensorpb.TensorProto {
	return &tensorpb.TensorProto{Dtype: d, TensorShape: shapeOf(dims...), TensorContent: b}
}

func modelSpec(name string) *pb.ModelSpec { return &pb.ModelSpec{Name: name} }

func modelVersion(name string, n int64) *pb.ModelSpec {
	return &pb.ModelSpec{Name: name, VersionChoice: &pb.ModelSpec_Version{Version: wrapperspb.Int64(n)}}
}

func modelLabel(name, label string) *pb.ModelSpec {
	return &pb.ModelSpec{Name: name, VersionChoice: &pb.ModelSpec_VersionLabel{VersionLabel: label}}
}

// ask is a request with the inputs given as pairs of name and tensor.
func ask(spec *pb.ModelSpec, sig string, inputs map[string]*tensorpb.TensorProto, filter ...string) *pb.PredictRequest {
	if spec != nil {
		spec.SignatureName = sig
	}
	return &pb.PredictRequest{ModelSpec: spec, Inputs: inputs, OutputFilter: filter}
}

func x(t *tensorpb.TensorProto) map[string]*tensorpb.TensorProto {
	return map[string]*tensorpb.TensorProto{"x": t}
}

func unknownRank() *shapepb.TensorShapeProto { return &shapepb.TensorShapeProto{UnknownRank: true} }
