// model.go: the rarer methods: metadata, status and reload.
package rpc

import (
	"context"

	corepb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	config "github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// signatureDefField is the only metadata_field there is.
const signatureDefField = "signature_def"

// spec is the generated ModelSpec as the catalog is asked for it.
func spec(m *pb.ModelSpec) (inference.Spec, error) {
	if m == nil {
		return inference.Spec{}, errMissingSpec()
	}
	w := request{hasSpec: true, spec: wireSpec{name: []byte(m.Name)}}
	switch c := m.VersionChoice.(type) {
	case *pb.ModelSpec_Version:
		w.spec.choice, w.spec.version = choiceVersion, c.Version.GetValue()
	case *pb.ModelSpec_VersionLabel:
		w.spec.choice, w.spec.label = choiceLabel, []byte(c.VersionLabel)
	}
	return w.modelSpec()
}

func (s *server) metadata(ctx context.Context, req *pb.GetModelMetadataRequest, o *api.Observation) (proto.Message, error) {
	want, err := spec(req.ModelSpec)
	if err != nil && req.ModelSpec == nil {
		return nil, err
	}
	if len(req.MetadataField) == 0 {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "GetModelMetadataRequest must specify at least one metadata_field")
	}
	for _, f := range req.MetadataField {
		if f != signatureDefField {
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Metadata field %s is not supported", f)
		}
	}
	if err != nil {
		return nil, err
	}
	o.Model = want.Model
	if err := s.may(ctx, access.Predict|access.Submit, want.Model); err != nil {
		return nil, err
	}
	want.Steady = true
	h, err := s.svc.Acquire(want)
	if err != nil {
		return nil, err
	}
	defer h.Release()
	v := h.Version()
	o.Version = v.Number
	packed, err := anypb.New(&pb.SignatureDefMap{SignatureDef: withoutDefaults(v.Defs)})
	if err != nil {
		return nil, err
	}
	return &pb.GetModelMetadataResponse{
		ModelSpec: &pb.ModelSpec{Name: v.Model, VersionChoice: &pb.ModelSpec_Version{Version: wrapperspb.Int64(v.Number)}},
		Metadata:  map[string]*anypb.Any{signatureDefField: packed},
	}, nil
}

// withoutDefaults are the same definitions, which are shared and not changed, without the default values of inputs: TensorFlow Serving
// stopped to send those in 2.20.
func withoutDefaults(defs map[string]*corepb.SignatureDef) map[string]*corepb.SignatureDef {
	stripped := make(map[string]*corepb.SignatureDef, len(defs))
	for key, def := range defs {
		if len(def.GetDefaults()) > 0 {
			def = proto.CloneOf(def)
			def.Defaults = nil
		}
		stripped[key] = def
	}
	return stripped
}

func (s *server) status(ctx context.Context, req *pb.GetModelStatusRequest, o *api.Observation) (proto.Message, error) {
	want, err := spec(req.ModelSpec)
	if err != nil {
		return nil, err
	}
	o.Model = want.Model
	if err := s.may(ctx, access.Predict|access.Submit, want.Model); err != nil {
		return nil, err
	}
	versions, err := s.svc.Status(want)
	if err != nil {
		return nil, err
	}
	resp := &pb.GetModelStatusResponse{ModelVersionStatus: make([]*pb.ModelVersionStatus, len(versions))}
	for i, v := range versions {
		st := &pb.StatusProto{ErrorCode: corepb.Code(v.Code), ErrorMessage: v.Message}
		resp.ModelVersionStatus[i] = &pb.ModelVersionStatus{Version: v.Version, State: pb.ModelVersionStatus_State(v.State), Status: st}
	}
	return resp, nil
}

func (s *server) reload(ctx context.Context, req *pb.ReloadConfigRequest, _ *api.Observation) (proto.Message, error) {
	if err := s.may(ctx, access.Admin, ""); err != nil {
		return nil, err
	}
	if s.opts.Reload == nil {
		return nil, inference.Errorf(inference.Unimplemented, inference.ReasonInput,
			"HandleReloadConfigRequest is switched off here: this server takes its models from its own configuration and from the models directory; change those instead.")
	}
	if _, ok := req.GetConfig().GetConfig().(*config.ModelServerConfig_ModelConfigList); !ok {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput,
			"ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported")
	}
	if len(req.MetricNames) > maxMetricNames {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "metric_names has %d names, at most %d are possible", len(req.MetricNames), maxMetricNames)
	}
	before := s.counters(req.MetricNames)
	if err := s.opts.Reload(ctx, req.Config); err != nil {
		return nil, err
	}
	resp := &pb.ReloadConfigResponse{Status: &pb.StatusProto{}}
	for i, after := range s.counters(req.MetricNames) {
		resp.Metric = append(resp.Metric, &pb.Metric{Name: req.MetricNames[i], ValueIncrease: &pb.Metric_Int64ValueIncrease{Int64ValueIncrease: after - before[i]}})
	}
	return resp, nil
}

// maxMetricNames bounds what one reload may ask about.
const maxMetricNames = 1000

func (s *server) counters(names []string) []int64 {
	if len(names) == 0 || s.opts.Counters == nil {
		return make([]int64, len(names))
	}
	return s.opts.Counters(names)
}
