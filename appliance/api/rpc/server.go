// server.go: options, registration, and what every method has in common (observation, panics, errors on the wire).
package rpc

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"runtime/debug"
	"time"
	"unicode/utf8"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	config "github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress, as they may with TensorFlow Serving
	"google.golang.org/grpc/experimental"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
)

// DefaultMaxRequestBytes is the largest request message unless configured.
const DefaultMaxRequestBytes = 64 << 20

// Names of the services, as in their protos.
const (
	predictionService = "tensorflow.serving.PredictionService"
	modelService      = "tensorflow.serving.ModelService"
)

// Options of the gRPC front end. Zero means default.
type Options struct {
	// MaxRequestBytes bounds one request message, before and after decompression. 0 means [DefaultMaxRequestBytes].
	MaxRequestBytes int64
	// SerializeAsTensorContent answers numbers in tensor_content instead of the typed value fields (TensorFlow Serving's
	// --enable_serialization_as_tensor_content). Strings stay in string_val, where every client finds them.
	SerializeAsTensorContent bool
	// Reload answers ModelService.HandleReloadConfigRequest: it blocks until the new models are available or have failed. The config has
	// a model_config_list. Nil: UNIMPLEMENTED.
	Reload func(ctx context.Context, c *config.ModelServerConfig) error
	// Counters has the values of the metrics of these names, for the increases that a reload's answer tells. Nil: there are none.
	Counters func(names []string) []int64
	// Serving is the state of "" (the whole appliance), of a model, or of a service's name; known is false when the name means nothing
	// to it. Nil: a model serves when it has an available version, and the whole when every known model does.
	Serving func(service string) (serving, known bool)
	// Changed returns a channel that is closed when an answer of Serving may have changed since the call. Nil: health watches look
	// once a second.
	Changed func() <-chan struct{}
	// Draining is closed when the appliance begins to stop: health then answers NOT_SERVING and its watches end, for GracefulStop would
	// wait for them. Nil: never.
	Draining <-chan struct{}
	// Jobs takes and answers for what is queued. Nil: there is no such service.
	Jobs *jobs.Service
	// Access asks who calls, before a message is read. Nil: nobody is asked.
	Access *access.Guard
	// BodyTimeout is how long a call without a nearer deadline may take until its message is there, SlowTimeout until its answer has been taken.
	// 0: as long as it likes.
	BodyTimeout, SlowTimeout time.Duration
	// OIP answers for the Open Inference Protocol. Nil: there is no such service.
	OIP *oip.Service
	// StreamRequests is how many requests of one ModelStreamInfer may be without an answer. 0 means [DefaultStreamRequests].
	StreamRequests int
	// Logger hears of panics only. Nil: discard.
	Logger *slog.Logger
}

func (o Options) maxRequestBytes() int64 {
	if o.MaxRequestBytes <= 0 {
		return DefaultMaxRequestBytes
	}
	return min(o.MaxRequestBytes, math.MaxInt32)
}

// ServerOptions are what the server must be made with: the codec, the message limit (RESOURCE_EXHAUSTED before a larger message is
// read), and the buffers.
func ServerOptions(opts Options) []grpc.ServerOption {
	pool := new(bufferPool)
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec(pool)),
		grpc.MaxRecvMsgSize(int(opts.maxRequestBytes())),
		grpc.MaxSendMsgSize(math.MaxInt32),
		experimental.BufferPool(pool),
	}
	if opts.Access != nil || opts.BodyTimeout > 0 {
		options = append(options, grpc.InTapHandle(opts.tap))
	}
	return options
}

// Register puts every service on s, which was made with [ServerOptions] of the same options and does not serve yet.
func Register(s *grpc.Server, svc *api.Service, opts Options) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	opts.Logger = opts.Logger.With("component", "rpc")
	opts.MaxRequestBytes = opts.maxRequestBytes()
	if opts.StreamRequests <= 0 {
		opts.StreamRequests = DefaultStreamRequests
	}
	srv := &server{svc: svc, opts: opts, pool: new(bufferPool)}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: predictionService,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			srv.predictMethod(),
			srv.exampleMethod("Classify", "classify", inference.RecordedClassify),
			srv.exampleMethod("Regress", "regress", inference.RecordedRegress),
			srv.exampleMethod("MultiInference", "multi_inference", inference.RecordedMultiInference),
			unary(srv, predictionService, "GetModelMetadata", "metadata", srv.metadata),
		},
		Metadata: pb.File_tensorflow_serving_apis_prediction_service_proto.Path(),
	}, srv)
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: modelService,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary(srv, modelService, "GetModelStatus", "status", srv.status),
			unary(srv, modelService, "HandleReloadConfigRequest", "reload", srv.reload),
		},
		Metadata: pb.File_tensorflow_serving_apis_model_service_proto.Path(),
	}, srv)
	if opts.Jobs != nil {
		srv.registerJobs(s)
	}
	if opts.OIP != nil {
		srv.registerOIP(s)
	}
	healthpb.RegisterHealthServer(s, &healthServer{svc: svc, opts: opts})
	reflection.Register(s)
}

// server is immutable; the fields of opts are filled with their defaults.
type server struct {
	svc  *api.Service
	opts Options
	pool mem.BufferPool // of encoded answers
}

// message is a generated message by its pointer.
type message[T any] interface {
	*T
	proto.Message
}

// unary is [method] for a request that the generated code reads.
func unary[Req any, P message[Req]](s *server, service, name, word string, h func(context.Context, P, *api.Observation) (proto.Message, error)) grpc.MethodDesc {
	return method(s, service, name, word, func() P { return P(new(Req)) }, nil, h)
}

// method is the method of a service that is answered by h, and observed as word. h fills the observation's model, version and signature as it
// learns them. fresh is an empty request; done, unless it is nil, is called with it when it has been answered or could not be read.
func method[Req, Reply any](s *server, service, name, word string, fresh func() Req, done func(Req), h func(context.Context, Req, *api.Observation) (Reply, error)) grpc.MethodDesc {
	protocol, info := protocolOf(service), &grpc.UnaryServerInfo{Server: s, FullMethod: "/" + service + "/" + name}
	handler := func(_ any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		w := waitOf(ctx)
		defer w.answered()
		return s.observed(protocol, word, func(o *api.Observation) (any, error) {
			req := fresh()
			if done != nil {
				defer done(req)
			}
			if err := dec(req); err != nil {
				return nil, err
			}
			w.arrived()
			if interceptor == nil {
				return h(ctx, req, o)
			}
			return interceptor(ctx, req, info, func(ctx context.Context, req any) (any, error) { return h(ctx, req.(Req), o) })
		})
	}
	return grpc.MethodDesc{MethodName: name, Handler: handler}
}

// protocolOf is the protocol that observations of the service's calls have.
func protocolOf(service string) string {
	if service == inferenceService {
		return inferenceProtocol
	}
	return "grpc"
}

// observed runs one call, turns its error into a gRPC status, survives its panic and records it.
func (s *server) observed(protocol, word string, call func(*api.Observation) (any, error)) (reply any, err error) {
	start := time.Now()
	o := api.Observation{Protocol: protocol, Method: word}
	defer func() {
		if p := recover(); p != nil {
			reply, err = nil, s.broke(p, o.Model, o.Version)
		}
		if err != nil {
			e := asError(err)
			o.Code, o.Reason = e.Code, e.Reason
			reply, err = nil, wireStatus(e)
		}
		o.Took = time.Since(start)
		s.svc.Observe(o)
	}()
	return call(&o)
}

// broke is what a client is told of a panic that was recovered from; the log is told the rest.
func (s *server) broke(p any, model string, version int64) *inference.Error {
	s.opts.Logger.Error("request handler panicked", "err", p, "model", model, "version", version, "stack", string(debug.Stack()))
	return inference.Errorf(inference.Internal, "", "The appliance failed inside; its log has the reason.")
}

// asError also understands what grpc itself answers when a message cannot be received: too large, not parsable, the client gone.
func asError(err error) *inference.Error {
	var e *inference.Error
	if errors.As(err, &e) {
		return e
	}
	st, ok := status.FromError(err)
	if !ok {
		return inference.AsError(err)
	}
	reason := inference.ReasonInput
	switch st.Code() {
	case codes.ResourceExhausted:
		reason = inference.ReasonTooLarge
	case codes.Canceled, codes.DeadlineExceeded:
		reason = inference.ReasonDeadline
	}
	return &inference.Error{Code: inference.Code(st.Code()), Reason: reason, Msg: st.Message(), Err: err}
}

// maxStatusText is where TensorFlow Serving cuts a status text, in bytes.
const maxStatusText = 1024

func truncate(msg string) string {
	if len(msg) <= maxStatusText {
		return msg
	}
	cut := maxStatusText
	for cut > maxStatusText-utf8.UTFMax && !utf8.RuneStart(msg[cut]) { // half a character would not survive the header
		cut--
	}
	return msg[:cut] + "...TRUNCATED"
}
