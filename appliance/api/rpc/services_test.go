// services_test.go: metadata, status, reload, the methods that are not there, health and reflection, as a client sees them.
package rpc

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	corepb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	config "github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/inferd/inferd/inference"
)

func TestMetadata(t *testing.T) {
	r := start(t, Options{})
	r.publishHalf(t, 3)
	r.publishHalf(t, 4)
	half := halfDefs()
	r.publish(t, &inference.Version{Model: "half_plus_two", Number: 2, Defs: half}, halfPlusTwo)
	const method = "/tensorflow.serving.PredictionService/GetModelMetadata"
	got := new(pb.GetModelMetadataResponse)
	if err := r.conn.Invoke(t.Context(), method, &pb.GetModelMetadataRequest{ModelSpec: modelVersion("half_plus_two", 2), MetadataField: []string{"signature_def"}}, got); err != nil {
		t.Fatal(err)
	}
	if want := modelVersion("half_plus_two", 2); !proto.Equal(got.ModelSpec, want) {
		t.Errorf("model_spec %v, want %v", got.ModelSpec, want)
	}
	packed := got.Metadata["signature_def"]
	if packed.GetTypeUrl() != "type.googleapis.com/tensorflow.serving.SignatureDefMap" {
		t.Errorf("type %q", packed.GetTypeUrl())
	}
	defs := new(pb.SignatureDefMap)
	if err := packed.UnmarshalTo(defs); err != nil {
		t.Fatal(err)
	}
	want := &pb.SignatureDefMap{SignatureDef: map[string]*corepb.SignatureDef{
		"serving_default":       half["serving_default"],
		"defaulted":             {MethodName: "tensorflow/serving/predict"}, // without the defaults
		"__saved_model_init_op": half["__saved_model_init_op"],
	}}
	if !proto.Equal(defs, want) {
		t.Errorf("got  %v\nwant %v", defs, want)
	}
	if len(half["defaulted"].Defaults) == 0 {
		t.Error("the version's own definition was changed")
	}

	for _, c := range []struct {
		name string
		req  *pb.GetModelMetadataRequest
		code codes.Code
		text string
	}{
		{"no spec", &pb.GetModelMetadataRequest{}, codes.InvalidArgument, "Missing ModelSpec"},
		{"no field", &pb.GetModelMetadataRequest{ModelSpec: modelSpec("nobody")}, codes.InvalidArgument,
			"GetModelMetadataRequest must specify at least one metadata_field"},
		{"no field, empty label", &pb.GetModelMetadataRequest{ModelSpec: modelLabel("m", "")}, codes.InvalidArgument,
			"GetModelMetadataRequest must specify at least one metadata_field"},
		{"unknown field", &pb.GetModelMetadataRequest{ModelSpec: modelSpec("half_plus_two"), MetadataField: []string{"signature_def", "X"}},
			codes.InvalidArgument, "Metadata field X is not supported"},
		{"unknown model", &pb.GetModelMetadataRequest{ModelSpec: modelSpec("nobody"), MetadataField: []string{"signature_def"}}, codes.NotFound,
			"Servable not found for request: Latest(nobody)"},
		{"unknown version", &pb.GetModelMetadataRequest{ModelSpec: modelVersion("half_plus_two", 9), MetadataField: []string{"signature_def"}},
			codes.NotFound, "Servable not found for request: Specific(half_plus_two, 9)"},
	} {
		err := r.conn.Invoke(t.Context(), method, c.req, got)
		if status.Code(err) != c.code || status.Convert(err).Message() != c.text {
			t.Errorf("%s: got %v, want code = %v desc = %s", c.name, err, c.code, c.text)
		}
	}
	r.finished(t, 7)
}

func TestStatus(t *testing.T) {
	r := start(t, Options{})
	r.publishHalf(t, 3)
	r.catalog.SetStatus("half_plus_two", inference.VersionStatus{Version: 5, State: inference.StateEnd, Code: inference.InvalidArgument, Message: "no op Foo"})
	r.catalog.SetStatus("half_plus_two", inference.VersionStatus{Version: 4, State: inference.StateLoading})
	r.catalog.SetStatus("half_plus_two", inference.VersionStatus{Version: 2, State: inference.StateAvailable, Message: "unproven"})
	r.catalog.SetLabels("half_plus_two", map[string]int64{"stable": 3})
	r.catalog.Add("waiting")
	const method = "/tensorflow.serving.ModelService/GetModelStatus"
	one := func(version int64, state pb.ModelVersionStatus_State, code corepb.Code, msg string) *pb.ModelVersionStatus {
		return &pb.ModelVersionStatus{Version: version, State: state, Status: &pb.StatusProto{ErrorCode: code, ErrorMessage: msg}}
	}
	available := one(3, pb.ModelVersionStatus_AVAILABLE, corepb.Code_OK, "")
	for _, c := range []struct {
		spec *pb.ModelSpec
		want []*pb.ModelVersionStatus
		code codes.Code
		text string
	}{
		{spec: modelSpec("half_plus_two"), want: []*pb.ModelVersionStatus{one(5, pb.ModelVersionStatus_END, corepb.Code_INVALID_ARGUMENT, "no op Foo"),
			one(4, pb.ModelVersionStatus_LOADING, corepb.Code_OK, ""), available, one(2, pb.ModelVersionStatus_AVAILABLE, corepb.Code_OK, "unproven")}},
		{spec: modelVersion("half_plus_two", 3), want: []*pb.ModelVersionStatus{available}},
		{spec: modelLabel("half_plus_two", "stable"), want: []*pb.ModelVersionStatus{available}},
		{spec: nil, code: codes.InvalidArgument, text: "Missing ModelSpec"},
		{spec: modelSpec("nobody"), code: codes.NotFound, text: "Could not find any versions of model nobody"},
		{spec: modelSpec("waiting"), code: codes.NotFound, text: "Could not find any versions of model waiting"},
		{spec: modelVersion("half_plus_two", 9), code: codes.NotFound, text: "Could not find version 9 of model half_plus_two"},
	} {
		got := new(pb.GetModelStatusResponse)
		err := r.conn.Invoke(t.Context(), method, &pb.GetModelStatusRequest{ModelSpec: c.spec}, got)
		if status.Code(err) != c.code || status.Convert(err).Message() != c.text {
			t.Errorf("%v: got %v, want code = %v desc = %s", c.spec, err, c.code, c.text)
		}
		if want := (&pb.GetModelStatusResponse{ModelVersionStatus: c.want}); !proto.Equal(got, want) {
			t.Errorf("%v: got %v, want %v", c.spec, got, want)
		}
	}
	r.finished(t, 7)
}

func TestReload(t *testing.T) {
	const method = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
	list := &pb.ReloadConfigRequest{Config: &config.ModelServerConfig{Config: &config.ModelServerConfig_ModelConfigList{
		ModelConfigList: &config.ModelConfigList{Config: []*config.ModelConfig{{Name: "m", BasePath: "/m"}}}}}}
	got := new(pb.ReloadConfigResponse)
	r := start(t, Options{})
	if err := r.conn.Invoke(t.Context(), method, list, got); status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "configuration") {
		t.Errorf("without a function: %v", err)
	}
	var given *config.ModelServerConfig
	var answer *inference.Error
	r = start(t, Options{Reload: func(_ context.Context, c *config.ModelServerConfig) error {
		given = c
		if answer != nil {
			return answer
		}
		return nil
	}})
	if err := r.conn.Invoke(t.Context(), method, list, got); err != nil || got.Status.GetErrorCode() != corepb.Code_OK || got.Status == nil {
		t.Errorf("got %v, %v", got, err)
	}
	if given.GetModelConfigList().GetConfig()[0].GetName() != "m" {
		t.Errorf("the function got %v", given)
	}
	answer = inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Illegal to list model m multiple times in config list")
	if err := r.conn.Invoke(t.Context(), method, list, got); status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != answer.Msg {
		t.Errorf("got %v", err)
	}
	err := r.conn.Invoke(t.Context(), method, &pb.ReloadConfigRequest{}, got)
	custom := &pb.ReloadConfigRequest{Config: &config.ModelServerConfig{Config: &config.ModelServerConfig_CustomModelConfig{}}}
	if again := r.conn.Invoke(t.Context(), method, custom, got); status.Code(again) != codes.InvalidArgument || again.Error() != err.Error() {
		t.Errorf("custom_model_config: %v", again)
	}
	if status.Convert(err).Message() != "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported" {
		t.Errorf("without a list: %v", err)
	}
	r.finished(t, 4)

	value := int64(40)
	r = start(t, Options{
		Reload: func(context.Context, *config.ModelServerConfig) error { value += 2; return nil },
		Counters: func(names []string) []int64 {
			values := make([]int64, len(names))
			for i, name := range names {
				if name == "counts" {
					values[i] = value
				}
			}
			return values
		},
	})
	list.MetricNames = []string{"counts", "nobody"}
	if err := r.conn.Invoke(t.Context(), method, list, got); err != nil || len(got.Metric) != 2 || got.Metric[0].Name != "counts" ||
		got.Metric[0].GetInt64ValueIncrease() != 2 || got.Metric[1].Name != "nobody" || got.Metric[1].GetInt64ValueIncrease() != 0 {
		t.Errorf("metrics: %v, %v", got, err)
	}
	list.MetricNames = make([]string, maxMetricNames+1)
	if err := r.conn.Invoke(t.Context(), method, list, got); status.Code(err) != codes.InvalidArgument || value != 42 {
		t.Errorf("too many metrics: %v, and it was reloaded: %d", err, value)
	}
	r.finished(t, 2)
}

// changes is a state that tells its watchers, as the appliance does.
type changes struct {
	mu      sync.Mutex
	states  map[string]bool
	changed chan struct{}
	looked  chan string // gets each name that is asked for; nil: nobody cares
}

func (c *changes) serving(name string) (bool, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.looked != nil {
		c.looked <- name
	}
	serving, known := c.states[name]
	return serving, known
}

func (c *changes) wait() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *changes) set(name string, serving bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states[name] = serving
	close(c.changed)
	c.changed = make(chan struct{})
}

const (
	healthServing    = healthpb.HealthCheckResponse_SERVING
	healthNotServing = healthpb.HealthCheckResponse_NOT_SERVING
	healthUnknown    = healthpb.HealthCheckResponse_SERVICE_UNKNOWN
)

func TestHealthCheck(t *testing.T) {
	for name, c := range map[string]struct {
		opts    Options
		publish bool
		want    map[string]healthpb.HealthCheckResponse_ServingStatus
	}{
		"from the catalog, before": {want: map[string]healthpb.HealthCheckResponse_ServingStatus{"": healthNotServing, "PredictionService": healthNotServing,
			predictionService: healthNotServing, "ModelService": healthServing, modelService: healthServing, "half_plus_two": healthNotServing, "nobody": healthUnknown}},
		"from the catalog, after": {publish: true, want: map[string]healthpb.HealthCheckResponse_ServingStatus{"": healthServing, "PredictionService": healthServing,
			predictionService: healthServing, "ModelService": healthServing, modelService: healthServing, "half_plus_two": healthServing, "nobody": healthUnknown}},
		"from the appliance": {publish: true, opts: Options{Serving: (&changes{states: map[string]bool{"": true, "half_plus_two": false, "nobody": true, "ModelService": false}}).serving},
			want: map[string]healthpb.HealthCheckResponse_ServingStatus{"": healthServing, "PredictionService": healthServing, "ModelService": healthNotServing,
				modelService: healthServing, "half_plus_two": healthNotServing, "nobody": healthServing, "other": healthUnknown}},
		"draining": {publish: true, opts: Options{Draining: closed()}, want: map[string]healthpb.HealthCheckResponse_ServingStatus{"": healthNotServing,
			"PredictionService": healthNotServing, "ModelService": healthNotServing, "half_plus_two": healthNotServing, "nobody": healthUnknown}},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, c.opts)
			r.catalog.Add("half_plus_two")
			if c.publish {
				r.publishHalf(t, 1)
			}
			client := healthpb.NewHealthClient(r.conn)
			list, err := client.List(t.Context(), &healthpb.HealthListRequest{})
			if err != nil {
				t.Fatal(err)
			}
			for service, want := range c.want {
				got, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
				if want == healthUnknown {
					if status.Code(err) != codes.NotFound || list.Statuses[service] != nil {
						t.Errorf("%q: %v, %v, want NOT_FOUND", service, got, err)
					}
					continue
				}
				if err != nil || got.Status != want {
					t.Errorf("%q: %v, %v, want %v", service, got, err, want)
				}
				if listed := list.Statuses[service]; service != "nobody" && listed.GetStatus() != want {
					t.Errorf("%q is listed as %v, want %v", service, listed, want)
				}
			}
		})
	}
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func TestHealthWatch(t *testing.T) {
	c := &changes{states: map[string]bool{"": true}, changed: make(chan struct{}), looked: make(chan string, 100)}
	draining := make(chan struct{})
	r := start(t, Options{Serving: c.serving, Changed: c.wait, Draining: draining})
	watch, err := healthpb.NewHealthClient(r.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "m"})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		got, err := watch.Recv()
		if err != nil || got.Status != want {
			t.Fatalf("got %v, %v, want %v", got, err, want)
		}
	}
	expect(healthUnknown)
	<-c.looked
	c.set("other", true)
	<-c.looked // it looked again, and that was no news
	c.set("m", false)
	expect(healthNotServing)
	c.set("m", true)
	expect(healthServing)
	close(draining)
	expect(healthNotServing)
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("after draining: %v", err)
	}
	r.server.GracefulStop() // does not wait for the watch
}

// Without anybody to tell of changes a watch still sees them, and a client that leaves ends it.
func TestHealthWatchLooks(t *testing.T) { synctest.Test(t, watchLooks) }

func watchLooks(t *testing.T) {
	r := start(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	watch, err := healthpb.NewHealthClient(r.conn).Watch(ctx, &healthpb.HealthCheckRequest{Service: "half_plus_two"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.Status != healthUnknown {
		t.Fatalf("got %v, %v", got, err)
	}
	r.publishHalf(t, 1)
	if got, err := watch.Recv(); err != nil || got.Status != healthServing {
		t.Fatalf("got %v, %v", got, err)
	}
	cancel()
	if _, err := watch.Recv(); status.Code(err) != codes.Canceled {
		t.Fatalf("after the client left: %v", err)
	}
	r.server.GracefulStop()
}

// reflector asks one question and returns the serialized files of the answer, or the service names.
type reflector func(question string, file bool) (files [][]byte, services []string, err error)

// reflect speaks one version of the protocol; their messages are the same.
func reflect(t *testing.T, r *rig, version string) reflector {
	stream, err := r.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		"/grpc.reflection."+version+".ServerReflection/ServerReflectionInfo")
	if err != nil {
		t.Fatal(err)
	}
	return func(question string, file bool) ([][]byte, []string, error) {
		req := &reflectpb.ServerReflectionRequest{MessageRequest: &reflectpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: question}}
		if file {
			req.MessageRequest = &reflectpb.ServerReflectionRequest_FileByFilename{FileByFilename: question}
		}
		if question == "" {
			req.MessageRequest = &reflectpb.ServerReflectionRequest_ListServices{}
		}
		if err := stream.SendMsg(req); err != nil {
			return nil, nil, err
		}
		resp := new(reflectpb.ServerReflectionResponse)
		if err := stream.RecvMsg(resp); err != nil {
			return nil, nil, err
		}
		if e := resp.GetErrorResponse(); e != nil {
			return nil, nil, status.Error(codes.Code(e.ErrorCode), e.ErrorMessage)
		}
		var names []string
		for _, s := range resp.GetListServicesResponse().GetService() {
			names = append(names, s.Name)
		}
		return resp.GetFileDescriptorResponse().GetFileDescriptorProto(), names, nil
	}
}

// A client that knows nothing finds every service and, from it, every message: each file and each of its imports is served, and
// together they make descriptors with every method.
func TestReflection(t *testing.T) {
	for _, version := range []string{"v1", "v1alpha"} {
		t.Run(version, func(t *testing.T) {
			askServer := reflect(t, start(t, Options{}), version)
			_, services, err := askServer("", false)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", inferenceService, modelService, predictionService}
			if slices.Sort(services); !slices.Equal(services, want) {
				t.Fatalf("services %v, want %v", services, want)
			}
			files := make(map[string]*descriptorpb.FileDescriptorProto)
			var missing []string
			take := func(question string, file bool) {
				serialized, _, err := askServer(question, file)
				if err != nil {
					t.Fatalf("%s: %v", question, err)
				}
				for _, b := range serialized {
					f := new(descriptorpb.FileDescriptorProto)
					if err := proto.Unmarshal(b, f); err != nil {
						t.Fatal(err)
					}
					files[f.GetName()] = f
					missing = append(missing, f.Dependency...)
				}
			}
			for _, s := range services {
				take(s, false)
			}
			for len(missing) > 0 {
				name := missing[0]
				missing = missing[1:]
				if files[name] == nil {
					take(name, true)
				}
				if files[name] == nil {
					t.Fatalf("asked for %s and got another file", name)
				}
			}
			registry, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: slices.Collect(maps.Values(files))})
			if err != nil {
				t.Fatal(err)
			}
			for service, methods := range map[string]string{
				predictionService: "Classify Regress Predict MultiInference GetModelMetadata",
				modelService:      "GetModelStatus HandleReloadConfigRequest",
			} {
				checkService(t, registry, service, strings.Fields(methods))
			}
		})
	}
}

func checkService(t *testing.T, registry *protoregistry.Files, service string, methods []string) {
	t.Helper()
	d, err := registry.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		t.Fatal(err)
	}
	found := d.(protoreflect.ServiceDescriptor).Methods()
	if found.Len() != len(methods) {
		t.Errorf("%s has %d methods, want %d", service, found.Len(), len(methods))
	}
	for _, m := range methods {
		if md := found.ByName(protoreflect.Name(m)); md == nil || md.Input().Fields().ByNumber(1) == nil {
			t.Errorf("%s.%s is not described", service, m)
		}
	}
}
