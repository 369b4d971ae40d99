// e2e_jobsgrpc_test.go: jobs over gRPC, and over both doors at once.
package appliance

import (
	"context"
	"testing"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"

	"github.com/inferd/inferd/appliance/api/rpc/jobspb"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

func TestJobsOverGRPC(t *testing.T) {
	s := serve(t, nil)
	s.publish("half", 1, modeltest.HalfPlusTwo())
	s.publish("slow", 1, modeltest.Slow(2000))
	s.live("half", 1)
	s.live("slow", 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	invoke := func(method string, req, resp proto.Message) error {
		return s.conn.Invoke(ctx, "/inferd.v1.Jobs/"+method, req, resp)
	}
	predict := func(model string, x ...float32) []byte {
		b, err := proto.Marshal(&pb.PredictRequest{ModelSpec: &pb.ModelSpec{Name: model}, Inputs: map[string]*tensorpb.TensorProto{"x": column(x...)}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	job := new(jobspb.Job)
	if err := invoke("Submit", &jobspb.SubmitRequest{Predict: predict("half", 2, 4), IdempotencyKey: "k", Priority: "interactive", ExpiresMs: 60_000, MaxAttempts: 5, OrderingKey: "l"}, job); err != nil {
		t.Fatal(err)
	}
	if job.State != "queued" || job.Model != "half" || job.Priority != "interactive" || job.MaxAttempts != 5 || job.ExpiresMs-job.SubmittedMs != 60_000 || job.Existed {
		t.Errorf("submitted: %v", job)
	}
	id := job.Id
	for job.FinishedMs == 0 {
		if err := invoke("Get", &jobspb.GetRequest{Id: id, WaitMs: 5000}, job); err != nil {
			t.Fatal(err)
		}
	}
	result := new(jobspb.ResultResponse)
	if err := invoke("Result", &jobspb.JobRequest{Id: id}, result); err != nil || job.State != "done" || result.Version != 1 {
		t.Fatalf("%v: %v %v", job, result, err)
	}
	answer := new(pb.PredictResponse)
	if err := proto.Unmarshal(result.GetResponse(), answer); err != nil {
		t.Fatal(err)
	}
	if y := answer.GetOutputs()["y"].GetFloatVal(); len(y) != 2 || y[0] != 3 || y[1] != 4 || answer.GetModelSpec().GetName() != "half" {
		t.Errorf("answered %v", answer)
	}
	if code, body, h := s.call("GET", "/v1/jobs/"+id+"/result", ""); code != 200 || body != string(result.GetResponse()) || h.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("over REST: %d, %d bytes of %s", code, len(body), h.Get("Content-Type"))
	}
	again := new(jobspb.Job)
	if err := invoke("Submit", &jobspb.SubmitRequest{Predict: predict("half", 2, 4), IdempotencyKey: "k"}, again); err != nil || again.Id != id || !again.Existed {
		t.Errorf("the same again: %v %v", again, err)
	}

	running := new(jobspb.Job)
	if err := invoke("Submit", &jobspb.SubmitRequest{Predict: predict("slow", 1)}, running); err != nil {
		t.Fatal(err)
	}
	err := invoke("Result", &jobspb.JobRequest{Id: running.Id}, result)
	st := status.Convert(err)
	if st.Code() != codes.FailedPrecondition || len(st.Details()) != 2 || st.Details()[0].(*errdetails.ErrorInfo).Reason != "state" {
		t.Errorf("the result of what runs: %v %v", err, st.Details())
	}
	if err := invoke("Cancel", &jobspb.JobRequest{Id: running.Id}, job); err != nil || job.State != "cancelled" || job.Code != 1 {
		t.Errorf("cancelled: %v %v", job, err)
	}
	if err := invoke("Retry", &jobspb.JobRequest{Id: running.Id}, job); err != nil || job.State != "queued" {
		t.Errorf("tried again: %v %v", job, err)
	}
	if err := invoke("Acknowledge", &jobspb.JobRequest{Id: id}, new(jobspb.AcknowledgeResponse)); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		method string
		req    proto.Message
		code   codes.Code
	}{
		"acknowledged":      {"Get", &jobspb.GetRequest{Id: id}, codes.NotFound},
		"no such job":       {"Cancel", &jobspb.JobRequest{Id: "x"}, codes.NotFound},
		"it waits":          {"Acknowledge", &jobspb.JobRequest{Id: running.Id}, codes.FailedPrecondition},
		"no request":        {"Submit", &jobspb.SubmitRequest{}, codes.InvalidArgument},
		"no PredictRequest": {"Submit", &jobspb.SubmitRequest{Predict: []byte("\x0a\xff")}, codes.InvalidArgument},
		"no such model":     {"Submit", &jobspb.SubmitRequest{Predict: predict("nobody", 1)}, codes.NotFound},
		"wrong priority":    {"Submit", &jobspb.SubmitRequest{Predict: predict("half", 1), Priority: "now"}, codes.InvalidArgument},
		"attempts":          {"Submit", &jobspb.SubmitRequest{Predict: predict("half", 1), MaxAttempts: 1 << 31}, codes.InvalidArgument},
		"another request":   {"Submit", &jobspb.SubmitRequest{Predict: predict("slow", 1), IdempotencyKey: "k2", ExpiresMs: 1 << 63}, codes.InvalidArgument},
	} {
		if err := invoke(c.method, c.req, new(jobspb.Job)); status.Code(err) != c.code {
			t.Errorf("%s: %v, want %v", name, err, c.code)
		}
	}
}
