// load.go: who asks, all at once and at a measured pace: the question is not how much inferd bears but what it holds after.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typepb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	serving "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	client "github.com/inferd/inferd/clients/go"
)

type counts struct {
	rest, grpc, frames, durable, jobs, swaps atomic.Int64
}

func (c *counts) String() string {
	return fmt.Sprintf("%d REST, %d gRPC, %d frames, %d durable frames, %d jobs, %d swaps",
		c.rest.Load(), c.grpc.Load(), c.frames.Load(), c.durable.Load(), c.jobs.Load(), c.swaps.Load())
}

// idle names a kind of load of which there was none.
func (c *counts) idle() string {
	for name, n := range map[string]*atomic.Int64{"REST": &c.rest, "gRPC": &c.grpc, "frames": &c.frames, "durable frames": &c.durable, "jobs": &c.jobs, "swaps": &c.swaps} {
		if n.Load() == 0 {
			return name
		}
	}
	return ""
}

// load starts everybody. What goes wrong comes over the channel, which is closed when all have ended after ctx.
func (s *soak) load(ctx context.Context) <-chan error {
	faults := make(chan error, 16) // as many as there are starters, one each at most
	var wg sync.WaitGroup
	begin := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				faults <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	for range 2 {
		begin("REST", s.askREST)
		begin("gRPC", s.askGRPC)
		begin("jobs", s.runJobs)
	}
	begin("WebSocket", s.stream)
	begin("swaps", s.swap)
	switch s.leak {
	case "memory":
		begin("leaky model", s.feedLeaky)
	case "descriptors":
		begin("idle connections", s.keepConnections)
	}
	go func() {
		wg.Wait()
		close(faults)
	}()
	return faults
}

// post sends a body and returns the answer's only number.
func (s *soak) post(ctx context.Context, h *http.Client, model string, x float64) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.http+"/v1/models/"+model+":predict", strings.NewReader(fmt.Sprintf(`{"instances": [[%v]]}`, x)))
	if err != nil {
		return 0, err
	}
	resp, err := h.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read, or ReadAll says so
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	return only(b)
}

// only is the one number of {"predictions": [[y]]}, or of [[y]].
func only(b []byte) (float64, error) {
	var got struct{ Predictions [][]float64 }
	err := json.Unmarshal(b, &got)
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("[")) {
		err = json.Unmarshal(b, &got.Predictions)
	}
	if err != nil || len(got.Predictions) != 1 || len(got.Predictions[0]) != 1 {
		return 0, fmt.Errorf("answered %.200q", b)
	}
	return got.Predictions[0][0], nil
}

func (s *soak) askREST(ctx context.Context) error {
	h := &http.Client{Transport: &http.Transport{}}
	defer h.CloseIdleConnections()
	for x := 0.0; wait(ctx, 4*time.Millisecond); x = float64(int(x+1) % 1000) {
		y, err := s.post(ctx, h, "half", x)
		if err == nil && y != x/2+2 {
			err = fmt.Errorf("half of %v is %v", x, y)
		}
		if err == nil && int(x)%4 == 0 {
			if y, err = s.post(ctx, h, "swapped", x); err == nil && y < x+1 {
				err = fmt.Errorf("swapped of %v is %v", x, y)
			}
		}
		if err != nil {
			return err
		}
		s.counts.rest.Add(1)
	}
	return nil
}

// answers reports whether that version of the model that is replaced is the one that answers.
func (s *soak) answers(version int64) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	y, err := s.post(ctx, http.DefaultClient, "swapped", 0)
	return err == nil && y == float64(version)
}

func (s *soak) askGRPC(ctx context.Context) error {
	conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for x := float32(0); wait(ctx, 4*time.Millisecond); x = float32(int(x+1) % 1000) {
		req := &serving.PredictRequest{ModelSpec: &serving.ModelSpec{Name: "half"}, Inputs: map[string]*pb.TensorProto{"x": {
			Dtype: typepb.DataType_DT_FLOAT, FloatVal: []float32{x},
			TensorShape: &shapepb.TensorShapeProto{Dim: []*shapepb.TensorShapeProto_Dim{{Size: 1}, {Size: 1}}},
		}}}
		var answer serving.PredictResponse
		if err := conn.Invoke(ctx, "/tensorflow.serving.PredictionService/Predict", req, &answer); err != nil {
			return err
		}
		if y := answer.Outputs["y"].GetFloatVal(); len(y) != 1 || y[0] != x/2+2 {
			return fmt.Errorf("half of %v is %v", x, answer.Outputs)
		}
		s.counts.grpc.Add(1)
	}
	return nil
}

// runJobs submits, waits, checks and acknowledges; with the leak of disk it does not acknowledge.
func (s *soak) runJobs(ctx context.Context) error {
	c, err := client.New("http://"+s.http, client.Options{})
	if err != nil {
		return err
	}
	defer c.CloseIdle()
	more := ""
	if s.leak == "disk" {
		for range 4000 {
			more += fmt.Sprintf(", [%v]", rand.Float32())
		}
	}
	for x := 0.0; wait(ctx, 20*time.Millisecond); x++ {
		job, err := c.Submit(ctx, client.Submission{Model: "half", Body: fmt.Appendf(nil, `{"instances": [[%v]%s]}`, x, more)})
		if err != nil {
			return err
		}
		answer, err := c.Result(ctx, job.ID)
		if err != nil {
			return err
		}
		if y, err := only(answer); s.leak == "" && (err != nil || y != x/2+2) {
			return fmt.Errorf("job %s: half of %v is %v, %w", job.ID, x, y, err)
		}
		if s.leak != "disk" {
			if err := c.Forget(ctx, job.ID); err != nil {
				return err
			}
		}
		s.counts.jobs.Add(1)
	}
	return nil
}

// stream sends durable and other frames over one connection and acknowledges what comes; every minute it makes a new one.
func (s *soak) stream(ctx context.Context) error {
	c, err := client.New("http://"+s.http, client.Options{})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := s.connection(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (s *soak) connection(ctx context.Context, c *client.Client) error {
	st := c.Stream(client.StreamOptions{})
	defer func() { _ = st.Close() }()
	received := make(chan error, 1)
	go func() {
		for {
			r, err := st.Recv(ctx)
			if errors.Is(err, io.EOF) {
				received <- nil
				return
			}
			if err == nil {
				err = r.Err
			}
			if err == nil {
				_, err = only(r.Predictions)
			}
			if err != nil {
				received <- err
				return
			}
			if r.Seq > 0 {
				st.Ack(r)
				s.counts.durable.Add(1)
			} else {
				s.counts.frames.Add(1)
			}
		}
	}()
	end := time.Now().Add(20 * time.Second)
	for n := 0; time.Now().Before(end) && wait(ctx, 5*time.Millisecond); n++ {
		err := st.Send(ctx, client.Request{Model: "half", Instances: [][]float64{{float64(n)}}, Durable: n%4 == 0})
		if err != nil {
			return err
		}
		select {
		case err := <-received:
			return err
		default:
		}
	}
	st.CloseSend()
	return <-received
}

func (s *soak) feedLeaky(ctx context.Context) error {
	h := &http.Client{Transport: &http.Transport{}}
	defer h.CloseIdleConnections()
	for wait(ctx, 20*time.Millisecond) {
		if _, err := s.post(ctx, h, "leaky", 1); err != nil && s.ready("leaky") {
			return err
		}
	}
	return nil
}

// keepConnections opens connections that say nothing, faster than inferd gives them up.
func (s *soak) keepConnections(ctx context.Context) error {
	var all []net.Conn
	defer func() {
		for _, c := range all {
			_ = c.Close()
		}
	}()
	for wait(ctx, 200*time.Millisecond) {
		c, err := net.Dial("tcp", s.grpc)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	return nil
}
