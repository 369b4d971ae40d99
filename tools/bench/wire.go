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

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/inference/tfrt"
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

// answerSize asks the small model once over REST; the gRPC answer has ten floats, a name and a signature.
func answerSize(address, path string, body []byte) (int, error) {
	resp, err := http.Post("http://"+address+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return len(answer), err
}

const grpcAnswer = 120 // bytes, about what ten floats, a model spec and their names take

func (b *bench) small() (*server, *server, []byte, []byte, error) {
	s, err := b.serve(filepath.Join(b.work, "models"), "--grpc.tensor_content")
	if err != nil {
		return nil, nil, nil, nil, err
	}
	data := randomFloats(32)
	body, err := jsonBody(data, 32)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	msg, err := message("two_layer", "x", data, 1, 32)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	size, err := answerSize(s.http, restPath, body)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	n, addresses, err := b.self(context.Background(), "noop", strconv.Itoa(size), strconv.Itoa(grpcAnswer))
	if err != nil {
		return nil, nil, nil, nil, err
	}
	n.http, n.grpc = addresses[0], addresses[1]
	return s, n, body, msg, nil
}

func (b *bench) rest() error {
	s, n, body, _, err := b.small()
	if err != nil {
		return err
	}
	defer s.stop()
	defer n.stop()
	r, err := pairs("REST predict, small model, 64 connections / no-op handler", "calls/s", 0.5, b.n,
		func() (float64, error) { return drive(connections, b.each, httpCaller(s.http, restPath, body)) },
		func() (float64, error) { return drive(connections, b.each, httpCaller(n.http, restPath, body)) })
	if err != nil {
		return err
	}
	fmt.Println(r.report())
	return nil
}

func (b *bench) grpc() error {
	s, n, _, msg, err := b.small()
	if err != nil {
		return err
	}
	defer s.stop()
	defer n.stop()
	r, err := pairs("gRPC predict, small model, 64 connections / no-op handler", "calls/s", 0.5, b.n,
		func() (float64, error) { return drive(connections, b.each, grpcCaller(s.grpc, predict, msg)) },
		func() (float64, error) { return drive(connections, b.each, grpcCaller(n.grpc, predict, msg)) })
	if err != nil {
		return err
	}
	fmt.Println(r.report())
	return nil
}

const side = 224

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

// bare is the child that calls TF_SessionRun with as many callers as cores: DIR BATCH; it prints images per second.
func (b *bench) bare(args []string) error {
	batch, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	found, err := tfrt.Find(os.Getenv("LIBTENSORFLOW"))
	if err != nil {
		return err
	}
	rt, err := tfrt.Open(found.Path)
	if err != nil {
		return err
	}
	info, err := savedmodel.Read(args[0], []string{"serve"})
	if err != nil {
		return err
	}
	m, err := rt.Load(args[0], tfrt.Options{})
	if err != nil {
		return err
	}
	sig := info.Signatures[inference.DefaultSignature]
	x, err := imageTensor(batch)
	if err != nil {
		return err
	}
	rate, err := drive(b.callers, b.each, func(int) (func() error, func(), error) {
		return func() error {
			_, err := m.Call(sig, []*tensor.Tensor{x}, []int{0}, func(int, *tensor.Tensor) error { return nil })
			return err
		}, func() {}, nil
	})
	if err != nil {
		return err
	}
	fmt.Println(rate * float64(batch))
	return nil
}

func imageTensor(batch int64) (*tensor.Tensor, error) {
	return tensor.New(tensor.Float, tensor.Shape{batch, side, side, 3}, bytes.Repeat(image(), int(batch)))
}

func (b *bench) bareRate(dir string, batch int) (float64, error) {
	s, fields, err := b.self(context.Background(), "bare", dir, strconv.Itoa(batch))
	if err != nil {
		return 0, err
	}
	s.stop()
	return strconv.ParseFloat(fields[0], 64)
}

func (b *bench) mobilenet() error {
	dir, err := b.exported()
	if err != nil {
		return err
	}
	defer func(d time.Duration) { b.each = d }(b.each)
	b.each = max(b.each, 4*time.Second)
	best, bestRate := 0, 0.0
	for _, batch := range []int{1, 2, 4, 8, 16} {
		var rates []float64
		for range 3 {
			rate, err := b.bareRate(dir, batch)
			if err != nil {
				return err
			}
			rates = append(rates, rate)
		}
		fmt.Printf("  bare TF_SessionRun, %d callers, batch %2d: %.1f images/s\n", b.callers, batch, median(rates))
		if m := median(rates); m > bestRate {
			best, bestRate = batch, m
		}
	}
	bare := func() (float64, error) { return b.bareRate(dir, best) }

	cfg := config.Default()
	cfg.Runtime.Library = b.runtime
	trial, err := appliance.NewTrial(context.Background(), cfg, nil)
	if err != nil {
		return err
	}
	defer trial.Close()
	s, v, _, err := trial.Open(context.Background(), dir)
	if err != nil {
		return err
	}
	x, err := imageTensor(1)
	if err != nil {
		return err
	}
	sig := v.Signatures[inference.DefaultSignature]
	r, err := pairs(fmt.Sprintf("MobileNetV2 at the Servable, 16 callers / bare, batch %d", best), "images/s", 0.95, b.n, func() (float64, error) {
		return drive(16, b.each, func(int) (func() error, func(), error) {
			return func() error {
				resp, err := s.Predict(context.Background(), &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{x}, Outputs: []int{0}})
				if err == nil {
					resp.Release()
				}
				return err
			}, func() {}, nil
		})
	}, bare)
	_ = s.Close() // the host ends the worker in any case
	if err != nil {
		return err
	}
	fmt.Println(r.report())

	srv, err := b.serve(filepath.Dir(filepath.Dir(dir)), "--grpc.tensor_content")
	if err != nil {
		return err
	}
	defer srv.stop()
	msg, err := message("mobilenet", "x", image(), 1, side, side, 3)
	if err != nil {
		return err
	}
	r, err = pairs(fmt.Sprintf("MobileNetV2 over gRPC tensor_content, 16 connections / bare, batch %d", best), "images/s", 0.85, b.n,
		func() (float64, error) { return drive(16, b.each, grpcCaller(srv.grpc, predict, msg)) }, bare)
	if err != nil {
		return err
	}
	fmt.Println(r.report())
	body, err := jsonBody(image(), side, side, 3)
	if err != nil {
		return err
	}
	r, err = pairs(fmt.Sprintf("MobileNetV2 over JSON, 16 connections / bare, batch %d", best), "images/s", 0, b.n,
		func() (float64, error) {
			return drive(16, b.each, httpCaller(srv.http, "/v1/models/mobilenet:predict", body))
		}, bare)
	if err != nil {
		return err
	}
	fmt.Println(r.report())
	return nil
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
