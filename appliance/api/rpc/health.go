// health.go: grpc.health.v1 over the states of the appliance and of each model.
package rpc

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
)

// healthServer answers from live state and keeps none of its own.
type healthServer struct {
	healthpb.UnimplementedHealthServer
	svc  *api.Service
	opts Options
}

// lookAgain is how often a watch looks when nobody tells it of changes.
const lookAgain = time.Second

// Names of the services in health checks: TensorFlow Serving's short ones, and the proto's.
var serviceNames = []string{"PredictionService", predictionService, "ModelService", modelService, inferenceService}

// state is what is known about one name now.
func (h *healthServer) state(name string) healthpb.HealthCheckResponse_ServingStatus {
	serving, known := h.look(name)
	select {
	case <-h.opts.Draining:
		serving = false
	default:
	}
	switch {
	case !known:
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	case serving:
		return healthpb.HealthCheckResponse_SERVING
	default:
		return healthpb.HealthCheckResponse_NOT_SERVING
	}
}

func (h *healthServer) look(name string) (serving, known bool) {
	if h.opts.Serving != nil {
		if serving, known := h.opts.Serving(name); known {
			return serving, true
		}
	}
	switch name {
	case "PredictionService", predictionService, inferenceService: // serves when the appliance is ready
		return h.look("")
	case "ModelService", modelService: // answers whatever the models do
		return true, true
	case "":
		if h.opts.Serving != nil {
			return false, true
		}
		for _, m := range h.svc.Models() {
			if !h.svc.Available(m) {
				return false, true
			}
		}
		return true, true
	}
	if h.opts.Serving != nil {
		return false, false
	}
	for _, m := range h.svc.Models() {
		if m == name {
			return h.svc.Available(m), true
		}
	}
	return false, false
}

// Check answers NOT_FOUND for a name that is neither "", a service, nor a model.
func (h *healthServer) Check(_ context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	st := h.state(req.GetService())
	if st == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, status.Error(codes.NotFound, truncate("unknown service "+req.GetService()+": ask for \"\", PredictionService, ModelService or the name of a model"))
	}
	return &healthpb.HealthCheckResponse{Status: st}, nil
}

// List has every name that Check knows, and of models those that the caller may know of.
func (h *healthServer) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	grant := grantOf(ctx)
	if h.opts.Access != nil {
		if err := grant.May(access.Predict|access.Submit, ""); err != nil {
			return nil, wireStatus(err)
		}
	}
	resp := &healthpb.HealthListResponse{Statuses: make(map[string]*healthpb.HealthCheckResponse)}
	models := slices.DeleteFunc(h.svc.Models(), func(m string) bool { return !grant.For(m) })
	for _, names := range [][]string{{""}, serviceNames, models} {
		for _, name := range names {
			if st := h.state(name); st != healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
				resp.Statuses[name] = &healthpb.HealthCheckResponse{Status: st}
			}
		}
	}
	return resp, nil
}

// Watch sends the state at once and then each change of it, until the client leaves or the appliance drains.
func (h *healthServer) Watch(req *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	waitOf(stream.Context()).arrived()
	ticks := (<-chan time.Time)(nil)
	if h.opts.Changed == nil {
		t := time.NewTicker(lookAgain)
		defer t.Stop()
		ticks = t.C
	}
	sent := healthpb.HealthCheckResponse_ServingStatus(-1)
	for {
		var changed <-chan struct{}
		if h.opts.Changed != nil {
			changed = h.opts.Changed() // before looking, so that no change falls in between
		}
		draining := false
		select {
		case <-h.opts.Draining:
			draining = true
		default:
		}
		if st := h.state(req.GetService()); st != sent {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: st}); err != nil {
				return err
			}
			sent = st
		}
		if draining {
			return status.Error(codes.Unavailable, "the appliance is stopping")
		}
		select {
		case <-changed:
		case <-ticks:
		case <-h.opts.Draining:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}
