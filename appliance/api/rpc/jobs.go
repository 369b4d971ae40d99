// jobs.go: inferd.v1.Jobs: predict requests that are queued, and what became of them.
package rpc

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/rpc/jobspb"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
)

const (
	jobsService = "inferd.v1.Jobs"
	maxJobWait  = time.Minute // of a Get that waits
)

// registerJobs puts the service of jobs on s.
func (s *server) registerJobs(g *grpc.Server) {
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: jobsService,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary(s, jobsService, "Submit", "submit", s.submit),
			unary(s, jobsService, "Get", "job", s.job),
			unary(s, jobsService, "Result", "job_result", s.jobResult),
			unary(s, jobsService, "Cancel", "job_cancel", s.changeJob(s.opts.Jobs.Cancel)),
			unary(s, jobsService, "Retry", "job_retry", s.changeJob(s.opts.Jobs.Retry)),
			unary(s, jobsService, "Acknowledge", "job_forget", s.acknowledge),
		},
		Metadata: jobspb.File_appliance_api_rpc_jobspb_jobs_proto.Path(),
	}, s)
}

func (s *server) submit(ctx context.Context, req *jobspb.SubmitRequest, o *api.Observation) (proto.Message, error) {
	spec, bad := ReadSpec(req.GetPredict())
	if bad != nil {
		return nil, bad
	}
	o.Model = spec.Model
	if err := s.may(ctx, access.Submit, spec.Model); err != nil {
		return nil, err
	}
	class, ok := inference.ParseClass(req.GetPriority())
	if !ok {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput,
			"priority: %s is no priority; send interactive, normal or batch, or leave it out", strconv.Quote(req.GetPriority()[:min(64, len(req.GetPriority()))]))
	}
	const most = 1 << 40 // of either; the queue has closer bounds, and says so
	it, existed, bad := s.opts.Jobs.Submit(ctx, jobs.Submission{
		Spec: spec, Kind: api.Proto, Body: req.GetPredict(), Class: class, Client: clientOf(ctx), Owner: grantOf(ctx).Name(), Key: req.GetIdempotencyKey(), Lane: req.GetOrderingKey(),
		Expires: time.Duration(min(req.GetExpiresMs(), most)) * time.Millisecond, MaxAttempts: int(min(req.GetMaxAttempts(), 1<<20)),
	})
	if bad != nil {
		return nil, bad
	}
	return s.wireJob(s.opts.Jobs.Describe(&it), it.Code, existed), nil
}

func (s *server) job(ctx context.Context, req *jobspb.GetRequest, o *api.Observation) (proto.Message, error) {
	if bad := s.mine(ctx, req.GetId()); bad != nil {
		return nil, bad
	}
	it, bad := s.opts.Jobs.Job(req.GetId())
	if wait := time.Duration(min(req.GetWaitMs(), uint64(maxJobWait.Milliseconds()))) * time.Millisecond; bad == nil && wait > 0 && !it.State.Final() {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		it, bad = s.opts.Jobs.Wait(ctx, req.GetId())
	}
	if bad != nil {
		return nil, bad
	}
	o.Model = it.Model
	return s.wireJob(s.opts.Jobs.Describe(&it), it.Code, false), nil
}

func (s *server) jobResult(ctx context.Context, req *jobspb.JobRequest, o *api.Observation) (proto.Message, error) {
	if bad := s.mine(ctx, req.GetId()); bad != nil {
		return nil, bad
	}
	result, it, bad := s.opts.Jobs.Result(req.GetId())
	o.Model = it.Model
	if bad != nil {
		return nil, bad
	}
	o.Version = it.AnsweredBy
	out := &jobspb.ResultResponse{Version: it.AnsweredBy}
	switch jobs.KindOf(&it) {
	case api.Proto:
		out.Answer = &jobspb.ResultResponse_Response{Response: result}
	case api.Raw:
		out.Answer = &jobspb.ResultResponse_Raw{Raw: result}
	default:
		out.Answer = &jobspb.ResultResponse_Json{Json: result}
	}
	return out, nil
}

// changeJob is Cancel or Retry.
func (s *server) changeJob(change func(ctx context.Context, id string) (jobs.Item, *inference.Error)) func(context.Context, *jobspb.JobRequest, *api.Observation) (proto.Message, error) {
	return func(ctx context.Context, req *jobspb.JobRequest, o *api.Observation) (proto.Message, error) {
		if bad := s.mine(ctx, req.GetId()); bad != nil {
			return nil, bad
		}
		it, bad := change(ctx, req.GetId())
		if bad != nil {
			return nil, bad
		}
		o.Model = it.Model
		return s.wireJob(s.opts.Jobs.Describe(&it), it.Code, false), nil
	}
}

func (s *server) acknowledge(ctx context.Context, req *jobspb.JobRequest, _ *api.Observation) (proto.Message, error) {
	if bad := s.mine(ctx, req.GetId()); bad != nil {
		return nil, bad
	}
	if bad := s.opts.Jobs.Forget(ctx, req.GetId()); bad != nil {
		return nil, bad
	}
	return &jobspb.AcknowledgeResponse{}, nil
}

func (s *server) wireJob(j jobs.Job, code int, existed bool) *jobspb.Job {
	ms := func(t *time.Time) int64 {
		if t == nil {
			return 0
		}
		return t.UnixMilli()
	}
	out := &jobspb.Job{
		Id: j.ID, State: j.State, Model: j.Model, Version: j.Version, Label: j.Label, Priority: j.Priority, OrderingKey: j.OrderingKey,
		Attempts: uint32(j.Attempts), MaxAttempts: uint32(j.MaxAttempts), Deaths: uint32(j.Deaths), Interruptions: uint32(j.Interruptions),
		SubmittedMs: ms(&j.Submitted), ExpiresMs: ms(j.Expires), FinishedMs: ms(j.Finished), Reason: j.Reason, Error: j.Error, Existed: existed,
	}
	if j.Error != "" {
		out.Code = int32(code)
	}
	return out
}

// clientOf is the address at the other end, zero over a unix socket.
func clientOf(ctx context.Context) netip.Addr {
	if addr, _ := from(ctx); addr != nil {
		if tcp, ok := addr.(*net.TCPAddr); ok {
			return tcp.AddrPort().Addr()
		}
	}
	return netip.Addr{}
}
