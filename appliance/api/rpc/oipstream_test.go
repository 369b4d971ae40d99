// oipstream_test.go: ModelStreamInfer: many in flight, errors of their own, and clients that do not keep to it.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inferd/inferd/appliance/api/rpc/oippb"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// inferStreamClient is the client's end of a stream.
type inferStreamClient struct {
	t *testing.T
	grpc.ClientStream
}

func (r *rig) openStream(ctx context.Context, t *testing.T) *inferStreamClient {
	t.Helper()
	s, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+inferenceService+"/ModelStreamInfer")
	if err != nil {
		t.Fatal(err)
	}
	return &inferStreamClient{t, s}
}

func (c *inferStreamClient) send(req *oippb.ModelInferRequest) {
	c.t.Helper()
	if err := c.SendMsg(req); err != nil {
		c.t.Fatal(err)
	}
}

func (c *inferStreamClient) take() *oippb.ModelStreamInferResponse {
	c.t.Helper()
	resp := new(oippb.ModelStreamInferResponse)
	if err := c.RecvMsg(resp); err != nil {
		c.t.Fatal(err)
	}
	return resp
}

// end is how the stream ends, after what is still to come.
func (c *inferStreamClient) end() (answers int, err error) {
	for {
		if err := c.RecvMsg(new(oippb.ModelStreamInferResponse)); err != nil {
			return answers, err
		}
		answers++
	}
}

// gated publishes "gated", whose answers for x wait until release of x. entered has what has come to it.
func (r *rig) gated(t *testing.T) (entered chan byte, release map[byte]chan struct{}) {
	t.Helper()
	entered, release = make(chan byte, 1000), map[byte]chan struct{}{0: make(chan struct{}), 128: make(chan struct{})}
	r.publish(t, &inference.Version{Model: "gated", Number: 1, Signatures: map[string]*inference.Signature{
		"serving_default": signature("serving_default", []inference.TensorInfo{info("x", tensor.Float, -1, 1)}, []inference.TensorInfo{info("y", tensor.Float, -1, 1)})}},
		func(ctx context.Context, req *inference.Request) ([]*tensor.Tensor, error) {
			x := req.Inputs[0].Data[2]
			entered <- x
			select {
			case <-release[x]:
				return halfPlusTwo(ctx, req)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
	return entered, release
}

func askGated(id string, x byte) *oippb.ModelInferRequest {
	req := askHalf(id, x)
	req.ModelName = "gated"
	return req
}

func TestStreamAnswersInOrderOfCompletion(t *testing.T) {
	r := start(t, Options{})
	entered, release := r.gated(t)
	c := r.openStream(t.Context(), t)
	c.send(askGated("first", 0))
	c.send(askGated("second", 128))
	<-entered
	<-entered // both run at once
	close(release[128])
	if got := c.take(); got.InferResponse.GetId() != "second" || got.ErrorMessage != "" || got.InferResponse.RawOutputContents[0][2] != 128 {
		t.Errorf("%v", got)
	}
	close(release[0])
	if got := c.take(); got.InferResponse.GetId() != "first" || got.InferResponse.ModelVersion != "1" {
		t.Errorf("%v", got)
	}
	if err := c.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.end(); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d more, %v", n, err)
	}
	r.finished(t, 2)
}

// TestStreamErrorsAreTheRequests: what is wrong with one request is said with its id, and the others are answered.
func TestStreamErrorsAreTheRequests(t *testing.T) {
	r := start(t, Options{})
	r.publishHalf(t, 1)
	c := r.openStream(t.Context(), t)
	bad := askHalf("bad", 0)
	bad.ModelName = "nobody"
	for _, step := range []struct {
		req  *oippb.ModelInferRequest
		text string
	}{{askHalf("good", 0), ""}, {bad, "Request for unknown model: 'nobody' is not found"}, {&oippb.ModelInferRequest{Id: "empty"}, "no name"}, {askHalf("again", 0), ""}} {
		c.send(step.req)
		got := c.take()
		if got.InferResponse.GetId() != step.req.Id || (got.ErrorMessage == "") != (step.text == "") || !strings.Contains(got.ErrorMessage, step.text) {
			t.Errorf("%s: %v, want %q", step.req.Id, got, step.text)
		}
		if n := len(got.InferResponse.GetOutputs()); (n == 0) != (step.text != "") {
			t.Errorf("%s: %d outputs", step.req.Id, n)
		}
	}
	final := askHalf("final", 0)
	final.Parameters = params("triton_enable_empty_final_response", boolParam(true))
	c.send(final)
	if got := c.take(); !got.InferResponse.GetParameters()["triton_final_response"].GetBoolParam() {
		t.Errorf("%v", got)
	}
	if err := c.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.end(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	codes := map[inference.Code]int{}
	for _, o := range r.finished(t, 5) {
		codes[o.Code]++
	}
	if codes[inference.OK] != 3 || codes[inference.NotFound] != 1 || codes[inference.InvalidArgument] != 1 {
		t.Errorf("%v", codes)
	}
}

func TestStreamGoesOnAfterWhatCannotBeParsed(t *testing.T) {
	r := start(t, Options{})
	s, err := r.conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/"+inferenceService+"/ModelStreamInfer", grpc.ForceCodecV2(bytesCodec{}))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.SendMsg([]byte{0x1a, 1, '7', 0x0a, 99}); err != nil { // an id, and a name that does not end
			t.Fatal(err)
		}
		n := 0
		if err := s.RecvMsg(&n); err != nil || n < 50 {
			t.Fatal(n, err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := s.RecvMsg(&n); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	r.finished(t, 3)
}

// TestStreamIsBounded: no more than so many requests of one stream are in flight; the others wait unread.
func TestStreamIsBounded(t *testing.T) {
	const bound, sent = 5, 40
	r := start(t, Options{StreamRequests: bound})
	entered, release := r.gated(t)
	c := r.openStream(t.Context(), t)
	for i := range sent {
		c.send(askGated(fmt.Sprint(i), 0))
	}
	for range bound {
		<-entered
	}
	one := r.openStream(t.Context(), t) // another stream has a bound of its own, and when its request has come all others could have
	one.send(askGated("other", 128))
	if x := <-entered; x != 128 {
		t.Errorf("more than %d requests of one stream are in flight", bound)
	}
	close(release[128])
	one.take()
	close(release[0])
	seen := map[string]bool{}
	for range sent {
		seen[c.take().InferResponse.GetId()] = true
	}
	if len(seen) != sent {
		t.Errorf("%d different answers", len(seen))
	}
	for _, s := range []*inferStreamClient{c, one} {
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.end(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
	r.finished(t, sent+1)
}

// TestStreamOfAClientThatDoesNotRead: it is read from no more once the bounds are full, and its stream ends with the reason.
func TestStreamOfAClientThatDoesNotRead(t *testing.T) {
	r := start(t, Options{StreamRequests: 4, SlowTimeout: 300 * time.Millisecond})
	const bytes = 256 << 10
	var runs atomic.Int64
	r.publish(t, &inference.Version{Model: "wide", Number: 1, Signatures: map[string]*inference.Signature{
		"serving_default": signature("serving_default", []inference.TensorInfo{info("x", tensor.Float, -1, 1)}, []inference.TensorInfo{info("y", tensor.Uint8, -1)})}},
		func(context.Context, *inference.Request) ([]*tensor.Tensor, error) {
			runs.Add(1)
			return []*tensor.Tensor{{DType: tensor.Uint8, Shape: tensor.Shape{bytes}, Data: make([]byte, bytes)}}, nil
		})
	c := r.openStream(t.Context(), t)
	sent := make(chan int)
	go func() {
		n := 0
		for ; n < 100_000; n++ {
			req := askHalf(fmt.Sprint(n), 0)
			req.ModelName = "wide"
			if c.SendMsg(req) != nil {
				break
			}
		}
		sent <- n
	}()
	// The server has ended it once it has observed that; the client learns of it when it reads.
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r.mu.Lock()
		n := 0
		for _, o := range r.observed {
			if o.Method == "stream" {
				n++
			}
		}
		r.mu.Unlock()
		if n > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the stream was not ended")
		}
	}
	if n := runs.Load(); n < 1 || n > 200 { // what fits the windows of a fast connection, 16 MB at most, and the four in flight
		t.Errorf("%d requests were served for a client that reads nothing", n)
	}
	_, err := c.end()
	if st := status.Convert(err); st.Code() != codes.ResourceExhausted || !strings.Contains(st.Message(), "was not taken for 300ms (limits.slow_timeout)") {
		t.Errorf("%v", err)
	}
	if n := <-sent; n == 100_000 {
		t.Error("all requests were taken")
	}
	got := new(oippb.ServerLiveResponse) // the connection is as good as before
	if err := r.oip(t.Context(), "ServerLive", &oippb.ServerLiveRequest{}, got); err != nil || !got.Live {
		t.Error(err)
	}
}

// TestStreamEndsWithTheAppliance: what was read is answered, and a silent client is not waited for.
func TestStreamEndsWithTheAppliance(t *testing.T) {
	draining := make(chan struct{})
	r := start(t, Options{Draining: draining})
	entered, release := r.gated(t)
	c, silent := r.openStream(t.Context(), t), r.openStream(t.Context(), t)
	c.send(askGated("last", 0))
	<-entered
	close(draining)
	if _, err := silent.end(); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	close(release[0])
	if got := c.take(); got.InferResponse.GetId() != "last" || got.ErrorMessage != "" {
		t.Errorf("%v", got)
	}
	if _, err := c.end(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "inferd is stopping") {
		t.Error(err)
	}
	r.server.GracefulStop() // does not wait for ever
}

// TestStreamOfAClientThatLeaves: its requests end, and nothing is left of them.
func TestStreamOfAClientThatLeaves(t *testing.T) {
	r := start(t, Options{})
	entered, _ := r.gated(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := r.openStream(ctx, t)
	for i := range 3 {
		c.send(askGated(fmt.Sprint(i), 0))
	}
	for range 3 {
		<-entered
	}
	cancel()
	if _, err := c.end(); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	for i, o := range r.finished(t, 4) {
		if o.Code != inference.Canceled {
			t.Errorf("observation %d: %+v", i, o)
		}
	}
}

func TestStreamSurvivesPanic(t *testing.T) {
	r := start(t, Options{})
	r.publishHalf(t, 1)
	r.publish(t, &inference.Version{Model: "gated", Number: 1, Signatures: map[string]*inference.Signature{
		"serving_default": signature("serving_default", []inference.TensorInfo{info("x", tensor.Float, -1, 1)}, nil)}},
		func(context.Context, *inference.Request) ([]*tensor.Tensor, error) { panic("a fault") })
	c := r.openStream(t.Context(), t)
	c.send(askGated("p", 0))
	if got := c.take(); got.InferResponse.GetId() != "p" || !strings.Contains(got.ErrorMessage, "failed inside") {
		t.Errorf("%v", got)
	}
	c.send(askHalf("q", 0))
	if got := c.take(); got.ErrorMessage != "" {
		t.Errorf("%v", got)
	}
}

func TestStreamMessageTooLarge(t *testing.T) {
	r := start(t, Options{MaxRequestBytes: 1 << 10})
	c := r.openStream(t.Context(), t)
	req := askHalf("big", 0)
	req.RawInputContents[0] = make([]byte, 1<<11)
	c.send(req)
	if _, err := c.end(); status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
	if o := r.finished(t, 1)[0]; o.Reason != inference.ReasonTooLarge {
		t.Errorf("%+v", o)
	}
}
