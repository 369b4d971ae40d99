// detached_test.go: away from the door, a PredictRequest and its answer are what they are at it.
package rpc

import (
	"testing"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

func TestDetachedAnswersAsTheDoorDoes(t *testing.T) {
	r := start(t, Options{})
	r.publishHalf(t, 3)
	c := NewCodec(CodecOptions{})
	for name, req := range map[string]*pb.PredictRequest{
		"plain":     ask(modelSpec("half_plus_two"), "", x(floats([]int64{2, 1}, 1, 2))),
		"version":   ask(modelVersion("half_plus_two", 3), "two", x(floats([]int64{1, 1}, 1)), "z"),
		"signature": ask(modelSpec("half_plus_two"), "none", x(floats([]int64{1, 1}, 1))),
		"input":     ask(modelSpec("half_plus_two"), "", map[string]*tensorpb.TensorProto{"q": floats([]int64{1}, 1)}),
		"shape":     ask(modelSpec("half_plus_two"), "", x(floats([]int64{5, 1}, 1, 2, 3, 4, 5, 6))),
		"output":    ask(modelSpec("half_plus_two"), "", x(floats([]int64{1, 1}, 1)), "q"),
		"model":     ask(modelSpec("other"), "", x(floats([]int64{1, 1}, 1))),
		"label":     ask(modelLabel("half_plus_two", ""), "", x(floats([]int64{1, 1}, 1))),
		"no spec":   ask(nil, "", x(floats([]int64{1, 1}, 1))),
	} {
		t.Run(name, func(t *testing.T) {
			want, wantErr := r.predict(t.Context(), req)
			body, err := proto.Marshal(req)
			if err != nil {
				t.Fatal(err)
			}
			got, e := detachedPredict(t, c, r.catalog, body)
			if e != nil {
				if wantErr == nil || status.Convert(wantErr).Message() != e.Msg || status.Code(wantErr) != status.Code(wireStatus(e)) {
					t.Errorf("got %v, want %v", e, wantErr)
				}
				return
			}
			if wantErr != nil || !proto.Equal(got, want) {
				t.Errorf("got %v, want %v, %v", got, want, wantErr)
			}
		})
	}
	if _, e := ReadSpec([]byte{10, 200}); e == nil || e.Code != inference.InvalidArgument {
		t.Errorf("half a message: %v", e)
	}
}

// detachedPredict is what whoever has a stored message does.
func detachedPredict(t *testing.T, c api.Codec, catalog *inference.Catalog, body []byte) (*pb.PredictResponse, *inference.Error) {
	spec, e := ReadSpec(body)
	if e != nil {
		return nil, e
	}
	h, err := catalog.Acquire(spec)
	if err != nil {
		return nil, inference.AsError(err)
	}
	defer h.Release()
	call, e := c.Decode(body, h.Version())
	if e != nil {
		return nil, e
	}
	defer call.Free()
	resp, err := h.Servable().Predict(t.Context(), call.Request())
	if err != nil {
		return nil, inference.AsError(err)
	}
	defer resp.Release()
	out, e := call.Append([]byte{8, 1}, resp) // after what is there
	if e != nil {
		return nil, e
	}
	got := new(pb.PredictResponse)
	if err := proto.Unmarshal(out[2:], got); err != nil {
		t.Fatal(err)
	}
	return got, nil
}
