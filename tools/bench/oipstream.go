// oipstream.go: the Open Inference Protocol over gRPC: a stream against single calls.
package main

import (
	"fmt"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/api/rpc/oippb"
	"github.com/inferd/inferd/tools/measure"
)

const (
	inferMethod  = "/inference.GRPCInferenceService/ModelInfer"
	streamMethod = "/inference.GRPCInferenceService/ModelStreamInfer"
)

// oipStream holds a stream with 64 requests in flight against 64 single calls, each over a connection of its own.
func (b *bench) oipStream() error {
	s, err := b.serve(filepath.Join(b.work, "models"))
	if err != nil {
		return err
	}
	defer s.stop()
	data, want, err := smallInput()
	if err != nil {
		return err
	}
	msg, err := proto.Marshal(&oippb.ModelInferRequest{ModelName: "two_layer", RawInputContents: [][]byte{data.Data},
		Inputs: []*oippb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1, 32}}}})
	if err != nil {
		return err
	}
	checked := false
	look := func(answer []byte) error {
		var got oippb.ModelStreamInferResponse
		if checked {
			return nil
		}
		checked = true
		if err := proto.Unmarshal(answer, &got); err != nil || len(got.GetInferResponse().GetRawOutputContents()) != 1 {
			return fmt.Errorf("answered %v: %w", &got, err)
		}
		return near(floats(got.InferResponse.RawOutputContents[0]), want)
	}
	stream := func() (float64, error) {
		before := measure.TreeCPU(s.cmd.Process.Pid)
		rate, err := measure.StreamRate(s.grpc, streamMethod, msg, inFlight, b.each, look)
		s.cpu += measure.TreeCPU(s.cmd.Process.Pid) - before
		s.calls += rate * b.each.Seconds()
		return rate, err
	}
	single := *s // its processor time is counted apart
	r, err := measure.Pairs("ModelStreamInfer, small model, 64 in flight / ModelInfer, 64 calls", "calls/s", 1.2, b.n, stream,
		func() (float64, error) {
			return single.rate(connections, b.each, measure.LightCaller(s.grpc, inferMethod, msg))
		})
	if err != nil {
		return err
	}
	fmt.Println(r.Report())
	fmt.Printf("  processor time of the servers per call: %.1f us over %.1f us\n", s.cost(), single.cost())
	return nil
}
