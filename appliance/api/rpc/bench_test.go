// bench_test.go: Predict beside a handler that does nothing on the same kind of server, over TCP, with many connections.
package rpc

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// bytesCodec passes messages as they are: the clients and the server that does nothing spend no time on them.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }
func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error { *v.(*int) = data.Len(); return nil }

// noop is a server that answers every Predict with the same bytes.
func noop(answer []byte) *grpc.Server {
	s := grpc.NewServer(grpc.ForceServerCodecV2(bytesCodec{}), grpc.MaxRecvMsgSize(DefaultMaxRequestBytes))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: predictionService, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Predict",
		Handler: func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := dec(new(int)); err != nil {
				return nil, err
			}
			return answer, nil
		}}}}, nil)
	return s
}

// predicting is a server whose model answers at once with out.
func predicting(in inference.TensorInfo, out *tensor.Tensor, opts Options) *grpc.Server {
	c := inference.NewCatalog()
	answer := []*tensor.Tensor{out}
	sig := signature("serving_default", []inference.TensorInfo{in}, []inference.TensorInfo{{Alias: "y", DType: out.DType, Shape: out.Shape}})
	c.Publish(&inference.Version{Model: "m", Number: 1, Signatures: map[string]*inference.Signature{"serving_default": sig}}, still{answer})
	s := grpc.NewServer(ServerOptions(opts)...)
	Register(s, api.New(c, api.Options{}), opts)
	return s
}

type still struct{ answer []*tensor.Tensor }

func (s still) Predict(context.Context, *inference.Request) (*inference.Response, error) {
	return inference.NewResponse(s.answer, nil), nil
}
func (s still) Close() error { return nil }

// drive calls s with body over so many connections, one call at a time on each.
func drive(b *testing.B, s *grpc.Server, body []byte, connections int) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	conns := make([]*grpc.ClientConn, connections)
	call := func(c *grpc.ClientConn) error {
		var n int
		return c.Invoke(context.Background(), "/tensorflow.serving.PredictionService/Predict", body, &n, grpc.ForceCodecV2(bytesCodec{}))
	}
	for i := range conns {
		if conns[i], err = grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
			b.Fatal(err)
		}
		defer conns[i].Close()
		if err := call(conns[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan error)
	for _, c := range conns {
		go func() {
			var err error
			for left.Add(-1) >= 0 && err == nil {
				err = call(c)
			}
			done <- err
		}()
	}
	for range conns {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	b.StopTimer()
}

func BenchmarkPredict(b *testing.B) {
	out := &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{1, 10}, Data: make([]byte, 40)}
	for _, c := range []struct {
		name        string
		elements    int64
		connections int
	}{{"small", 32, 64}, {"image", 3 * 224 * 224, 8}} {
		in := info("x", tensor.Float, -1, c.elements)
		body, err := proto.Marshal(ask(modelSpec("m"), "", x(content(typespb.DataType_DT_FLOAT, []int64{1, c.elements}, make([]byte, 4*c.elements)))))
		if err != nil {
			b.Fatal(err)
		}
		sig := signature("serving_default", nil, []inference.TensorInfo{info("y", tensor.Float)})
		fixed := encodeReply(new(bufferPool), &inference.Version{Model: "m", Number: 1}, sig, []int{0}, []*tensor.Tensor{out}, false)
		b.Run(c.name+"/noop", func(b *testing.B) { drive(b, noop(fixed.buffer.ReadOnlyData()), body, c.connections) })
		b.Run(c.name+"/predict", func(b *testing.B) { drive(b, predicting(in, out, Options{}), body, c.connections) })
	}
}

// BenchmarkCodec is the part of a call that is ours: parse, decode, encode.
func BenchmarkCodec(b *testing.B) {
	for _, elements := range []int64{32, 3 * 224 * 224} {
		p := content(typespb.DataType_DT_FLOAT, []int64{1, elements}, make([]byte, 4*elements))
		body, err := proto.Marshal(ask(modelSpec("m"), "", x(p)))
		if err != nil {
			b.Fatal(err)
		}
		frames := mem.BufferSlice{}
		for rest := body; len(rest) > 0; { // as they come from the wire
			n := min(len(rest), 16384)
			frames, rest = append(frames, mem.SliceBuffer(rest[:n])), rest[n:]
		}
		sig := signature("serving_default", []inference.TensorInfo{info("x", tensor.Float, -1, elements)}, []inference.TensorInfo{info("y", tensor.Float, -1, 10)})
		v := &inference.Version{Model: "m", Number: 1}
		out := []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{1, 10}, Data: make([]byte, 40)}}
		c := newCodec(new(bufferPool))
		b.Run(fmt.Sprint("floats=", elements), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				req := new(request)
				if err := c.Unmarshal(frames, req); err != nil {
					b.Fatal(err)
				}
				if _, err := req.tensors(sig, DefaultMaxRequestBytes); err != nil {
					b.Fatal(err)
				}
				encodeReply(c.pool, v, sig, []int{0}, out, false).buffer.Free()
				req.free()
			}
		})
	}
}
