// wire.go: REST and gRPC with the small model against handlers that do nothing, and MobileNetV2 against bare TensorFlow.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	framework "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	serving "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/inference/tfrt"
	"github.com/inferd/inferd/tools/measure"
)

const (
	connections = 64
	predict     = "/tensorflow.serving.PredictionService/Predict"
	restPath    = "/v1/models/two_layer:predict"
)

// randomFloats has n values in [0, 1), the same for the same n.
func randomFloats(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, 0, 4*n)
	for range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(r.Float32()))
	}
	return b
}

// jsonBody is the predict request for one row of floats, nested as shape says.
func jsonBody(data []byte, shape ...int) ([]byte, error) {
	return json.Marshal(map[string]any{"instances": []any{nest(data, shape)}})
}

func nest(data []byte, shape []int) any {
	if len(shape) == 1 {
		out := make([]float32, shape[0])
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
		return out
	}
	out := make([]any, shape[0])
	per := len(data) / shape[0]
	for i := range out {
		out[i] = nest(data[i*per:(i+1)*per], shape[1:])
	}
	return out
}

// message is the gRPC predict request with tensor_content.
func message(model, input string, data []byte, shape ...int64) ([]byte, error) {
	s := &shapepb.TensorShapeProto{}
	for _, d := range shape {
		s.Dim = append(s.Dim, &shapepb.TensorShapeProto_Dim{Size: d})
	}
	return proto.Marshal(&serving.PredictRequest{ModelSpec: &serving.ModelSpec{Name: model},
		Inputs: map[string]*framework.TensorProto{input: {Dtype: typespb.DataType_DT_FLOAT, TensorShape: s, TensorContent: data}}})
}

// smallRequests are the same row for the small model over REST and over gRPC.
func smallRequests() (body, msg []byte, err error) {
	data := randomFloats(32)
	if body, err = jsonBody(data, 32); err == nil {
		msg, err = message("two_layer", "x", data, 1, 32)
	}
	return body, msg, err
}

// checkSmall asks the small model once over each protocol, holds the answers against the right one, and returns their sizes.
func checkSmall(s *server, body, msg []byte) (rest, grpc int, err error) {
	_, want, err := smallInput()
	if err != nil {
		return 0, 0, err
	}
	answer, err := post(s.http, restPath, body)
	if err != nil {
		return 0, 0, err
	}
	if err := nearJSON(answer, want); err != nil {
		return 0, 0, fmt.Errorf("REST: %w", err)
	}
	l, err := measure.DialLight(s.grpc, predict, msg)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = l.Close() }()
	if err := l.Call(); err != nil {
		return 0, 0, err
	}
	if err := nearProto(l.Answer, "y", want); err != nil {
		return 0, 0, fmt.Errorf("gRPC: %w", err)
	}
	return len(answer), len(l.Answer), nil
}

// post asks once over REST.
func post(address, path string, body []byte) ([]byte, error) {
	resp, err := http.Post("http://"+address+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return answer, err
}

func floats(data []byte) []float32 {
	out := make([]float32, len(data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return out
}

// near holds an answer against the right one: figures of a server that answers wrongly mean nothing.
func near(got, want []float32) error {
	if len(got) != len(want) {
		return fmt.Errorf("answered %d numbers where %d are right", len(got), len(want))
	}
	for i := range got {
		if d := math.Abs(float64(got[i] - want[i])); !(d <= 1e-4*math.Max(1, math.Abs(float64(want[i])))) {
			return fmt.Errorf("answered %v where %v is right", got, want)
		}
	}
	return nil
}

func nearJSON(answer []byte, want []float32) error {
	var got struct{ Predictions [][]float32 }
	if err := json.Unmarshal(answer, &got); err != nil || len(got.Predictions) != 1 {
		return fmt.Errorf("answered %.200q: %w", answer, err)
	}
	return near(got.Predictions[0], want)
}

func nearProto(answer []byte, output string, want []float32) error {
	var got serving.PredictResponse
	if err := proto.Unmarshal(answer, &got); err != nil {
		return err
	}
	t := got.Outputs[output]
	if len(t.GetFloatVal()) > 0 {
		return near(t.GetFloatVal(), want)
	}
	return near(floats(t.GetTensorContent()), want)
}

// small is inferd with the small model, and the handlers that do nothing with answers of the same sizes.
func (b *bench) small() (s, n *server, body, msg []byte, err error) {
	s, err = b.serve(filepath.Join(b.work, "models"), "--grpc.tensor_content")
	if err != nil {
		return nil, nil, nil, nil, err
	}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if body, msg, err = smallRequests(); err != nil {
		return nil, nil, nil, nil, err
	}
	rest, grpc, err := checkSmall(s, body, msg)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	n, addresses, err := b.self(context.Background(), "noop", strconv.Itoa(rest), strconv.Itoa(grpc))
	if err != nil {
		return nil, nil, nil, nil, err
	}
	n.http, n.grpc = addresses[0], addresses[1]
	return s, n, body, msg, nil
}

// compare drives two servers in alternating pairs with the connections that open makes, and prints the figure.
func (b *bench) compare(name string, bound float64, s, other *server, open func(*server) measure.Caller) error {
	s.cpu, s.calls, other.cpu, other.calls = 0, 0, 0, 0
	r, err := measure.Pairs(name, "calls/s", bound, b.n,
		func() (float64, error) { return s.rate(connections, b.each, open(s)) },
		func() (float64, error) { return other.rate(connections, b.each, open(other)) })
	if err != nil {
		return err
	}
	fmt.Println(r.Report())
	fmt.Printf("  processor time of the servers per call: %.1f us over %.1f us\n", s.cost(), other.cost())
	return nil
}

// against compares two binaries with the small model.
func (b *bench) against() error {
	s, err := b.serve(filepath.Join(b.work, "models"), "--grpc.tensor_content")
	if err != nil {
		return err
	}
	defer s.stop()
	b.inferd = b.versus
	other, err := b.serve(filepath.Join(b.work, "models"), "--grpc.tensor_content")
	if err != nil {
		return err
	}
	defer other.stop()
	body, msg, err := smallRequests()
	if err != nil {
		return err
	}
	if err := b.compare("gRPC predict, small model, 64 connections / the other binary", 0, s, other, func(s *server) measure.Caller {
		return measure.LightCaller(s.grpc, predict, msg)
	}); err != nil {
		return err
	}
	return b.compare("REST predict, small model, 64 connections / the other binary", 0, s, other, func(s *server) measure.Caller {
		return measure.HTTPCaller(s.http, restPath, body)
	})
}

func (b *bench) rest() error {
	s, n, body, _, err := b.small()
	if err != nil {
		return err
	}
	defer s.stop()
	defer n.stop()
	return b.compare("REST predict, small model, 64 connections / no-op handler", 0.5, s, n, func(s *server) measure.Caller {
		return measure.HTTPCaller(s.http, restPath, body)
	})
}

func (b *bench) grpc() error {
	s, n, _, msg, err := b.small()
	if err != nil {
		return err
	}
	defer s.stop()
	defer n.stop()
	return b.compare("gRPC predict, small model, 64 connections / no-op handler", 0.5, s, n, func(s *server) measure.Caller {
		return measure.LightCaller(s.grpc, predict, msg)
	})
}

// MobileNetV2 takes side x side x 3 numbers and answers with so many.
const side, classes = 224, 1000

// image is one input row of MobileNetV2.
func image() []byte { return randomFloats(side * side * 3) }

// exported makes MobileNetV2 with the Python of build/venv when it is not there yet, and returns its version folder.
func (b *bench) exported() (string, error) {
	models := filepath.Join("build", "bench", "models")
	dir := filepath.Join(models, "mobilenet", "1")
	if _, err := os.Stat(filepath.Join(dir, "saved_model.pb")); err == nil {
		return filepath.Abs(dir)
	}
	fmt.Println("making MobileNetV2 (once) ...")
	cmd := exec.Command("bash", "-c", "tools/fetch.sh venv && build/venv/bin/python tools/bench/export.py "+models)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("export MobileNetV2: %w", err)
	}
	return filepath.Abs(dir)
}

// bare is the child that calls TF_SessionRun with as many callers as cores: DIR BATCH; it prints images per second and the first answer.
func (b *bench) bare(args []string) error {
	batch, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	m, sig, err := measure.LoadBare(args[0], tfrt.Options{})
	if err != nil {
		return err
	}
	x, err := imageTensor(batch)
	if err != nil {
		return err
	}
	var answer []float32
	_, err = m.Call(sig, []*tensor.Tensor{x}, []int{0}, func(_ int, t *tensor.Tensor) error {
		answer = floats(t.Data)[:classes]
		return nil
	})
	if err != nil {
		return err
	}
	rate, err := measure.Drive(b.callers, b.each, func(int) (func() error, func(), error) {
		return func() error {
			_, err := m.Call(sig, []*tensor.Tensor{x}, []int{0}, func(int, *tensor.Tensor) error { return nil })
			return err
		}, func() {}, nil
	})
	if err != nil {
		return err
	}
	fmt.Print(rate * float64(batch))
	for _, v := range answer {
		fmt.Print(" ", v)
	}
	fmt.Println()
	return nil
}

func imageTensor(batch int64) (*tensor.Tensor, error) {
	return tensor.New(tensor.Float, tensor.Shape{batch, side, side, 3}, bytes.Repeat(image(), int(batch)))
}

// bareRate is what bare TensorFlow reaches in a process of its own, and its answer for the image.
func (b *bench) bareRate(dir string, batch int) (rate float64, answer []float32, err error) {
	s, fields, err := b.self(context.Background(), "bare", dir, strconv.Itoa(batch))
	if err != nil {
		return 0, nil, err
	}
	s.stop()
	values := make([]float64, len(fields))
	for i, f := range fields {
		if values[i], err = strconv.ParseFloat(f, 64); err != nil {
			return 0, nil, err
		}
		if i > 0 {
			answer = append(answer, float32(values[i]))
		}
	}
	return values[0], answer, nil
}

// bestBare tries the batch sizes.
func (b *bench) bestBare(dir string) (batch int, answer []float32, err error) {
	best := 0.0
	for _, size := range []int{1, 2, 4, 8, 16} {
		var rates []float64
		for range 3 {
			rate, a, err := b.bareRate(dir, size)
			if err != nil {
				return 0, nil, err
			}
			rates, answer = append(rates, rate), a
		}
		fmt.Printf("  bare TF_SessionRun, %d callers, batch %2d: %.1f images/s\n", b.callers, size, measure.Median(rates))
		if m := measure.Median(rates); m > best {
			batch, best = size, m
		}
	}
	return batch, answer, nil
}

func (b *bench) mobilenet() error {
	dir, err := b.exported()
	if err != nil {
		return err
	}
	defer func(d time.Duration) { b.each = d }(b.each)
	b.each = max(b.each, 4*time.Second)
	best, want, err := b.bestBare(dir)
	if err != nil {
		return err
	}
	figure := func(name string, bound float64, open measure.Caller) error {
		r, err := measure.Pairs(fmt.Sprintf("MobileNetV2 %s / bare, batch %d", name, best), "images/s", bound, b.n,
			func() (float64, error) { return measure.Drive(clients, b.each, open) },
			func() (float64, error) { rate, _, err := b.bareRate(dir, best); return rate, err })
		if err == nil {
			fmt.Println(r.Report())
		}
		return err
	}
	if err := b.atServable(dir, want, figure); err != nil {
		return err
	}
	s, err := b.serve(filepath.Dir(filepath.Dir(dir)), "--grpc.tensor_content")
	if err != nil {
		return err
	}
	defer s.stop()
	msg, err := message("mobilenet", "x", image(), 1, side, side, 3)
	if err != nil {
		return err
	}
	answer, err := measure.Ask(s.grpc, predict, msg)
	if err == nil {
		err = nearProto(answer, "probs", want)
	}
	if err != nil {
		return err
	}
	if err := figure("over gRPC tensor_content, 16 connections", 0.85, measure.GRPCCaller(s.grpc, predict, msg)); err != nil {
		return err
	}
	const path = "/v1/models/mobilenet:predict"
	body, err := jsonBody(image(), side, side, 3)
	if err != nil {
		return err
	}
	if answer, err = post(s.http, path, body); err == nil {
		err = nearJSON(answer, want)
	}
	if err != nil {
		return err
	}
	return figure("over JSON, 16 connections", 0, measure.HTTPCaller(s.http, path, body))
}

// clients is the number of callers of MobileNetV2.
const clients = 16

// atServable measures batcher, rings and worker, without a wire.
func (b *bench) atServable(dir string, want []float32, figure func(string, float64, measure.Caller) error) error {
	t, err := b.trial(true)
	if err != nil {
		return err
	}
	defer t.Close()
	s, v, _, err := t.Open(context.Background(), dir)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // the host ends the worker in any case
	x, err := imageTensor(1)
	if err != nil {
		return err
	}
	sig := v.Signatures[inference.DefaultSignature]
	return figure("at the Servable, 16 callers", 0.95, func(int) (func() error, func(), error) {
		checked := false
		return func() error {
			resp, err := s.Predict(context.Background(), &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{x}, Outputs: []int{0}})
			if err != nil {
				return err
			}
			defer resp.Release()
			if !checked {
				checked = true
				return near(floats(resp.Outputs[0].Data), want)
			}
			return nil
		}, func() {}, nil
	})
}

// modelStatus is TensorFlow Serving's answer about a model.
type modelStatus struct {
	ModelVersionStatus []struct{ Version, State string } `json:"model_version_status"`
}

func getJSON(url string) (s modelStatus, err error) {
	resp, err := http.Get(url)
	if err != nil {
		return s, err
	}
	defer func() { _ = resp.Body.Close() }()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}
