// grpc.go: calls of PredictionService/Predict with a request that was encoded once.
package loadgen

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inferd/inferd/inference"
)

const (
	predictMethod  = "/tensorflow.serving.PredictionService/Predict"
	metadataMethod = "/tensorflow.serving.PredictionService/GetModelMetadata"
	maxMessage     = 1 << 30
)

// wireCodec passes messages as they are, so that a request is encoded once and an answer not decoded at all.
type wireCodec struct{}

func (wireCodec) Name() string { return "proto" }

func (wireCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (wireCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*int) = data.Len()
	return nil
}

// dialGRPC makes a connection; nothing is sent yet.
func dialGRPC(address string, secure *tls.Config, local net.Addr, opened *atomic.Int64) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if secure != nil {
		creds = credentials.NewTLS(secure)
	}
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) {
			opened.Add(1)
			return (&net.Dialer{LocalAddr: local}).DialContext(ctx, "tcp", to)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
}

// grpcCaller calls over connections that it shares with others.
type grpcCaller struct {
	ctx      context.Context // ended by abort, and carries the metadata
	cancel   context.CancelFunc
	conns    []*grpc.ClientConn // by client; not its own
	requests [][]byte
	deadline time.Duration
	timeout  time.Duration
}

func newGRPCCaller(conns []*grpc.ClientConn, requests [][]byte, o Options) *grpcCaller {
	ctx, cancel := context.WithCancel(context.Background())
	return &grpcCaller{ctx: shown(prioritised(ctx, o.Priority), o.Token), cancel: cancel, conns: conns, requests: requests, deadline: o.Deadline, timeout: o.Timeout}
}

// shown is ctx with the token in its metadata, if there is one.
func shown(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func prioritised(ctx context.Context, priority string) context.Context {
	if priority == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "x-inferd-priority", priority)
}

func (c *grpcCaller) abort() { c.cancel() }

func (c *grpcCaller) call(n int64, client int) outcome {
	wait := c.timeout
	if c.deadline > 0 {
		wait = c.deadline
	}
	ctx, cancel := context.WithTimeout(c.ctx, wait)
	defer cancel()
	start := time.Now()
	var size int
	err := c.conns[client].Invoke(ctx, predictMethod, c.requests[n%int64(len(c.requests))], &size, grpc.ForceCodecV2(wireCodec{}))
	if err == nil {
		return outcome{kind: answered}
	}
	// Both sides have the same deadline, and which says so first is chance: at the deadline without a reason is a time-out either way.
	return grpcOutcome(err, ctx.Err() != nil || time.Since(start) > wait-wait/10)
}

// grpcOutcome tells an answer of the server from what the client's own side says; expired: the client's time was over.
func grpcOutcome(err error, expired bool) outcome {
	st, ok := status.FromError(err)
	if !ok {
		return outcome{failed, FailedProtocol}
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() != "" && len(info.GetReason()) <= 64 {
			return outcome{refused, clean(strings.ToLower(info.GetReason()))}
		}
	}
	switch {
	case st.Code() == codes.DeadlineExceeded && expired:
		return outcome{failed, FailedTimeout}
	case st.Code() == codes.Canceled && expired:
		return outcome{failed, FailedReset} // aborted
	case st.Code() == codes.Unavailable && strings.Contains(st.Message(), "dial tcp"):
		return outcome{failed, FailedConnect}
	case st.Code() == codes.Unavailable && (strings.Contains(st.Message(), "connection error") || strings.Contains(st.Message(), "error reading from server") ||
		strings.Contains(st.Message(), "transport is closing") || strings.Contains(st.Message(), "connection is draining") || strings.Contains(st.Message(), "connection closed")):
		return outcome{failed, FailedReset} // grpc-go's own words; a server's refusal has others
	}
	return outcome{refused, inference.Code(st.Code()).String()}
}

// explain is a gRPC error as a sentence.
func explain(address string, err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	if st.Code() == codes.Unavailable {
		return fmt.Errorf("nothing answers gRPC at %s: %s", address, st.Message())
	}
	return fmt.Errorf("%s: %s (%s)", address, st.Message(), inference.Code(st.Code()))
}
