// refuse_test.go: refusals over gRPC, and what the metadata tells.
package rpc

import (
	"context"
	"testing"
	"time"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// door refuses what it is told to, and keeps what it was told.
type door struct {
	servable
	refuse *inference.Error
	bytes  int64
	class  inference.Class
	left   time.Duration
}

func (d *door) Admit(deadline time.Time, bytes int64, class inference.Class, _ *inference.Client) (inference.Ticket, error) {
	d.bytes, d.class, d.left = bytes, class, time.Until(deadline)
	if d.refuse != nil {
		return inference.Ticket{}, d.refuse
	}
	return inference.Ticket{}, nil
}

func TestRefusal(t *testing.T) {
	r := start(t, Options{})
	d := &door{servable: servable{predict: func(_ context.Context, req *inference.Request) ([]*tensor.Tensor, error) { return req.Inputs, nil }}}
	x := info("x", tensor.Float, -1)
	r.catalog.Publish(&inference.Version{Model: "m", Number: 1, Signatures: map[string]*inference.Signature{
		"serving_default": signature("serving_default", []inference.TensorInfo{x}, []inference.TensorInfo{x})}}, d)
	ask := func(priority string, timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		if priority != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, PriorityKey, priority)
		}
		_, err := r.predict(ctx, &pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: "m"}})
		return err
	}
	if err := ask("interactive", 200*365*24*time.Hour); status.Code(err) != codes.InvalidArgument { // it has no inputs
		t.Error(err)
	}
	if d.class != inference.Interactive || d.left > 24*time.Hour || d.left < 23*time.Hour || d.bytes != 5 {
		t.Errorf("class %v, %v left, %d bytes", d.class, d.left, d.bytes)
	}
	if err := ask("urgent", time.Minute); status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != `inferd-priority: "urgent" is no priority; send interactive, normal or batch, or leave it out` {
		t.Error(err)
	}
	for _, e := range []*inference.Error{
		{Code: inference.ResourceExhausted, Reason: inference.ReasonDeadline, Msg: "late", RetryAfter: 1500 * time.Millisecond},
		{Code: inference.Unavailable, Reason: inference.ReasonQueueFull, Msg: "full", RetryAfter: time.Millisecond},
	} {
		d.refuse = e
		st := status.Convert(ask("", time.Minute))
		if int(st.Code()) != int(e.Code) || st.Message() != e.Msg || len(st.Details()) != 2 {
			t.Fatalf("%v, details %v", st, st.Details())
		}
		why, ok := st.Details()[0].(*errdetails.ErrorInfo)
		when, also := st.Details()[1].(*errdetails.RetryInfo)
		if !ok || !also || why.Reason != e.Reason || why.Domain != "inferd" || when.RetryDelay.AsDuration() != e.RetryAfter {
			t.Errorf("details %v", st.Details())
		}
	}
	d.refuse = inference.Errorf(inference.NotFound, inference.ReasonModel, "gone") // not one of ours: as TensorFlow Serving sends it
	if st := status.Convert(ask("", time.Minute)); st.Code() != codes.NotFound || len(st.Details()) != 0 {
		t.Errorf("%v, details %v", st, st.Details())
	}
}
