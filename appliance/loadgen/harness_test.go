// harness_test.go: servers of TensorFlow Serving's REST and gRPC that do what a test says.
package loadgen

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	corepb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	serving "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const metadataDoc = `{"model_spec":{"name":"m","version":"1"},"metadata":{"signature_def":{"signature_def":{
"serving_default":{"inputs":{"x":{"dtype":"DT_FLOAT","tensor_shape":{"dim":[{"size":"-1","name":""},{"size":"3","name":""}],"unknown_rank":false},"name":"x:0"},
"words":{"dtype":"DT_STRING","tensor_shape":{"dim":[{"size":"-1"}],"unknown_rank":false}}},"method_name":"tensorflow/serving/predict"}}}}}`

// restServer answers the metadata itself, and each prediction as predict does.
func restServer(t testing.TB, predict http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/metadata") {
			io.WriteString(w, metadataDoc)
			return
		}
		predict(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func restTarget(s *httptest.Server) Target {
	return Target{Address: s.Listener.Addr().String(), Protocol: REST, Model: "m"}
}

// grpcServer answers the metadata itself, and each prediction as predict does.
func grpcServer(t testing.TB, predict func(context.Context, *serving.PredictRequest) (*serving.PredictResponse, error)) Target {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "tensorflow.serving.PredictionService", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{
		{MethodName: "Predict", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			req := new(serving.PredictRequest)
			if err := dec(req); err != nil {
				return nil, err
			}
			return predict(ctx, req)
		}},
		{MethodName: "GetModelMetadata", Handler: func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := dec(new(serving.GetModelMetadataRequest)); err != nil {
				return nil, err
			}
			defs, err := anypb.New(&serving.SignatureDefMap{SignatureDef: map[string]*corepb.SignatureDef{"serving_default": {Inputs: map[string]*corepb.TensorInfo{"x": {
				Dtype: typespb.DataType_DT_FLOAT, TensorShape: &shapepb.TensorShapeProto{Dim: []*shapepb.TensorShapeProto_Dim{{Size: -1}}}}}}}})
			return &serving.GetModelMetadataResponse{Metadata: map[string]*anypb.Any{"signature_def": defs}}, err
		}},
	}}, nil)
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return Target{Address: l.Addr().String(), Protocol: GRPC, Model: "m"}
}

// run is a whole run.
func run(t *testing.T, target Target, o Options) *Result {
	t.Helper()
	g, err := New(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	r, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Steps {
		if s.Sent != s.Answered+s.Refused+s.Failed+s.Open || s.Sent > s.Offered {
			t.Errorf("the account is not even: %+v", s)
		}
	}
	return r
}
