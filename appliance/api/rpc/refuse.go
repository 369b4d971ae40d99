// refuse.go: what a call's metadata tells admission, and what a refusal tells the client.
package rpc

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// PriorityKey is the metadata key of a request's class: interactive, normal or batch.
const PriorityKey = "inferd-priority"

// errorDomain is where the reasons of our ErrorInfo are defined.
const errorDomain = "inferd"

// caller is what is known of the call beside its inputs.
func (r *request) caller() (api.Caller, error) { return callerOf(r.ctx, r.buffer.Len()) }

// callerOf is who sends a message of so many bytes.
func callerOf(ctx context.Context, bytes int) (api.Caller, error) {
	c := api.Caller{Bytes: int64(bytes), From: clientOf(ctx)}
	if at, ok := ctx.Deadline(); ok {
		c.Deadline = at
		if most := time.Now().Add(api.MaxDeadline); at.After(most) {
			c.Deadline = most
		}
	}
	if v := metadata.ValueFromIncomingContext(ctx, PriorityKey); len(v) > 0 {
		var err error
		if c.Class, err = classOf(v[0]); err != nil {
			return c, err
		}
	}
	return c, nil
}

// classOf is the class that the metadata names.
func classOf(word string) (inference.Class, error) {
	class, ok := inference.ParseClass(word)
	if !ok {
		return class, inference.Errorf(inference.InvalidArgument, inference.ReasonInput,
			"%s: %s is no priority; send interactive, normal or batch, or leave it out", PriorityKey, strconv.Quote(word[:min(64, len(word))]))
	}
	return class, nil
}

// refusals are the reasons of admission and of the queue, which a client is told in details. TensorFlow Serving's own errors have none.
var refusals = map[string]bool{
	inference.ReasonQueueFull: true, inference.ReasonDeadline: true, inference.ReasonMemory: true, inference.ReasonRate: true,
	inference.ReasonDraining: true, inference.ReasonLoading: true, inference.ReasonDisk: true, inference.ReasonState: true,
}

// wireStatus is the error as gRPC sends it.
func wireStatus(e *inference.Error) error {
	st := status.New(codes.Code(e.Code), truncate(e.Message()))
	if e.RetryAfter <= 0 || !refusals[e.Reason] {
		return st.Err()
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: e.Reason, Domain: errorDomain}, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)}}
	if with, err := st.WithDetails(details...); err == nil {
		st = with
	}
	return st.Err()
}
