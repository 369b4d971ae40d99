// oip.go: inference.GRPCInferenceService: the Open Inference Protocol, but for inference itself.
package rpc

import (
	"context"
	"maps"
	"net"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rpc/oippb"
	"github.com/inferd/inferd/inference"
)

const (
	inferenceService  = "inference.GRPCInferenceService"
	inferenceProtocol = "oip-grpc" // in observations
)

// Methods that need no token, as health checks do not.
const (
	serverLive  = "/" + inferenceService + "/ServerLive"
	serverReady = "/" + inferenceService + "/ServerReady"
)

// elsewhere are Triton's methods that are no part of this server, and what is said to their callers.
var elsewhere = map[string]string{
	"SystemSharedMemoryStatus": noSharedMemory, "SystemSharedMemoryRegister": noSharedMemory, "SystemSharedMemoryUnregister": noSharedMemory,
	"CudaSharedMemoryStatus": noSharedMemory, "CudaSharedMemoryRegister": noSharedMemory, "CudaSharedMemoryUnregister": noSharedMemory,
	"TraceSetting": "requests are not traced here; /metrics has counts and latencies, and ModelStatistics has them by model",
	"LogSettings":  "the log is set up in inferd's configuration (log.level), which `inferd reload` reads again",
}

const noSharedMemory = "tensors in shared memory of the client's are not read here; send them in raw_input_contents"

// registerOIP puts the service on g.
func (s *server) registerOIP(g *grpc.Server) {
	desc := &grpc.ServiceDesc{
		ServiceName: inferenceService,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary(s, inferenceService, "ServerLive", "live", s.serverLive),
			unary(s, inferenceService, "ServerReady", "ready", s.serverReady),
			unary(s, inferenceService, "ModelReady", "model_ready", s.modelReady),
			unary(s, inferenceService, "ServerMetadata", "server_metadata", s.serverMetadata),
			unary(s, inferenceService, "ModelMetadata", "metadata", s.modelMetadata),
			s.inferMethod(),
			unary(s, inferenceService, "ModelConfig", "config", s.modelConfig),
			unary(s, inferenceService, "ModelStatistics", "statistics", s.modelStatistics),
			unary(s, inferenceService, "RepositoryIndex", "repository_index", s.repositoryIndex),
			unary(s, inferenceService, "RepositoryModelLoad", "load", s.repositoryLoad),
			unary(s, inferenceService, "RepositoryModelUnload", "unload", s.repositoryUnload),
		},
		Streams:  []grpc.StreamDesc{{StreamName: "ModelStreamInfer", Handler: s.modelStreamInfer, ServerStreams: true, ClientStreams: true}},
		Metadata: oippb.File_appliance_api_rpc_oippb_oip_proto.Path(),
	}
	for _, name := range slices.Sorted(maps.Keys(elsewhere)) {
		desc.Methods = append(desc.Methods, s.refusing(name, elsewhere[name]))
	}
	g.RegisterService(desc, s)
}

// refusing is a method that says why it is not there. It does not look at the message.
func (s *server) refusing(name, why string) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
		return s.observed(inferenceProtocol, "", func(*api.Observation) (any, error) {
			return nil, inference.Errorf(inference.Unimplemented, inference.ReasonInput, "%s: %s", name, why)
		})
	}}
}

func (s *server) serverLive(context.Context, *oippb.ServerLiveRequest, *api.Observation) (proto.Message, error) {
	return &oippb.ServerLiveResponse{Live: s.opts.OIP.Live()}, nil
}

func (s *server) serverReady(context.Context, *oippb.ServerReadyRequest, *api.Observation) (proto.Message, error) {
	return &oippb.ServerReadyResponse{Ready: s.opts.OIP.Ready()}, nil
}

// modelReady answers false for a model that nobody knows, as Triton does: its clients ask whether they may begin.
func (s *server) modelReady(ctx context.Context, req *oippb.ModelReadyRequest, o *api.Observation) (proto.Message, error) {
	o.Model = req.GetName()
	if err := s.may(ctx, access.Predict|access.Submit, req.GetName()); err != nil {
		return nil, err
	}
	ready, err := s.opts.OIP.ModelReady(oip.Spec(req.GetName(), req.GetVersion()))
	if err != nil && err.Reason != inference.ReasonModel {
		return nil, err
	}
	return &oippb.ModelReadyResponse{Ready: ready}, nil
}

func (s *server) serverMetadata(ctx context.Context, _ *oippb.ServerMetadataRequest, _ *api.Observation) (proto.Message, error) {
	if err := s.may(ctx, access.Predict|access.Submit, ""); err != nil {
		return nil, err
	}
	m := s.opts.OIP.Server()
	return &oippb.ServerMetadataResponse{Name: m.Name, Version: m.Version, Extensions: m.Extensions}, nil
}

// model is what a model says of itself, for those who may know.
func (s *server) model(ctx context.Context, name, version string, o *api.Observation) (*oip.ModelMetadata, error) {
	o.Model = name
	if err := s.may(ctx, access.Predict|access.Submit, name); err != nil {
		return nil, err
	}
	m, number, err := s.opts.OIP.Model(oip.Spec(name, version), "")
	o.Version = number
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (s *server) modelMetadata(ctx context.Context, req *oippb.ModelMetadataRequest, o *api.Observation) (proto.Message, error) {
	m, err := s.model(ctx, req.GetName(), req.GetVersion(), o)
	if err != nil {
		return nil, err
	}
	return &oippb.ModelMetadataResponse{Name: m.Name, Versions: m.Versions, Platform: m.Platform, Inputs: wireTensors(m.Inputs), Outputs: wireTensors(m.Outputs)}, nil
}

func wireTensors(list []oip.TensorMetadata) []*oippb.ModelMetadataResponse_TensorMetadata {
	out := make([]*oippb.ModelMetadataResponse_TensorMetadata, len(list))
	for i, t := range list {
		out[i] = &oippb.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape}
	}
	return out
}

// modelConfig is the model's metadata in the words of Triton's configuration, which its tools ask for first.
func (s *server) modelConfig(ctx context.Context, req *oippb.ModelConfigRequest, o *api.Observation) (proto.Message, error) {
	m, err := s.model(ctx, req.GetName(), req.GetVersion(), o)
	if err != nil {
		return nil, err
	}
	told := m.Config()
	c := &oippb.ModelConfig{Name: told.Name, Platform: told.Platform, Backend: told.Backend}
	for _, t := range told.Input {
		c.Input = append(c.Input, &oippb.ModelInput{Name: t.Name, DataType: oippb.DataType(oippb.DataType_value[t.DataType]), Dims: t.Dims})
	}
	for _, t := range told.Output {
		c.Output = append(c.Output, &oippb.ModelOutput{Name: t.Name, DataType: oippb.DataType(oippb.DataType_value[t.DataType]), Dims: t.Dims})
	}
	return &oippb.ModelConfigResponse{Config: c}, nil
}

func (s *server) modelStatistics(ctx context.Context, req *oippb.ModelStatisticsRequest, o *api.Observation) (proto.Message, error) {
	o.Model = req.GetName()
	if err := s.may(ctx, access.Predict|access.Submit|access.Metrics, req.GetName()); err != nil {
		return nil, err
	}
	list, bad := s.opts.OIP.Statistics(grantOf(ctx), oip.Spec(req.GetName(), req.GetVersion()))
	if bad != nil {
		return nil, bad
	}
	resp := new(oippb.ModelStatisticsResponse)
	for _, m := range list {
		w := &oippb.ModelStatistics{
			Name: m.Name, Version: m.Version, LastInference: uint64(m.LastInference), InferenceCount: uint64(m.InferenceCount), ExecutionCount: uint64(m.ExecutionCount),
			InferenceStats: &oippb.InferStatistics{
				Success: wireDuration(m.Inference.Success), Fail: wireDuration(m.Inference.Fail), Queue: wireDuration(m.Inference.Queue),
				ComputeInput: wireDuration(m.Inference.ComputeInput), ComputeInfer: wireDuration(m.Inference.ComputeInfer),
				ComputeOutput: wireDuration(m.Inference.ComputeOutput), CacheHit: wireDuration(m.Inference.CacheHit), CacheMiss: wireDuration(m.Inference.CacheMiss),
			},
		}
		for _, b := range m.Batches {
			w.BatchStats = append(w.BatchStats, &oippb.InferBatchStatistics{BatchSize: uint64(b.BatchSize), ComputeInput: wireDuration(b.ComputeInput),
				ComputeInfer: wireDuration(b.ComputeInfer), ComputeOutput: wireDuration(b.ComputeOutput)})
		}
		resp.ModelStats = append(resp.ModelStats, w)
	}
	return resp, nil
}

func wireDuration(d oip.Duration) *oippb.StatisticDuration {
	return &oippb.StatisticDuration{Count: uint64(d.Count), Ns: uint64(d.Ns)}
}

func (s *server) repositoryIndex(ctx context.Context, req *oippb.RepositoryIndexRequest, _ *api.Observation) (proto.Message, error) {
	if err := s.may(ctx, access.Predict|access.Submit, ""); err != nil {
		return nil, err
	}
	if err := oneRepository(req.GetRepositoryName()); err != nil {
		return nil, err
	}
	resp := new(oippb.RepositoryIndexResponse)
	for _, m := range s.opts.OIP.Index(grantOf(ctx), req.GetReady()) {
		resp.Models = append(resp.Models, &oippb.RepositoryIndexResponse_ModelIndex{Name: m.Name, Version: m.Version, State: m.State, Reason: m.Reason})
	}
	return resp, nil
}

func oneRepository(name string) error {
	if name == "" {
		return nil
	}
	return inference.Errorf(inference.Unimplemented, inference.ReasonInput, "repository_name %q: there is one repository here, and it has no name; leave repository_name out", oip.Cut(name))
}

func (s *server) repositoryLoad(ctx context.Context, req *oippb.RepositoryModelLoadRequest, o *api.Observation) (proto.Message, error) {
	o.Model = req.GetModelName()
	if err := oneRepository(req.GetRepositoryName()); err != nil {
		return nil, err
	}
	if err := s.opts.OIP.Load(ctx, s.oipCaller(ctx), req.GetModelName(), slices.Sorted(maps.Keys(req.GetParameters()))); err != nil {
		return nil, err
	}
	return &oippb.RepositoryModelLoadResponse{}, nil
}

func (s *server) repositoryUnload(ctx context.Context, req *oippb.RepositoryModelUnloadRequest, o *api.Observation) (proto.Message, error) {
	o.Model = req.GetModelName()
	if err := oneRepository(req.GetRepositoryName()); err != nil {
		return nil, err
	}
	if err := s.opts.OIP.Unload(ctx, s.oipCaller(ctx), req.GetModelName()); err != nil {
		return nil, err
	}
	return &oippb.RepositoryModelUnloadResponse{}, nil
}

// oipCaller is who asks. Without tokens nobody has looked at who is behind a unix socket: whom its file lets in counts as local, as for
// HandleReloadConfigRequest.
func (s *server) oipCaller(ctx context.Context) oip.Caller {
	c := oip.Caller{Grant: grantOf(ctx), Asked: s.opts.Access != nil, Name: "a client"}
	c.Local = Local(ctx)
	addr, _ := from(ctx)
	if at, tcp := addr.(*net.TCPAddr); tcp {
		c.Name = at.IP.String()
	}
	return c
}
